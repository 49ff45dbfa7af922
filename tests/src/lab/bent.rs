//! An xlb whose kernel programs have a mistake. The object is part of the binary: a few bytes of a copy of it are changed, so
//! that the real thing needs no door for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::agent::xlb_binary;
use crate::kernel::dataplane::object_path;

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;
/// BPF_LDX | BPF_MEM | BPF_DW of r0 from r5, which nobody has written.
const LOADS_BY_NOTHING: [u8; INSTRUCTION] = [0x79, 0x50, 0, 0, 0, 0, 0, 0];
/// BPF_MOV of an immediate, with 32 and 64 bits.
const MOVES: [u8; 2] = [0xb4, 0xb7];
/// TCX_NEXT and TC_ACT_SHOT.
const PASSES: [u8; 4] = (-1_i32).to_le_bytes();
const DROPS: [u8; 4] = 2_i32.to_le_bytes();
/// At which the object lies in the binary: `include_bytes_aligned`.
const ALIGNMENT: usize = 8;

/// A mistake in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bend {
    /// The verifier refuses it.
    Unverifiable,
    /// It loads, and what it should pass on it drops. tc programs only.
    DropsAll,
}

/// A copy of the object with a mistake in a program.
pub fn bent_object(program: &str, bend: Bend) -> Result<Vec<u8>> {
    let path = object_path("xlb-ebpf.o");
    let mut bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    bend_at(&mut bytes, program, bend)?;
    Ok(bytes)
}

/// A copy of the binary under test, in a directory, with a mistake in a program.
pub fn bent_binary(directory: &Path, program: &str, bend: Bend) -> Result<PathBuf> {
    let mut binary = fs::read(xlb_binary())?;
    let object = fs::read(object_path("xlb-ebpf.o"))?;
    let mut starts = (0..binary.len().saturating_sub(object.len())).step_by(ALIGNMENT);
    let start =
        starts.find(|&at| binary[at..at + INSTRUCTION] == object[..INSTRUCTION] && binary[at..].starts_with(&object));
    let start = start.context("the binary does not hold the object: build it again")?;
    bend_at(&mut binary[start..start + object.len()], program, bend)?;
    // A running agent is known by the name of its file.
    let folder = directory.join(format!("{program}-{bend:?}"));
    fs::create_dir_all(&folder)?;
    let path = folder.join("xlb");
    let data = folder.join("data");
    fs::write(&data, binary)?;
    // Another process writes it: a program that this one has open for writing, or a child of another thread, cannot be started.
    let status =
        Command::new("install").args(["-m", "755"]).args([&data, &path]).status().context("running install")?;
    ensure!(status.success(), "install: {status}");
    fs::remove_file(&data)?;
    Ok(path)
}

fn bend_at(object: &mut [u8], program: &str, bend: Bend) -> Result<()> {
    let (start, size) = place(object, program)?;
    let instructions = object[start..start + size].as_chunks_mut::<INSTRUCTION>().0;
    match bend {
        Bend::Unverifiable => instructions[0] = LOADS_BY_NOTHING,
        Bend::DropsAll => {
            let passing = instructions.iter_mut().filter(|bytes| MOVES.contains(&bytes[0]) && bytes[4..] == PASSES);
            let bent = passing.map(|bytes| bytes[4..].copy_from_slice(&DROPS)).count();
            ensure!(bent > 0, "{program} passes nothing on");
        }
    }
    Ok(())
}

/// Where in the object a program's instructions are, and how many bytes.
fn place(object: &[u8], program: &str) -> Result<(usize, usize)> {
    let file = object::File::parse(object).context("reading the object")?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(program) && symbol.size() > 0);
    let symbol = symbol.with_context(|| format!("the object has no program {program}"))?;
    let section = file.section_by_index(symbol.section_index().context("a program without a section")?)?;
    let (start, _) = section.file_range().context("a section without bytes")?;
    Ok((usize::try_from(start + symbol.address())?, usize::try_from(symbol.size())?))
}
