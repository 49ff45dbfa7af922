//! Which programs are attached.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, PinnedLink};
use xlb_userspace::maps::pins::PinDirectory;

/// Each link below this pin directory, by its name, with the id of the program that is in it.
pub fn programs_of_links(root: &Path) -> Result<BTreeMap<String, u32>> {
    let links = PinDirectory::new(root).links();
    let entries = std::fs::read_dir(&links).with_context(|| format!("listing {}", links.display()))?;
    entries
        .map(|entry| {
            let path = entry?.path();
            let link = FdLink::from(PinnedLink::from_pin(&path)?);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, link.info()?.program_id()))
        })
        .collect()
}
