//! A cgroup of a test's own, so that programs attached to it meet the test's sockets and nobody else's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use xlb_userspace::maps::kernel::root_cgroup;

static NUMBER: AtomicU32 = AtomicU32::new(0);
const PREFIX: &str = "xlb-lab-";

/// A child of this process's cgroup. The thread that entered it is in it, with the threads that it starts from then on.
/// A socket belongs to the cgroup of the thread that makes it, whatever network namespace the thread is in.
pub struct Cgroup {
    parent: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// Makes one, and moves the current thread into it.
    pub fn enter() -> Result<Cgroup> {
        let cgroup = Cgroup::empty()?;
        cgroup.join()?;
        Ok(cgroup)
    }

    /// Moves the current thread into it: what sockets it makes from then on are the cgroup's.
    pub fn join(&self) -> Result<()> {
        write(&self.path.join("cgroup.threads"), "0")
    }

    /// Makes one that no thread is in: its programs see none of the test's sockets.
    pub fn empty() -> Result<Cgroup> {
        let parent = own_cgroup()?;
        remove_leftovers(&parent);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making the cgroup {}", path.display()))?;
        let cgroup = Cgroup { parent, path };
        // Threads of one process may be in different cgroups where these are threaded.
        write(&cgroup.path.join("cgroup.type"), "threaded")?;
        Ok(cgroup)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What programs are attached to.
    pub fn open(&self) -> Result<File> {
        File::open(&self.path).with_context(|| format!("opening the cgroup {}", self.path.display()))
    }
}

impl Drop for Cgroup {
    /// The thread that made it is expected to drop it, after its threads have ended.
    fn drop(&mut self) {
        let left = write(&self.parent.join("cgroup.threads"), "0");
        let removed = left.and_then(|()| Ok(fs::remove_dir(&self.path)?));
        if let Err(error) = removed {
            eprintln!("removing the cgroup {}: {error:#}", self.path.display());
        }
    }
}

fn own_cgroup() -> Result<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").context("reading this process's cgroup")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).context("this process is in no cgroup v2")?;
    Ok(root_cgroup()?.join(path))
}

/// What runs left that were killed. A cgroup with a living thread cannot be removed.
fn remove_leftovers(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner =
            name.to_string_lossy().strip_prefix(PREFIX).and_then(|rest| Some(rest.split_once('-')?.0.to_owned()));
        if owner.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {text} to {}", path.display()))
}
