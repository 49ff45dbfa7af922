//! What a process holds of BPF, as its descriptors tell (`/proc/PID/fdinfo`).

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;

use super::maps::PinnedMap;

/// Its maps and programs by the kernel's numbers, each with the memory that the kernel says it takes.
#[derive(Debug, Default, PartialEq)]
pub struct Held {
    maps: BTreeMap<u32, u64>,
    programs: BTreeMap<u32, u64>,
}

impl Held {
    /// What this process holds now.
    pub fn by(process: u32) -> Result<Held> {
        let path = format!("/proc/{process}/fdinfo");
        let mut held = Held::default();
        for entry in fs::read_dir(&path).with_context(|| format!("reading {path}"))?.flatten() {
            // A descriptor that is closed meanwhile has no file any more.
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            held.add(&text).with_context(|| format!("reading {}", entry.path().display()))?;
        }
        ensure!(!held.programs.is_empty(), "the process {process} holds no program");
        Ok(held)
    }

    /// How many programs.
    pub fn programs(&self) -> usize {
        self.programs.len()
    }

    /// What the programs take beside their machine code.
    pub fn bytes_of_programs(&self) -> u64 {
        self.programs.values().sum()
    }

    /// The programs' machine code.
    pub fn machine_code(&self) -> Result<u64> {
        // Others' programs may come and go meanwhile.
        let own = loaded_programs().flatten().filter(|program| self.programs.contains_key(&program.id()));
        let sizes: Vec<u64> = own.map(|program| program.size_jitted().into()).collect();
        ensure!(sizes.len() == self.programs.len(), "the kernel tells of {} programs", sizes.len());
        Ok(sizes.into_iter().sum())
    }

    /// What maps take that are none of these.
    pub fn bytes_of_other_maps(&self, pinned: &[PinnedMap]) -> u64 {
        let others = self.maps.iter().filter(|(id, _)| !pinned.iter().any(|map| map.id == **id));
        others.map(|(_, bytes)| bytes).sum()
    }

    fn add(&mut self, fdinfo: &str) -> Result<()> {
        let id = |name: &str| value(fdinfo, name).and_then(|text| text.parse().ok());
        if let Some(id) = id("map_id") {
            self.maps.insert(id, memlock(fdinfo)?);
        } else if let Some(id) = id("prog_id").filter(|_| value(fdinfo, "prog_type").is_some()) {
            self.programs.insert(id, memlock(fdinfo)?);
        }
        Ok(())
    }
}

/// Bytes that a map or a program takes, by the description of its descriptor.
pub fn memlock(fdinfo: &str) -> Result<u64> {
    value(fdinfo, "memlock").context("no memlock in it")?.parse().context("reading memlock")
}

fn value<'a>(fdinfo: &'a str, name: &str) -> Option<&'a str> {
    fdinfo.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_programs_count_once_and_links_do_not() {
        let map = "pos:\t0\nmap_type:\t2\nmemlock:\t8192\nmap_id:\t7\nfrozen:\t0\n";
        let program = "pos:\t0\nprog_type:\t3\nprog_jited:\t1\nmemlock:\t4096\nprog_id:\t9\n";
        let link = "pos:\t0\nlink_type:\ttcx\nlink_id:\t1\nprog_tag:\taa\nprog_id:\t10\nifindex:\t2\n";
        let file = "pos:\t0\nflags:\t02\n";
        let mut held = Held::default();
        [map, map, program, link, file].into_iter().try_for_each(|text| held.add(text)).unwrap();
        assert_eq!(held, Held { maps: [(7, 8192)].into(), programs: [(9, 4096)].into() });
    }
}
