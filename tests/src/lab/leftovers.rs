//! Removing what labs made: at a lab's end, and after runs that were killed.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xlb_userspace::agent::report::Report;

use super::lease::{LABS_MAX, Lease, is_kept};
use super::namespace::{NAMES_DIRECTORY, path_of, run_ip};
use super::wait::wait_for;

const BPFFS: &str = "/sys/fs/bpf";
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// What the names of one lab's things begin with: its process, then its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub process: u32,
    pub lab: u8,
}

impl Owner {
    pub fn this_process(lab: u8) -> Owner {
        Owner { process: process::id(), lab }
    }

    pub fn namespace(self, role: &str) -> String {
        format!("xlb{}-{}-{role}", self.process, self.lab)
    }

    pub fn pin_directory(self) -> PathBuf {
        Path::new(BPFFS).join(format!("xlb-test-{}-{}", self.process, self.lab))
    }

    fn of_namespace(name: &str) -> Option<Owner> {
        Owner::parse(name.strip_prefix("xlb")?)
    }

    fn of_pin_directory(name: &str) -> Option<Owner> {
        Owner::parse(name.strip_prefix("xlb-test-")?)
    }

    fn parse(text: &str) -> Option<Owner> {
        let mut parts = text.splitn(3, '-');
        let process = parts.next()?.parse().ok()?;
        let lab = parts.next()?.parse().ok()?;
        Some(Owner { process, lab })
    }
}

/// Removes what dead labs left. `own` is a number whose new lab has no things yet, so what bears it is dead.
pub fn sweep(own: &Lease) {
    for owner in owners().into_iter().filter(|owner| !is_kept(owner.lab)) {
        if owner.lab == own.number() {
            remove_lab(owner);
            continue;
        }
        // The lock is held while removing, so that no new lab takes the number meanwhile.
        if let Ok(Some(_lock)) = Lease::take(owner.lab) {
            remove_lab(owner);
        }
    }
}

/// Removes the processes, namespaces and pins of one lab. What is already gone is no error.
pub fn remove_lab(owner: Owner) {
    let names: Vec<String> =
        entries(NAMES_DIRECTORY).into_iter().filter(|name| Owner::of_namespace(name) == Some(owner)).collect();
    remove_namespaces(&names);
    let _ = fs::remove_dir_all(owner.pin_directory());
    Report::remove(&owner.pin_directory());
}

/// Ends the processes in these namespaces, then deletes the names.
pub fn remove_namespaces(names: &[String]) {
    if names.is_empty() {
        return;
    }
    end_processes(names);
    let lines = names.iter().fold(String::new(), |mut lines, name| {
        let _ = writeln!(lines, "netns del {name}");
        lines
    });
    if let Err(error) = run_ip(Command::new("ip"), &lines) {
        eprintln!("lab: deleting namespaces: {error:#}");
    }
}

fn owners() -> HashSet<Owner> {
    let namespaces = entries(NAMES_DIRECTORY).into_iter().filter_map(|name| Owner::of_namespace(&name));
    let pins = entries(BPFFS).into_iter().filter_map(|name| Owner::of_pin_directory(&name));
    namespaces.chain(pins).filter(|owner| owner.lab < LABS_MAX).collect()
}

/// Kills the processes in these namespaces and waits until their sockets are closed. A process that is inside was
/// started by the lab: nothing else knows the name.
pub fn end_processes(names: &[String]) {
    let namespaces = names.iter().filter_map(|name| identity(&path_of(name))).collect();
    let are_gone = wait_for(END_TIMEOUT, || {
        let processes = processes_in(&namespaces);
        for process in &processes {
            // A process that has just ended by itself is no error.
            let _ = kill(*process, Signal::SIGKILL);
        }
        processes.is_empty().then_some(())
    });
    if are_gone.is_none() {
        eprintln!("lab: processes in {names:?} outlive SIGKILL by {END_TIMEOUT:?}");
    }
}

/// A dying process leaves its namespaces after it has closed its files: one that is not listed has no sockets left.
fn processes_in(namespaces: &HashSet<(u64, u64)>) -> Vec<Pid> {
    let all = entries("/proc").into_iter().filter_map(|name| name.parse::<i32>().ok()).map(Pid::from_raw);
    let others = all.filter(|process| *process != Pid::this());
    others
        .filter(|process| {
            identity(Path::new(&format!("/proc/{process}/ns/net"))).is_some_and(|net| namespaces.contains(&net))
        })
        .collect()
}

fn identity(namespace: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(namespace).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn entries(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
