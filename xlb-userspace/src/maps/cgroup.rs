//! The programs of a cgroup: which, in which order, and how one takes the place of another.
//!
//! Their pins end with the cgroup's id, so that an agent that is to follow another cgroup makes links of its own, and those
//! of before go after its first round.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, Program};
use tracing::{debug, info};

use crate::maps::link::{pin_link, remove_pin, replace_program};
use crate::maps::pins::PinDirectory;

/// It follows the pods' sockets, and learns the addresses of their namespaces.
pub const FOLLOWING: &str = "accepted";

/// They serve clients inside. In this order, as answers must be restored before the first question is redirected; and
/// the other way round when they go.
pub const SERVING_INSIDE: [&str; 8] =
    ["recvmsg4", "recvmsg6", "getpeername4", "getpeername6", "connect4", "connect6", "sendmsg4", "sendmsg6"];

/// Attaches the programs, or puts them into the links that an earlier agent left. Answers their pins.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    pins: &PinDirectory,
    path: &Path,
    serves_inside: bool,
) -> Result<BTreeSet<PathBuf>> {
    let cgroup = File::open(path).with_context(|| format!("opening the cgroup {}", path.display()))?;
    // The id of a cgroup is its directory's inode (kernfs).
    let id = cgroup.metadata().with_context(|| format!("reading the id of the cgroup {}", path.display()))?.ino();
    let serving: &[&str] = if serves_inside { &SERVING_INSIDE } else { &[] };
    let mut attached = BTreeSet::new();
    for name in [FOLLOWING].iter().chain(serving) {
        let pin = pins.links().join(format!("{name}-{id}"));
        let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
        attach_one(program, &cgroup, &pin)
            .with_context(|| format!("attaching the program {name} to the cgroup {}", path.display()))?;
        attached.insert(pin);
    }
    info!("attached {} programs to the cgroup {}", attached.len(), path.display());
    Ok(attached)
}

/// The pins of all that is attached to cgroups.
pub(super) fn pinned(pins: &PinDirectory) -> BTreeSet<PathBuf> {
    let is_of_cgroup = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        [FOLLOWING].iter().chain(&SERVING_INSIDE).any(|name| is_pin_of(name, &file))
    };
    let links = std::fs::read_dir(pins.links()).into_iter().flatten().flatten().map(|entry| entry.path());
    links.filter(is_of_cgroup).collect()
}

/// Detaches what serves clients inside, in order, but for what is wanted.
pub(super) fn detach_all_but(wanted: &BTreeSet<PathBuf>, pins: &PinDirectory) {
    let links: Vec<PathBuf> =
        std::fs::read_dir(pins.links()).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    for name in SERVING_INSIDE.iter().rev() {
        let is_of = |path: &&PathBuf| path.file_name().is_some_and(|file| is_pin_of(name, &file.to_string_lossy()));
        for pin in links.iter().filter(is_of).filter(|pin| !wanted.contains(*pin)) {
            match remove_pin(pin) {
                Ok(()) => debug!("detached {}", pin.display()),
                Err(error) => debug!("detaching: {error:#}"),
            }
        }
    }
}

fn is_pin_of(program: &str, file: &str) -> bool {
    file.strip_prefix(program).is_some_and(|rest| rest.starts_with('-'))
}

fn attach_one(program: &mut Program, cgroup: &File, pin: &Path) -> Result<()> {
    if replace_program(pin, program.fd()?.as_fd())? {
        return Ok(());
    }
    let link: FdLink = match program {
        Program::SockOps(program) => {
            let id = program.attach(cgroup, CgroupAttachMode::Single)?;
            program.take_link(id)?.try_into()
        }
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, CgroupAttachMode::Single)?;
            program.take_link(id)?.try_into()
        }
        other => bail!("a program of type {:?} is for no cgroup", other.prog_type()),
    }
    .context("the kernel made no link")?;
    pin_link(link, pin)
}
