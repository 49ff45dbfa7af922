//! Whether a binary runs on an empty base: it must need nothing but the kernel.

use anyhow::{Context as _, Result};
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use object::{Endianness, FileKind};

use super::arch::Arch;

/// What keeps a binary from running there, a sentence each.
pub fn faults(bytes: &[u8], arch: Arch) -> Result<Vec<String>> {
    if FileKind::parse(bytes).ok() != Some(FileKind::Elf64) {
        return Ok(vec!["it is no 64-bit ELF file".to_owned()]);
    }
    let header = FileHeader64::<Endianness>::parse(bytes).context("reading its header")?;
    let endian = header.endian().context("reading its byte order")?;
    let mut faults = Vec::new();
    let machine = header.e_machine(endian);
    if machine != arch.elf_machine() {
        faults.push(format!("it is for ELF machine {machine}, and {} is {}", arch.name(), arch.elf_machine()));
    }
    for segment in header.program_headers(endian, bytes).context("reading its segments")? {
        if segment.p_type(endian) == PT_INTERP {
            faults.push("it asks for a dynamic linker (PT_INTERP)".to_owned());
        }
        let entries = segment.dynamic(endian, bytes).context("reading its dynamic section")?.unwrap_or_default();
        let needed =
            entries.iter().filter(|entry| entry.tag32(endian).is_some_and(|tag| i64::from(tag) == DT_NEEDED)).count();
        if needed > 0 {
            faults.push(format!("it needs {needed} shared libraries (DT_NEEDED)"));
        }
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_linked_dynamically_is_no_good_on_an_empty_base() {
        let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = faults(&this_test, Arch::of_this_machine()).unwrap().join("; ");
        assert!(found.contains("PT_INTERP") && found.contains("DT_NEEDED"), "{found}");

        let other = if Arch::of_this_machine() == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 };
        let found = faults(&this_test, other).unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn what_is_no_program_is_none() {
        assert_eq!(faults(b"#!/bin/sh\n", Arch::Amd64).unwrap(), ["it is no 64-bit ELF file"]);
        assert_eq!(faults(b"", Arch::Amd64).unwrap().len(), 1);
    }
}
