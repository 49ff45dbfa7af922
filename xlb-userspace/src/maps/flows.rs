//! A flow map as the sweep uses it: read in parts, and an entry removed only as long as it is the one that was read.

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use bytemuck::{bytes_of, pod_read_unaligned};
use xlb_common::abi::FlowEntry;
use xlb_common::tables::FlowTable;

use crate::maps::batch::{Page, Shape, take};
use crate::maps::keys::Keys;
use crate::maps::pins::PinDirectory;
use crate::maps::raw::Raw;

/// Entries that are read at once: about a millisecond's work.
pub const PART_ENTRIES: u32 = 4096;
/// `BPF_NOEXIST`: only where there is no entry.
const NO_EXIST: u64 = 1;

/// One flow map of one IP version.
pub struct FlowMap<K: Keys> {
    /// Its name.
    pub name: &'static str,
    map: HashMap<MapData, Raw<K::FlowKey>, Raw<FlowEntry>>,
    /// The same map, for the calls that aya has none for.
    data: MapData,
    shape: Shape,
    page: Page,
}

/// A part of a map.
pub struct Part<Key> {
    /// The flows.
    pub flows: Vec<(Key, FlowEntry)>,
    /// The bucket at which the next part begins; none: that was the last.
    pub next: Option<u32>,
}

/// Name of a flow map.
#[must_use]
pub fn name_of<K: Keys>(table: FlowTable) -> &'static str {
    let [v4, v6] = match table {
        FlowTable::Tcp => ["FLOWS_V4", "FLOWS_V6"],
        FlowTable::TcpPending => ["PENDING_V4", "PENDING_V6"],
        FlowTable::Udp => ["UDP_FLOWS_V4", "UDP_FLOWS_V6"],
        FlowTable::UdpPending => ["UDP_PENDING_V4", "UDP_PENDING_V6"],
        FlowTable::Sctp => ["SCTP_FLOWS_V4", "SCTP_FLOWS_V6"],
        FlowTable::SctpPending => ["SCTP_PENDING_V4", "SCTP_PENDING_V6"],
    };
    if K::SUFFIX == "V4" { v4 } else { v6 }
}

impl<K: Keys> FlowMap<K> {
    /// Opens a pinned one.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pins: &PinDirectory, table: FlowTable) -> Result<Self> {
        let name = name_of::<K>(table);
        let open = || MapData::from_pin(pins.map(name)).with_context(|| format!("opening the pinned map {name}"));
        Self::new(name, open()?, open()?)
    }

    /// A map by two handles to it.
    ///
    /// # Errors
    /// When it is no flow map.
    pub fn new(name: &'static str, map: MapData, data: MapData) -> Result<Self> {
        let info = data.info().with_context(|| format!("reading the size of {name}"))?;
        let shape = Shape::of(&info)?;
        let map = Map::LruHashMap(map).try_into().with_context(|| format!("{name} is no flow map"))?;
        Ok(Self { name, map, data, shape, page: Page::new(shape, PART_ENTRIES) })
    }

    /// A part of what it holds, from this bucket on.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn read(&mut self, from: Option<u32>) -> Result<Part<K::FlowKey>> {
        let page = &mut self.page;
        page.begin_at(from);
        page.read(&self.data).with_context(|| format!("reading {}", self.name))?;
        let flows = page.iter().map(|(key, entry)| (pod_read_unaligned(key), pod_read_unaligned(entry))).collect();
        Ok(Part { flows, next: (!page.is_last()).then(|| page.next_bucket()) })
    }

    /// A flow's entry.
    #[must_use]
    pub fn get(&self, key: &K::FlowKey) -> Option<FlowEntry> {
        self.map.get(&Raw(*key), 0).ok().map(|Raw(entry)| entry)
    }

    /// Removes an entry if it is still this one. Whether it was.
    ///
    /// The kernel has no such call. The entry is compared, taken out, and put back if it was changed in between, unless
    /// there is a newer one then. For that moment a packet may miss it: as little as if it came that much later.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove_if(&mut self, key: &K::FlowKey, known: &FlowEntry) -> Result<bool> {
        if self.get(key).as_ref() != Some(known) {
            return Ok(false);
        }
        let taken: Option<FlowEntry> =
            take(&self.data, self.shape, bytes_of(key)).with_context(|| format!("removing from {}", self.name))?;
        let Some(changed) = taken.filter(|taken| taken != known) else { return Ok(taken.is_some()) };
        // Refused, if a program has written another one.
        let _ = self.map.insert(Raw(*key), Raw(changed), NO_EXIST);
        Ok(false)
    }
}
