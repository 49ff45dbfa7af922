//! Whether the maps fit into the node's memory at all: the kernel would take what it can get before it says no.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::maps::object::Sizes;

/// What the kernel adds to each entry of a hash map, about: a node and its bucket.
const OVERHEAD: u64 = 64;

const MIB: u64 = 1 << 20;

/// Refuses sizes for which the whole memory is too small.
///
/// # Errors
/// When it is, or when it cannot be told how much there is.
pub fn require(sizes: &Sizes) -> Result<()> {
    let text = fs::read_to_string("/proc/meminfo").context("reading how much memory the node has")?;
    check(sizes, total(&text).context("reading how much memory the node has: /proc/meminfo has no MemTotal")?)
}

/// The bytes that a node has.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

fn check(sizes: &Sizes, total: u64) -> Result<()> {
    let bytes =
        |map: &crate::maps::object::MapShape| u64::from(map.entries) * ((map.key + map.value) as u64 + OVERHEAD);
    let needed: u64 = sizes.maps().iter().map(bytes).sum();
    ensure!(
        needed < total,
        "the maps would need about {} MiB, and the node has {} MiB: a smaller max-flows (now {}), max-frontends (now {}), \
         max-slots (now {}) or max-fragments (now {}) takes less",
        needed / MIB,
        total / MIB,
        sizes.flows,
        sizes.frontends,
        sizes.slots,
        sizes.fragments
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_the_nodes_memory_are_refused() {
        let memory = total("MemTotal:        4194304 kB\nMemFree:  12 kB\n").unwrap();
        assert_eq!(memory, 4 << 30);
        assert!(check(&Sizes::default(), memory).is_ok());
        let error = check(&Sizes { flows: 1 << 30, ..Sizes::default() }, memory).unwrap_err().to_string();
        assert!(error.contains("the node has 4096 MiB") && error.contains("max-flows (now 1073741824)"), "{error}");
        assert_eq!(total("MemFree: 12 kB\n"), None);
    }
}
