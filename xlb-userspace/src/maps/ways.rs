//! What the programs know of uplinks, and of ways back that have moved: `UPLINKS` and `WAYS`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use xlb_common::abi::{UPLINKS_MAX, Uplink, Way, WayKey};

use crate::maps::live::LiveMaps;
use crate::maps::raw::Raw;
use crate::node;

impl LiveMaps {
    /// What the programs know of an uplink.
    #[must_use]
    pub fn uplink(&self, ifindex: u32) -> Option<Uplink> {
        let Raw(uplink) = self.uplinks.get(&(ifindex % UPLINKS_MAX), 0).ok()?;
        (uplink.ifindex == ifindex).then_some(uplink)
    }

    /// Tells the programs an uplink's MAC and addresses.
    ///
    /// # Errors
    /// When the kernel refuses, or two uplinks would share an entry.
    pub fn put_uplink(&mut self, uplink: &node::Uplink) -> Result<()> {
        let node::Uplink { ifindex, mac, .. } = *uplink;
        let index = ifindex % UPLINKS_MAX;
        let Raw(present) = self.uplinks.get(&index, 0)?;
        ensure!(
            present.ifindex == 0 || present.ifindex == ifindex || !interface_exists(present.ifindex),
            "two uplinks have the interface indexes {} and {ifindex}, which share an entry of the map: recreate one of them",
            present.ifindex
        );
        let address_v4 = uplink.address_v4.map(|address| address.octets()).unwrap_or_default();
        let address_v6 = uplink.address_v6.map(|address| address.octets()).unwrap_or_default();
        let flags = if present.ifindex == ifindex { present.flags } else { 0 };
        let entry = Uplink { ifindex, mac, flags, address_v4, address_v6, ..Uplink::default() };
        Ok(self.uplinks.set(index, Raw(entry), 0)?)
    }

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

fn interface_exists(ifindex: u32) -> bool {
    nix::net::if_::if_indextoname(ifindex).is_ok()
}
