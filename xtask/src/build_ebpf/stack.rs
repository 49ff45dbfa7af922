//! How much stack the programs of an object need at most, by the count of the kernels that count most.
//!
//! A chain of calls has 512 bytes together. Kernels before 6.9 round each function's part up to 32 bytes, later ones to 16
//! (`check_max_stack_depth_subprog` in kernel/bpf/verifier.c): what fits on the newer ones need not fit on the older.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind};

/// Bytes that a chain of calls has (`MAX_BPF_STACK`).
const STACK: usize = 512;
/// What a function's part is rounded up to, and at least.
const UNIT: usize = 32;
/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
/// The register that points behind the function's part of the stack.
const FRAME_POINTER: u8 = 10;

const CLASS: u8 = 0x07;
const LOAD_WIDE: u8 = 0x18;
const LOAD: u8 = 1;
const STORES: [u8; 2] = [2, 3];
const CALL: u8 = 0x85;
/// What is in place of a source register where no helper is called.
const CALL_OF_FUNCTION: u8 = 1;
const MOVE: u8 = 0xbf;
const ADD_NUMBER: u8 = 0x07;

/// Where a function begins: its section's number, and its place there.
type Place = (usize, u64);

/// A sentence for each program that needs more than there is.
pub fn faults(object: &[u8]) -> Result<Vec<String>> {
    let functions = functions(object)?;
    let programs = functions.iter().filter(|(_, function)| function.is_program);
    let chains = programs.map(|(place, function)| (function, deepest(&functions, *place)));
    let too_deep = chains.filter(|(_, (bytes, _))| *bytes > STACK);
    Ok(too_deep
        .map(|(function, (bytes, parts))| {
            let parts: Vec<_> = parts.iter().map(|(name, part)| format!("{part} `{name}`")).collect();
            let parts = parts.join(", ");
            format!(
                "its program `{}` needs {bytes} of {STACK} bytes of stack on Linux 6.6 to 6.8, by functions that take \
                 {parts}: put what is large, or rare, into a function beside the deepest",
                function.name
            )
        })
        .collect())
}

/// Bytes of the deepest chain of calls from a function on, and each function's part.
fn deepest(functions: &BTreeMap<Place, Function>, place: Place) -> (usize, Vec<(&str, usize)>) {
    let Some(function) = functions.get(&place) else { return (0, Vec::new()) };
    let below = function.calls.iter().map(|&callee| deepest(functions, callee));
    let (bytes, parts) = below.max().unwrap_or_default();
    (function.part.max(1).next_multiple_of(UNIT) + bytes, [vec![(&*function.name, function.part)], parts].concat())
}

#[derive(Debug)]
struct Function {
    name: String,
    /// Whether it is in a section named after a type of program.
    is_program: bool,
    /// Bytes of stack.
    part: usize,
    calls: Vec<Place>,
}

fn functions(object: &[u8]) -> Result<BTreeMap<Place, Function>> {
    let file = object::File::parse(object)?;
    let mut functions = BTreeMap::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (index, code) = (section.index().0, section.data()?);
        let targets: BTreeMap<u64, Place> = section
            .relocations()
            .filter_map(|(at, relocation)| match relocation.target() {
                RelocationTarget::Symbol(symbol) => {
                    let symbol = file.symbol_by_index(symbol).ok()?;
                    Some((at, (symbol.section_index()?.0, symbol.address())))
                }
                _ => None,
            })
            .collect();
        for symbol in file.symbols().filter(|symbol| symbol.section_index() == Some(section.index())) {
            if symbol.kind() != SymbolKind::Text || symbol.size() == 0 {
                continue;
            }
            let range = symbol.address() as usize..(symbol.address() + symbol.size()) as usize;
            let code = code.get(range).context("a function ends behind its section")?;
            let (part, calls) = read(code, symbol.address(), index, &targets);
            let is_program = !section.name()?.starts_with('.');
            let name = symbol.name()?.to_owned();
            functions.insert((index, symbol.address()), Function { name, is_program, part, calls });
        }
    }
    Ok(functions)
}

