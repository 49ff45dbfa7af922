//! Where maps, programs and links live when the agent does not: one directory on bpffs, by the version of the map ABI.
//!
//! `<bpffs-dir>/v1/maps/NAME`, `<bpffs-dir>/v1/links/PROGRAM-IFINDEX` or
//! `PROGRAM-CGROUP`, `<bpffs-dir>/v1/programs/prove`.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use xlb_common::abi::ABI_VERSION;

use crate::maps::cgroup;

/// Where bpffs is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";
/// Where pins are unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/sys/fs/bpf/xlb";

/// The pin directory of one dataplane.
#[derive(Clone, Debug)]
pub struct PinDirectory {
    root: PathBuf,
}

/// Held by the one agent of a pin directory; let go when it is dropped or the process ends.
#[derive(Debug)]
pub struct AgentLock {
    _directory: File,
}

impl PinDirectory {
    /// A directory that may or may not exist.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself, without the version.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Pin of a map.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.version().join("maps").join(name)
    }

    /// Directory of the links' pins.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.version().join("links")
    }

    /// Pin of a program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.version().join("programs").join(name)
    }

    /// Whether a dataplane of this version is there.
    #[must_use]
    pub fn holds_dataplane(&self) -> bool {
        self.map("CONFIG").exists()
    }

    fn version(&self) -> PathBuf {
        self.root.join(format!("v{ABI_VERSION}"))
    }

    /// Makes the directory, mounting bpffs if that is what is missing.
    ///
    /// # Errors
    /// When there is no bpffs and none can be mounted, or the directory holds maps of another version.
    pub fn prepare(&self) -> Result<()> {
        self.require_bpffs()?;
        self.refuse_other_versions()?;
        for directory in [self.version().join("maps"), self.links(), self.version().join("programs")] {
            fs::create_dir_all(&directory)
                .with_context(|| format!("making the pin directory {}", directory.display()))?;
        }
        Ok(())
    }

    fn require_bpffs(&self) -> Result<()> {
        let existing = self.root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        if is_bpffs(existing)? {
            return Ok(());
        }
        if !self.root.starts_with(BPFFS) {
            bail!("{} is not on a BPF file system: choose a --bpffs-dir below {BPFFS}", self.root.display());
        }
        fs::create_dir_all(BPFFS).with_context(|| format!("making the mount point {BPFFS}"))?;
        mount(Some("bpffs"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).with_context(|| {
            format!(
                "mounting the BPF file system, where xlb pins its maps: run `mount -t bpf bpffs {BPFFS}` on the node"
            )
        })
    }

    fn refuse_other_versions(&self) -> Result<()> {
        if !self.root.exists() {
            return Ok(());
        }
        let entries = fs::read_dir(&self.root).with_context(|| format!("reading {}", self.root.display()))?;
        let own = format!("v{ABI_VERSION}");
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != own && name.starts_with('v') {
                bail!(
                    "{} holds a dataplane of map ABI {name}, this xlb speaks {own}: go back to that version, or remove it \
                     with `xlb cleanup --bpffs-dir {}` (its flows end)",
                    self.root.display(),
                    self.root.display()
                );
            }
        }
        Ok(())
    }

    /// Takes the directory for this agent.
    ///
    /// # Errors
    /// When another agent has it.
    pub fn lock(&self) -> Result<AgentLock> {
        let directory = File::open(&self.root).with_context(|| format!("opening {}", self.root.display()))?;
        match directory.try_lock() {
            Ok(()) => Ok(AgentLock { _directory: directory }),
            Err(TryLockError::WouldBlock) => {
                bail!("another xlb agent serves {}: stop it first, or choose another --bpffs-dir", self.root.display())
            }
            Err(TryLockError::Error(error)) => Err(error).context(format!("locking {}", self.root.display())),
        }
    }

    /// Removes every pin, of any version: links are detached and maps freed once nobody holds them.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(&self) -> Result<()> {
        cgroup::detach_all_but(&BTreeSet::new(), self);
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing the pins below {}", self.root.display()))
            }
            _ => Ok(()),
        }
    }
}

fn is_bpffs(path: &Path) -> Result<bool> {
    let found = statfs(path).with_context(|| format!("asking for the file system of {}", path.display()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}
