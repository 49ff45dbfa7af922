//! What is known of fragments, in the kernel's maps and in memory.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use bytemuck::cast;
use xlb_common::abi::{FragmentEntry, FragmentKeyV4, FragmentKeyV6};
use xlb_common::memory::MemoryTables;

/// Records by key, whichever family's, without their times: two clocks never agree.
pub type Records = BTreeMap<String, FragmentEntry>;

/// `FRAGMENTS_V4` and `FRAGMENTS_V6`, held open.
pub struct FragmentMaps {
    v4: HashMap<MapData, [u8; 12], [u8; 32]>,
    v6: HashMap<MapData, [u8; 36], [u8; 32]>,
}

impl FragmentMaps {
    /// Takes the maps out of the object.
    pub fn take(object: &mut Ebpf) -> Result<Self> {
        let v4 = object.take_map("FRAGMENTS_V4").context("the object has no map FRAGMENTS_V4")?;
        let v6 = object.take_map("FRAGMENTS_V6").context("the object has no map FRAGMENTS_V6")?;
        Ok(Self {
            v4: v4.try_into().context("opening FRAGMENTS_V4")?,
            v6: v6.try_into().context("opening FRAGMENTS_V6")?,
        })
    }

    /// All records.
    pub fn records(&self) -> Result<Records> {
        let mut records = Records::new();
        for record in self.v4.iter() {
            let (key, entry) = record.context("reading FRAGMENTS_V4")?;
            records.insert(named(&cast::<_, FragmentKeyV4>(key)), timeless(cast(entry)));
        }
        for record in self.v6.iter() {
            let (key, entry) = record.context("reading FRAGMENTS_V6")?;
            records.insert(named(&cast::<_, FragmentKeyV6>(key)), timeless(cast(entry)));
        }
        Ok(records)
    }

    /// Nothing is known any more.
    pub fn forget(&mut self) -> Result<()> {
        for key in self.v4.keys().collect::<Result<Vec<_>, _>>().context("reading FRAGMENTS_V4")? {
            self.v4.remove(&key).context("forgetting a datagram")?;
        }
        for key in self.v6.keys().collect::<Result<Vec<_>, _>>().context("reading FRAGMENTS_V6")? {
            self.v6.remove(&key).context("forgetting a datagram")?;
        }
        Ok(())
    }

    /// Makes what is known older.
    pub fn age(&mut self, by_ns: u64) -> Result<()> {
        let older = |entry: [u8; 32]| {
            let entry: FragmentEntry = cast(entry);
            cast::<_, [u8; 32]>(FragmentEntry { begun_ns: entry.begun_ns.saturating_sub(by_ns), ..entry })
        };
        for pair in self.v4.iter().collect::<Result<Vec<_>, _>>().context("reading FRAGMENTS_V4")? {
            self.v4.insert(pair.0, older(pair.1), 0).context("writing FRAGMENTS_V4")?;
        }
        for pair in self.v6.iter().collect::<Result<Vec<_>, _>>().context("reading FRAGMENTS_V6")? {
            self.v6.insert(pair.0, older(pair.1), 0).context("writing FRAGMENTS_V6")?;
        }
        Ok(())
    }
}

/// The records that the tables have.
#[must_use]
pub fn records_of(tables: &MemoryTables) -> Records {
    let (v4, v6) = (tables.v4.fragments.borrow(), tables.v6.fragments.borrow());
    let v4 = v4.iter().map(|(key, entry)| (named(key), timeless(*entry)));
    v4.chain(v6.iter().map(|(key, entry)| (named(key), timeless(*entry)))).collect()
}

fn named(key: &impl std::fmt::Debug) -> String {
    format!("{key:?}")
}

fn timeless(entry: FragmentEntry) -> FragmentEntry {
    FragmentEntry { begun_ns: 0, ..entry }
}
