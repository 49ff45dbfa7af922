//! What the agent leaves for the command line beside the maps: a small file, replaced after each round.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::agent::history::Counted;
use crate::agent::settings::Setting;
use crate::plan::desired::Refusal;

/// Directory of the reports, and of what else an agent leaves for the next one.
pub const DIRECTORY: &str = "/run/xlb";

/// The last word of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Its process.
    pub pid: u32,
    /// Whether another agent has begun since: this one is gone, and what follows is its last word.
    #[serde(default)]
    pub is_over: bool,
    /// Its version.
    pub version: String,
    /// Name of its node.
    pub node_name: String,
    /// The version whose programs are in the kernel: its own, or one before, where its own are refused.
    #[serde(default)]
    pub programs_version: Option<String>,
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
    /// What was counted about a minute ago.
    #[serde(default)]
    pub counted_before: Option<Counted>,
    /// Its settings, with where each comes from.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// The file that some of them come from.
    #[serde(default)]
    pub config_file: Option<String>,
}

impl Report {
    /// Replaces the report of the agent with this pin directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, bpffs_dir: &Path) -> Result<()> {
        let path = path(bpffs_dir);
        let new = path.with_extension("new");
        let hint = || {
            format!(
                "leaving {} for `xlb status`, which cannot tell of this agent without it: make {DIRECTORY} writable (in a \
                 container with a read-only root, mount a directory there)",
                path.display()
            )
        };
        fs::create_dir_all(DIRECTORY).with_context(hint)?;
        fs::write(&new, serde_json::to_vec_pretty(self)?).with_context(hint)?;
        fs::rename(&new, &path).with_context(hint)
    }

    /// The last report for this pin directory, if there is one.
    #[must_use]
    pub fn read(bpffs_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(bpffs_dir)).ok()?).ok()
    }

    /// Says of the last report that its agent is gone. Without a place for reports there is none.
    pub fn end_last(bpffs_dir: &Path) {
        if let Some(last) = Self::read(bpffs_dir) {
            // Who cannot write it says so with its own first report.
            let _ = Self { is_over: true, ..last }.write(bpffs_dir);
        }
    }

    /// Removes the report.
    pub fn remove(bpffs_dir: &Path) {
        // It may not exist.
        let _ = fs::remove_file(path(bpffs_dir));
    }
}

/// The version whose programs serve: this one, unless its own were refused; then that of the agent whose programs are kept,
/// if it left word.
#[must_use]
pub fn programs_version(bpffs_dir: &Path, are_kept: bool) -> Option<String> {
    if are_kept { Report::read(bpffs_dir)?.programs_version } else { Some(env!("CARGO_PKG_VERSION").into()) }
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
