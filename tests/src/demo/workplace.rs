//! The directory that holds all files of one demo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};

const DIRECTORY: &str = "/run/xlb-demo";
/// The file that says that the demo's end was not the end of its directory. It holds the agent's process id.
const KEPT: &str = "kept";

/// A directory, removed when dropped.
pub struct Workplace {
    path: PathBuf,
}

impl Workplace {
    /// Sweeps what killed demos left, then makes a directory; temporary files of this process go there from now on.
    pub fn new() -> Result<Workplace> {
        for path in all() {
            if !path.join(KEPT).exists() && !is_in_use(&path) {
                remove(&path);
            }
        }
        let path = Path::new(DIRECTORY).join(process::id().to_string());
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        let place = Workplace { path };
        // An earlier choice in this process stays: temporary files are then elsewhere, and no less removed.
        let _ = tempfile::env::override_temp_dir(&place.path);
        Ok(place)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory, until [`remove_kept`].
    pub fn keep(self, agent: u32) -> Result<()> {
        let file = self.path.join(KEPT);
        fs::write(&file, agent.to_string()).with_context(|| format!("writing {}", file.display()))?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// The process ids of the agents of kept demos.
pub fn kept_agents() -> Vec<i32> {
    let files = all().into_iter().map(|path| path.join(KEPT));
    files.filter_map(|file| fs::read_to_string(file).ok()?.parse().ok()).collect()
}

/// Removes the directories of kept demos, and says how many there were.
pub fn remove_kept() -> usize {
    let kept: Vec<PathBuf> = all().into_iter().filter(|path| path.join(KEPT).exists()).collect();
    kept.iter().for_each(|path| remove(path));
    kept.len()
}

fn all() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// A directory bears the number of its process.
fn is_in_use(path: &Path) -> bool {
    path.file_name().is_some_and(|process| Path::new("/proc").join(process).exists())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        eprintln!("demo: removing {}: {error}", path.display());
    }
}