/// A function's part of the stack, and what it calls, or hands to the kernel to be called.
fn read(code: &[u8], start: u64, section: usize, targets: &BTreeMap<u64, Place>) -> (usize, Vec<Place>) {
    let (mut part, mut calls) = (0, Vec::new());
    let mut points_to_stack = [false; 16];
    let mut instructions = code.as_chunks::<INSTRUCTION>().0.iter().zip((start..).step_by(INSTRUCTION));
    while let Some((&[operation, registers, o0, o1, n0, n1, n2, n3], at)) = instructions.next() {
        let (to, from) = (registers & 0xf, registers >> 4);
        let (offset, number) = (i16::from_le_bytes([o0, o1]), i32::from_le_bytes([n0, n1, n2, n3]));
        let below = |number: i64| usize::try_from(-number).unwrap_or(0);
        match operation {
            MOVE => points_to_stack[usize::from(to)] = from == FRAME_POINTER,
            ADD_NUMBER if points_to_stack[usize::from(to)] => {
                part = part.max(below(number.into()));
                points_to_stack[usize::from(to)] = false;
            }
            CALL if from == CALL_OF_FUNCTION => {
                // From a section's beginning, or from the next instruction on.
                let steps = i64::from(number) + 1;
                let (section, base) = targets.get(&at).copied().unwrap_or((section, at));
                calls.push((section, base.wrapping_add_signed(steps * INSTRUCTION as i64)));
            }
            LOAD_WIDE => {
                calls.extend(
                    targets.get(&at).map(|(section, base)| (*section, base.wrapping_add_signed(number.into()))),
                );
                instructions.next();
            }
            _ if operation & CLASS == LOAD => {
                points_to_stack[usize::from(to)] = false;
                if from == FRAME_POINTER {
                    part = part.max(below(offset.into()));
                }
            }
            _ if STORES.contains(&(operation & CLASS)) && to == FRAME_POINTER => part = part.max(below(offset.into())),
            _ => {}
        }
    }
    (part, calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: usize = 1;
    const OTHER: usize = 2;

    #[test]
    fn a_chain_is_as_deep_as_its_parts_rounded_up() {
        let function = |part, calls: &[u64]| Function {
            name: String::new(),
            is_program: false,
            part,
            calls: calls.iter().map(|&at| (TEXT, at)).collect(),
        };
        let functions =
            [(0, function(40, &[8, 16])), (8, function(33, &[])), (16, function(0, &[24])), (24, function(64, &[99]))];
        let functions = functions.map(|(at, function)| ((TEXT, at), function)).into();
        assert_eq!(deepest(&functions, (TEXT, 0)), (64 + 32 + 64, vec![("", 40), ("", 0), ("", 64)]));
    }

    #[test]
    fn a_functions_part_is_its_lowest_byte() {
        let rows: [(&[[u8; 8]], usize); 5] = [
            // *(u64 *)(r10 - 16) = r1
            (&[[0x7b, 0x1a, 0xf0, 0xff, 0, 0, 0, 0]], 16),
            // r6 = *(u32 *)(r10 - 4)
            (&[[0x61, 0xa6, 0xfc, 0xff, 0, 0, 0, 0]], 4),
            // r2 = r10; r2 += -40
            (&[[0xbf, 0xa2, 0, 0, 0, 0, 0, 0], [0x07, 0x02, 0, 0, 0xd8, 0xff, 0xff, 0xff]], 40),
            // r2 = r10; r2 = *(u64 *)(r1 + 0); r2 += -40
            (
                &[
                    [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
                    [0x79, 0x12, 0, 0, 0, 0, 0, 0],
                    [0x07, 0x02, 0, 0, 0xd8, 0xff, 0xff, 0xff],
                ],
                0,
            ),
            // *(u64 *)(r1 - 16) = r2
            (&[[0x7b, 0x21, 0xf0, 0xff, 0, 0, 0, 0]], 0),
        ];
        for (code, part) in rows {
            assert_eq!(read(&code.concat(), 0, TEXT, &BTreeMap::new()), (part, Vec::new()), "{code:02x?}");
        }
    }

    #[test]
    fn what_the_kernel_calls_back_is_called() {
        // call +2; call .text+24; r2 = .text+80 ll; call helper 181
        let code = [
            [0x85, 0x10, 0, 0, 2, 0, 0, 0],
            [0x85, 0x10, 0, 0, 2, 0, 0, 0],
            [0x18, 0x02, 0, 0, 80, 0, 0, 0],
            [0; 8],
            [0x85, 0, 0, 0, 181, 0, 0, 0],
        ];
        let targets = [(108, (OTHER, 0)), (116, (OTHER, 0))].into();
        let calls = vec![(TEXT, 124), (OTHER, 24), (OTHER, 80)];
        assert_eq!(read(&code.concat(), 100, TEXT, &targets), (0, calls));
    }
}
