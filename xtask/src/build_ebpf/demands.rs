//! What the programs of an object ask of a kernel that not every kernel has: to be out of lockdown, and to describe its types.

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, SectionKind};

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
const CALL: u8 = 0x85;

/// Helpers that a kernel in lockdown does not have (`security_locked_down` in kernel/bpf/helpers.c and kernel/trace/bpf_trace.c).
const LOCKED: [(i32, &str); 5] = [
    (4, "bpf_probe_read"),
    (36, "bpf_probe_write_user"),
    (45, "bpf_probe_read_str"),
    (113, "bpf_probe_read_kernel"),
    (115, "bpf_probe_read_kernel_str"),
];

/// Where the header of `.BTF.ext` says how long the relocations by types are (`struct btf_ext_header`).
const RELOCATIONS_AT: usize = 28;

/// A sentence for each thing that some kernels do not have.
pub fn faults(object: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(object)?;
    let mut faults = Vec::new();
    for section in file.sections() {
        let name = section.name().unwrap_or_default();
        let bytes = section.data().with_context(|| format!("reading the section {name}"))?;
        if section.kind() == SectionKind::Text {
            faults.extend(locked_calls(bytes).map(|helper| {
                format!("its section {name} calls {helper}, which a kernel in lockdown (confidentiality) refuses")
            }));
        }
        if name == ".BTF.ext" && has_relocations(bytes) {
            faults.push("it has relocations by the kernel's types, for which a kernel needs BTF".to_owned());
        }
    }
    Ok(faults)
}

fn locked_calls(code: &[u8]) -> impl Iterator<Item = &'static str> {
    let (instructions, _) = code.as_chunks::<INSTRUCTION>();
    instructions.iter().filter_map(|&[opcode, registers, _, _, a, b, c, d]| {
        // With a source register it is a function of the object, or of the kernel.
        let helper = (opcode == CALL && registers >> 4 == 0).then(|| i32::from_le_bytes([a, b, c, d]))?;
        LOCKED.iter().find(|(number, _)| *number == helper).map(|(_, name)| *name)
    })
}

fn has_relocations(header: &[u8]) -> bool {
    header.get(RELOCATIONS_AT..RELOCATIONS_AT + 4).is_some_and(|length| length != [0; 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_helpers_that_lockdown_takes_away_are_found() {
        let call = |registers: u8, helper: i32| {
            let [a, b, c, d] = helper.to_le_bytes();
            [CALL, registers, 0, 0, a, b, c, d]
        };
        let rows: [(&[[u8; INSTRUCTION]], &[&str]); 4] = [
            (&[call(0, 1), call(0, 113)], &["bpf_probe_read_kernel"]),
            (&[call(0, 4), call(0, 36)], &["bpf_probe_read", "bpf_probe_write_user"]),
            // A function of the object, and a number that is none of a call.
            (&[call(0x10, 113)], &[]),
            (&[[0xb7, 0, 0, 0, 113, 0, 0, 0]], &[]),
        ];
        for (code, expected) in rows {
            assert_eq!(locked_calls(code.as_flattened()).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn relocations_by_types_are_seen_by_their_length() {
        let mut header = [0; 32];
        assert!(!has_relocations(&header));
        header[RELOCATIONS_AT] = 1;
        assert!(has_relocations(&header));
        assert!(!has_relocations(&header[..24]), "an older header has no room for them");
    }
}
