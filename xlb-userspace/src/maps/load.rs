//! The programs of an object: how they are loaded, and made reachable for each other.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::ProgramArray;
use aya::programs::{Program, SchedClassifier, Xdp};
use xlb_common::hook::{Hook, Kind};
use xlb_common::links::{self, Job};

use crate::maps::wanted::{self, Refused};

/// Loads these programs, as far as they are not loaded, on as many threads as there are CPUs: the verifier takes up to half a
/// second for one. No map changes, and nobody meets them yet.
///
/// # Errors
/// The first of them that the object does not have or the kernel refuses.
pub fn load_programs(ebpf: &mut Ebpf, names: &[String]) -> Result<(), Refused> {
    for name in names {
        program_of(ebpf, name).map_err(Refused::by(name))?;
    }
    let place = |name: &str| names.iter().position(|wanted| wanted == name);
    let programs = ebpf.programs_mut().filter(|(name, program)| program.fd().is_err() && place(name).is_some());
    let queue = Mutex::new(programs.collect::<Vec<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let load_some = || {
        let results =
            std::iter::from_fn(next).map(|(name, program)| load_program(name, program).map_err(Refused::by(name)));
        results.filter_map(Result::err).collect::<Vec<_>>()
    };
    let refused = on_cpus(names.len(), load_some);
    refused.into_iter().min_by_key(|refused| place(&refused.program)).map_or(Ok(()), Err)
}

/// Does the same once on each CPU, and at most so many times, at once. Answers what came of all.
fn on_cpus<T: Send>(most: usize, work: impl Fn() -> Vec<T> + Sync) -> Vec<T> {
    let others = thread::available_parallelism().map_or(1, usize::from).min(most).saturating_sub(1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..others).map(|_| scope.spawn(&work)).collect();
        let own = work();
        let of_others =
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        own.into_iter().chain(of_others).collect()
    })
}

/// Loads the programs of a hook, unless they are loaded, and makes those reachable that are for one kind of packet.
///
/// # Errors
/// When the kernel refuses a program, or the map by which they call each other.
pub fn load_hook(ebpf: &mut Ebpf, hook: Hook) -> Result<()> {
    load_programs(ebpf, &wanted::of_hook(hook))?;
    connect_hook(ebpf, hook)
}

/// Makes the loaded programs of a hook that are for one kind of packet reachable for the usual one.
///
/// # Errors
/// When the kernel refuses the map by which they call each other.
pub fn connect_hook(ebpf: &mut Ebpf, hook: Hook) -> Result<()> {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_at(hook)) {
        let name = format!("{}{}", hook.program(), kind.suffix());
        connect(ebpf, hook.jumps(), hook.jump(kind), &name)?;
    }
    Ok(())
}

/// Makes the loaded programs reachable to which those at pods' links hand over.
///
/// # Errors
/// As for [`connect_hook`].
pub fn connect_links(ebpf: &mut Ebpf) -> Result<()> {
    Job::ALL.into_iter().try_for_each(|job| connect(ebpf, links::JUMPS, job as u32, job.program()))
}

fn connect(ebpf: &mut Ebpf, jumps: &str, at: u32, name: &str) -> Result<()> {
    let program = program_of(ebpf, name)?.fd()?.try_clone()?;
    let jumps = ebpf.map_mut(jumps).with_context(|| format!("the object has no map {jumps}"))?;
    ProgramArray::try_from(jumps)?.set(at, &program, 0).with_context(|| format!("making {name} reachable"))
}

/// Loads a program that is not loaded yet.
///
/// # Errors
/// When the object has none of this name, or the kernel refuses it.
pub fn load_once(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program = program_of(ebpf, name)?;
    if program.fd().is_ok() { Ok(()) } else { load_program(name, program) }
}

fn program_of<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))
}

fn load_program(name: &str, program: &mut Program) -> Result<()> {
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        other => bail!("the object holds a program of a type that xlb does not use: {:?}", other.prog_type()),
    };
    loaded.with_context(|| format!("loading the program {name}: the kernel refused it"))
}

/// A tc program of the object.
///
/// # Errors
/// When the object has none of this name.
pub fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    program_of(ebpf, name)?.try_into().with_context(|| format!("{name} is not a tc program"))
}

/// The XDP program of the object.
///
/// # Errors
/// When the object has none of this name.
pub fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    program_of(ebpf, name)?.try_into().with_context(|| format!("{name} is not an XDP program"))
}
