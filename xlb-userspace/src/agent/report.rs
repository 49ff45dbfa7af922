//! What the agent leaves for the command line beside the maps: a small file, replaced after each round.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::plan::desired::Refusal;

/// Directory of the reports, and of what else an agent leaves for the next one.
pub const DIRECTORY: &str = "/run/xlb";

/// The last word of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Name of its node.
    pub node_name: String,
    /// The uplinks with their front doors, for example `eth0 (veth): tc`.
    pub uplinks: Vec<String>,
    /// Services with numbers of their own: those whose ids are below it; zero: none is counted.
    #[serde(default)]
    pub counted_services: u32,
    /// When the maps were last equal to what is asked for, in seconds since 1970.
    pub in_sync_at_s: u64,
    /// What is asked for and not done.
    pub refusals: Vec<Refusal>,
    /// What is done later.
    pub waiting: Vec<Refusal>,
}

impl Report {
    /// Replaces the report of the agent with this pin directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, bpffs_dir: &Path) -> Result<()> {
        let path = path(bpffs_dir);
        let new = path.with_extension("new");
        fs::create_dir_all(DIRECTORY).with_context(|| format!("making {DIRECTORY}"))?;
        fs::write(&new, serde_json::to_vec_pretty(self)?).with_context(|| format!("writing {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("writing {}", path.display()))
    }

    /// The last report for this pin directory, if there is one.
    #[must_use]
    pub fn read(bpffs_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(bpffs_dir)).ok()?).ok()
    }

    /// Removes the report.
    pub fn remove(bpffs_dir: &Path) {
        // It may not exist.
        let _ = fs::remove_file(path(bpffs_dir));
    }

    /// Whether the agent that wrote it still runs.
    #[must_use]
    pub fn is_of_running_agent(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/comm", self.pid)).is_ok_and(|name| name.trim() == "xlb")
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn path(bpffs_dir: &Path) -> PathBuf {
    let name: String = bpffs_dir.to_string_lossy().trim_matches('/').replace('/', "-");
    Path::new(DIRECTORY).join(format!("{name}.json"))
}
