//! What the programs know of ways back that have moved: `WAYS`, and the flags of uplinks.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use xlb_common::abi::{UPLINKS_MAX, Way, WayKey};

use crate::maps::live::{LiveMaps, interface_exists};
use crate::maps::raw::Raw;

impl LiveMaps {
    /// The ways that have moved.
    #[must_use]
    pub fn ways(&self) -> BTreeMap<WayKey, Way> {
        self.ways.iter().flatten().map(|(Raw(key), Raw(way))| (key, way)).collect()
    }

    /// Indexes of uplinks that are known here, and are no interfaces any more.
    #[must_use]
    pub fn gone_uplinks(&self) -> Vec<u32> {
        let listed = (0..UPLINKS_MAX).filter_map(|index| Some(self.uplinks.get(&index, 0).ok()?.0.ifindex));
        let told = self.ways().into_keys().map(|key| key.ifindex);
        listed.chain(told).filter(|&ifindex| ifindex != 0 && !interface_exists(ifindex)).collect()
    }

    /// Makes ways and flags equal to these. A way is there before a flag leads to it, and goes after it.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn put_ways(&mut self, ways: &BTreeMap<WayKey, Way>, flags: &BTreeMap<u32, u16>) -> Result<()> {
        let present = self.ways();
        for (key, way) in ways.iter().filter(|(key, way)| present.get(key) != Some(way)) {
            self.ways.insert(Raw(*key), Raw(*way), 0).context("writing to WAYS")?;
        }
        for (&ifindex, &flags) in flags {
            let index = ifindex % UPLINKS_MAX;
            let Raw(mut uplink) = self.uplinks.get(&index, 0).context("reading UPLINKS")?;
            // Another uplink may have the entry of one that is gone: such a one needs no flag.
            if uplink.ifindex == ifindex && uplink.flags != flags {
                uplink.flags = flags;
                self.uplinks.set(index, Raw(uplink), 0).context("writing to UPLINKS")?;
            }
        }
        for key in present.keys().filter(|key| !ways.contains_key(key)) {
            self.ways.remove(&Raw(*key)).context("removing from WAYS")?;
        }
        Ok(())
    }
}
