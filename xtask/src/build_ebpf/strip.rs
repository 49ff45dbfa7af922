//! Takes the debug information off an object, nine tenths of it: loaders go by BTF, which is made of it, and every agent carries
//! and reads the object.

use anyhow::Result;
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The object without the sections of debug information and their relocations.
pub fn strip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut object = Builder::read(bytes)?;
    for section in &mut object.sections {
        section.delete = is_debug(section.name.as_slice());
    }
    name_sections_apart(&mut object);
    let mut stripped = Vec::new();
    object.write(&mut stripped)?;
    Ok(stripped)
}

/// LLVM keeps the names of sections among those of symbols, which the writer does not.
fn name_sections_apart(object: &mut Builder<'_>) {
    if object.sections.iter().all(|section| !matches!(section.data, SectionData::SectionString)) {
        let names = object.sections.add();
        (names.name, names.sh_type, names.data) = (".shstrtab".into(), SHT_STRTAB, SectionData::SectionString);
    }
}

fn is_debug(section: &[u8]) -> bool {
    section.strip_prefix(b".rel").unwrap_or(section).starts_with(b".debug_")
}

#[cfg(test)]
mod tests {
    use object::elf::{EM_BPF, ET_REL, SHT_PROGBITS};
    use object::read::elf::ElfFile64;
    use object::{Endianness, Object as _, ObjectSection as _};

    use super::*;

    #[test]
    fn only_debug_information_goes() {
        let mut object = Builder::new(Endianness::Little, true);
        (object.header.e_machine, object.header.e_type) = (EM_BPF, ET_REL);
        for (name, content) in [("xdp", "code"), (".debug_info", "much"), (".BTF", "types"), (".maps", "maps")] {
            let section = object.sections.add();
            section.name = name.into();
            section.sh_type = SHT_PROGBITS;
            section.data = SectionData::Data(content.as_bytes().into());
        }
        name_sections_apart(&mut object);
        let mut bytes = Vec::new();
        object.write(&mut bytes).unwrap();

        let stripped = strip(&bytes).unwrap();
        let stripped = ElfFile64::<Endianness>::parse(&*stripped).unwrap();
        let found = stripped.sections().filter(|section| section.name() != Ok(".shstrtab"));
        let sections: Vec<_> = found.map(|section| (section.name().unwrap(), section.data().unwrap())).collect();
        assert_eq!(sections, [("xdp", &b"code"[..]), (".BTF", b"types"), (".maps", b"maps")]);
    }
}
