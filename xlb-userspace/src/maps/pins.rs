//! Where maps, programs and links live when the agent does not: one directory on bpffs, by the version of the map ABI.
//!
//! `<bpffs-dir>/v1/maps/NAME`, `<bpffs-dir>/v1/links/PROGRAM-IFINDEX` or
//! `PROGRAM-CGROUP`, `<bpffs-dir>/v1/programs/prove`, `<bpffs-dir>/v1/watching/NAME`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use xlb_common::abi::ABI_VERSION;

use crate::maps::attach::FrontDoor;
use crate::maps::cgroup;

/// How often, and after which pause, an agent tries again: somebody may only have looked whether there is one.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Where bpffs is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";
/// Where pins are unless told otherwise.
pub const DEFAULT_DIRECTORY: &str = "/sys/fs/bpf/xlb";

/// The oldest version of the map ABI whose dataplane is carried over: what is behind a pin's name has not become something
/// else since, but where [`crate::maps::carry`] says so.
pub const OLDEST_CARRIED: u32 = ABI_VERSION - 1;

/// The pin directory of one dataplane, of one version of the map ABI.
#[derive(Clone, Debug)]
pub struct PinDirectory {
    root: PathBuf,
    version: u32,
}

/// Which dataplanes are in a pin directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// One of this xlb's version.
    pub own: bool,
    /// The version of an older one. Beside an own one: carrying it over has not been finished.
    pub older: Option<u32>,
}

impl Found {
    /// Whether nothing serves.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        !self.own && self.older.is_none()
    }
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
        Self { root: root.into(), version: ABI_VERSION }
    }

    /// The same with another version of the map ABI.
    #[must_use]
    pub fn of_version(&self, version: u32) -> Self {
        Self { root: self.root.clone(), version }
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

    /// Whether a dataplane of this version is there. What is attached serves, also where somebody took the pin of a map away.
    #[must_use]
    pub fn holds_dataplane(&self) -> bool {
        self.map("CONFIG").exists() || !self.pinned_links().is_empty()
    }

    fn version(&self) -> PathBuf {
        self.root.join(format!("v{}", self.version))
    }

    /// Makes the directory itself, mounting bpffs if that is what is missing.
    ///
    /// # Errors
    /// When there is no bpffs and none can be mounted.
    pub fn make_root(&self) -> Result<()> {
        self.require_bpffs()?;
        fs::create_dir_all(&self.root).with_context(|| format!("making the pin directory {}", self.root.display()))
    }

    /// Makes the directories of this version.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn make_version(&self) -> Result<()> {
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
                "mounting the BPF file system, where xlb pins its maps: run `mount -t bpf bpffs {BPFFS}` on the node, and give it to \
                 a container as a hostPath volume at {BPFFS}"
            )
        })
    }

    /// Which dataplanes are there.
    ///
    /// # Errors
    /// When there is one that this xlb cannot take over: it serves on.
    pub fn found(&self) -> Result<Found> {
        let others: Vec<u32> = self.versions().into_iter().filter(|&version| version != self.version).collect();
        let is_carried = |version: u32| (OLDEST_CARRIED..self.version).contains(&version);
        if let Some(version) = others.iter().find(|&&version| !is_carried(version)) {
            let why = if *version > self.version { "is newer than" } else { "is too old to be carried over to" };
            bail!(
                "{} holds a dataplane of map ABI v{version}, which {why} this xlb's v{}: it serves on; start an xlb of that \
                 version again, or remove it with `xlb cleanup --bpffs-dir {}` (its flows end)",
                self.root.display(),
                self.version,
                self.root.display()
            );
        }
        Ok(Found { own: self.holds_dataplane(), older: others.first().copied() })
    }

    /// The versions that have a directory.
    fn versions(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter_map(|name| name.strip_prefix('v')?.parse().ok()).collect()
    }

    /// Removes the pins of this version alone.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove_version(&self) -> Result<()> {
        remove_tree(&self.version())
    }

    /// The pinned links.
    #[must_use]
    pub fn pinned_links(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.links()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Which program meets the packets of each uplink first, by the uplink's index, as the pinned links tell: `ingress_tc-7`.
    #[must_use]
    pub fn doors(&self) -> BTreeMap<u32, FrontDoor> {
        let mut doors = BTreeMap::new();
        for link in self.pinned_links() {
            let file = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((door, ifindex)) = file
                .rsplit_once('-')
                .and_then(|(program, ifindex)| Some((FrontDoor::of_program(program)?, ifindex.parse::<u32>().ok()?)))
            else {
                continue;
            };
            // Behind native XDP there is tc, too.
            let known = doors.entry(ifindex).or_insert(door);
            if door != FrontDoor::Tc {
                *known = door;
            }
        }
        doors
    }

    /// Directory of what somebody who watches has put before XDP.
    #[must_use]
    pub fn watching(&self) -> PathBuf {
        self.version().join("watching")
    }

    /// The pinned programs.
    #[must_use]
    pub fn pinned_programs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.version().join("programs")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Takes the directory for this agent.
    ///
    /// # Errors
    /// When another agent has it.
    pub fn lock(&self) -> Result<AgentLock> {
        let directory = File::open(&self.root).with_context(|| format!("opening {}", self.root.display()))?;
        let mut locked = directory.try_lock();
        for _ in 0..LOOKS {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(LOOK_PAUSE);
            locked = directory.try_lock();
        }
        match locked {
            Ok(()) => Ok(AgentLock { _directory: directory }),
            Err(TryLockError::WouldBlock) => {
                bail!("another xlb agent serves {}: stop it first, or choose another --bpffs-dir", self.root.display())
            }
            Err(TryLockError::Error(error)) => Err(error).context(format!("locking {}", self.root.display())),
        }
    }

    /// Whether an agent has the directory now, in whatever container: process ids differ between them, the lock does not.
    #[must_use]
    pub fn has_agent(&self) -> bool {
        let looked = File::open(&self.root).map(|directory| directory.try_lock_shared());
        matches!(looked, Ok(Err(TryLockError::WouldBlock)))
    }

    /// Removes every pin, of any version: links are detached and maps freed once nobody holds them.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(&self) -> Result<()> {
        for version in self.versions() {
            cgroup::detach_all_but(&BTreeSet::new(), &self.of_version(version));
        }
        remove_tree(&self.root)
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the pins below {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whether a path is on a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> Result<bool> {
    let found = statfs(path).with_context(|| format!("asking for the file system of {}", path.display()))?;
    Ok(found.filesystem_type() == BPF_FS_MAGIC)
}
