//! Repairs what the linked object says of its types (BTF), so that kernels take it. They need it for loops by bpf_loop: a
//! callback has to be known as a static function.
//!
//! LLVM describes a Rust enum as a union of its variants and of the member that tells them apart, which has the place that
//! it has in the enum. In BTF all members of a union are at its beginning (`btf_struct_check_meta` in kernel/bpf/btf.c), so
//! kernels refuse such a description, and with it that of all functions. Nothing reads these members: they are moved.

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSection as _};

/// `struct btf_header` begins with it; numbers have the byte order of the target.
const MAGIC: u32 = 0xeb9f;
/// Bytes of `struct btf_type`.
const TYPE_LENGTH: usize = 12;
/// Bytes of `struct btf_member`: name, type, offset in bits.
const MEMBER_LENGTH: usize = 12;
const KIND_UNION: u32 = 5;

/// Moves members of unions to where BTF wants them, in an object of little-endian BPF.
pub fn repair(object: &mut [u8]) -> Result<()> {
    let file = object::File::parse(&*object)?;
    let section = file.section_by_name(".BTF").context("it has no section .BTF, which the linker writes for --btf")?;
    let (start, length) = section.file_range().context("its section .BTF is empty")?;
    let range = usize::try_from(start)?..usize::try_from(start + length)?;
    move_union_members(object.get_mut(range).context("its section .BTF is cut off")?)
}

fn move_union_members(btf: &mut [u8]) -> Result<()> {
    ensure!(number(btf, 0)? & 0xffff == MAGIC, "its section .BTF is not little-endian BTF");
    let types = number(btf, 4)? as usize + number(btf, 8)? as usize;
    let end = types + number(btf, 12)? as usize;
    let mut at = types;
    while at < end {
        let info = number(btf, at + 4)?;
        let (kind, entries) = (info >> 24 & 0x1f, info as usize & 0xffff);
        at += TYPE_LENGTH;
        if kind == KIND_UNION {
            for member in 0..entries {
                let offset_at = at + member * MEMBER_LENGTH + 8;
                btf.get_mut(offset_at..offset_at + 4).context("its section .BTF is cut off")?.fill(0);
            }
        }
        at += length_after(kind, entries)?;
    }
    Ok(())
}

/// Bytes that follow the `struct btf_type` of a kind (Documentation/bpf/btf.rst).
fn length_after(kind: u32, entries: usize) -> Result<usize> {
    Ok(match kind {
        // Pointers, forward declarations, names, qualifiers, functions, floating point, type tags.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, declaration tags.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, sections, enumerations of 64 bits.
        4 | KIND_UNION | 15 | 19 => entries * MEMBER_LENGTH,
        // Enumerations, function prototypes.
        6 | 13 => entries * 8,
        _ => bail!("its section .BTF has a type of kind {kind}, which xtask/src/build_ebpf/btf.rs does not know"),
    })
}

fn number(btf: &[u8], at: usize) -> Result<u32> {
    let bytes = btf.get(at..at + 4).context("its section .BTF is cut off")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRUCT: u32 = 4 << 24;
    const UNION: u32 = KIND_UNION << 24;
    const INT: u32 = 1 << 24;

    #[test]
    fn members_of_unions_are_moved_and_those_of_structures_are_not() {
        let mut btf = section(&[
            &[0, INT, 4, 32],
            &[1, STRUCT | 2, 8, 1, 1, 0, 2, 1, 32],
            &[2, UNION | 2, 8, 1, 1, 48, 2, 1, 0],
            &[3, STRUCT | 1, 8, 1, 1, 32],
        ]);
        move_union_members(&mut btf).unwrap();
        let moved = section(&[
            &[0, INT, 4, 32],
            &[1, STRUCT | 2, 8, 1, 1, 0, 2, 1, 32],
            &[2, UNION | 2, 8, 1, 1, 0, 2, 1, 0],
            &[3, STRUCT | 1, 8, 1, 1, 32],
        ]);
        assert_eq!(btf, moved);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let unknown = move_union_members(&mut section(&[&[0, 31 << 24, 0]])).unwrap_err();
        assert!(unknown.to_string().contains("kind 31"), "{unknown}");
        assert!(move_union_members(&mut section(&[&[0, UNION | 2, 8, 1, 1, 48]])).is_err());
        assert!(move_union_members(&mut []).is_err());
        assert!(move_union_members(&mut [0; 64]).is_err());
    }

    /// A header, and types as they lie in the section.
    fn section(types: &[&[u32]]) -> Vec<u8> {
        let length: usize = types.iter().map(|words| words.len() * 4).sum();
        let header = [MAGIC | 1 << 16, 24, 0, length as u32, length as u32, 0];
        header.iter().chain(types.iter().copied().flatten()).flat_map(|word| word.to_le_bytes()).collect()
    }
}
