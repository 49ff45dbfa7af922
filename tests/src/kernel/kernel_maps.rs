//! The loaded object's maps, written from and compared with [`MemoryTables`]. Keys and values cross as plain bytes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::{Ebpf, Pod};
use bytemuck::cast as bytes;
use xlb_common::Reason;
use xlb_common::abi::{Config, FlowEntry, FlowKeyV4, UPLINKS_MAX, Uplink};
use xlb_common::memory::MemoryTables;
use xlb_common::tables::FlowTable;

type FlowMap = HashMap<MapData, [u8; 12], [u8; 52]>;

/// The flow maps, in the order of [`FlowTable`].
pub const FLOW_MAPS: [(FlowTable, &str); 4] = [
    (FlowTable::Tcp, "FLOWS_V4"),
    (FlowTable::TcpPending, "PENDING_V4"),
    (FlowTable::Udp, "UDP_FLOWS_V4"),
    (FlowTable::UdpPending, "UDP_PENDING_V4"),
];

/// Flows by table and key, as [`MemoryTables`] keeps them.
pub type Flows = BTreeMap<(u8, FlowKeyV4), FlowEntry>;

/// The maps that programs write, held open.
pub struct KernelMaps {
    flows: [FlowMap; 4],
    reasons: PerCpuArray<MapData, u64>,
}

impl KernelMaps {
    /// Takes the maps out of the object.
    pub fn take(object: &mut Ebpf) -> Result<Self> {
        let mut flow_map = |name: &str| -> Result<FlowMap> { taken(object, name, HashMap::try_from) };
        let flows = [
            flow_map(FLOW_MAPS[0].1)?,
            flow_map(FLOW_MAPS[1].1)?,
            flow_map(FLOW_MAPS[2].1)?,
            flow_map(FLOW_MAPS[3].1)?,
        ];
        Ok(Self { flows, reasons: taken(object, "REASONS", PerCpuArray::try_from)? })
    }

    /// A flow's entry.
    pub fn flow(&self, table: u8, key: &FlowKeyV4) -> Option<FlowEntry> {
        self.flows[usize::from(table)].get(&bytes(*key), 0).ok().map(bytes)
    }

    /// Writes a flow's entry.
    pub fn remember(&mut self, table: u8, key: &FlowKeyV4, entry: &FlowEntry) -> Result<()> {
        let map = &mut self.flows[usize::from(table)];
        map.insert(bytes::<_, [u8; 12]>(*key), bytes::<_, [u8; 52]>(*entry), 0).context("writing a flow")
    }

    /// All flows.
    pub fn flows(&self) -> Result<Flows> {
        let mut flows = Flows::new();
        for (table, map) in self.flows.iter().enumerate() {
            for pair in map.iter() {
                let (key, entry) = pair.context("reading the flow maps")?;
                flows.insert((table as u8, bytes(key)), bytes(entry));
            }
        }
        Ok(flows)
    }

    /// Replaces all flows.
    pub fn set_flows(&mut self, flows: &Flows) -> Result<()> {
        for (table, key) in self.flows()?.into_keys() {
            self.flows[usize::from(table)].remove(&bytes(key)).context("forgetting a flow")?;
        }
        flows.iter().try_for_each(|((table, key), entry)| self.remember(*table, key, entry))
    }

    /// Each counter, summed over the CPUs, in the order of their numbers.
    pub fn counts(&self) -> Result<Vec<u64>> {
        let sum = |index: usize| -> Result<u64> {
            Ok(self.reasons.get(&(index as u32), 0).context("reading a counter")?.iter().sum())
        };
        (0..Reason::COUNT).map(sum).collect()
    }
}

/// Writes everything that the agent would write.
pub fn fill(object: &mut Ebpf, tables: &MemoryTables, config: Config) -> Result<()> {
    fill_hash::<_, _, [u8; 8], [u8; 32]>(object, "FRONTENDS_V4", &tables.frontends)?;
    fill_hash::<_, _, [u8; 8], [u8; 4]>(object, "BACKEND_IDS_V4", &tables.backend_ids)?;
    fill_array::<_, u64>(object, "SLOTS", tables.slots.iter())?;
    fill_array::<_, [u8; 8]>(object, "MEMBERS", tables.members.iter())?;
    fill_array::<_, [u8; 64]>(object, "BACKENDS", tables.backends.iter())?;
    let uplinks: BTreeMap<u32, Uplink> = tables
        .uplinks
        .iter()
        .map(|(&ifindex, &mac)| (ifindex % UPLINKS_MAX, Uplink { ifindex, mac, ..Uplink::default() }))
        .collect();
    fill_array::<_, [u8; 32]>(object, "UPLINKS", uplinks.iter())?;
    fill_array::<_, [u8; 16]>(object, "CONFIG", [(&0, &config)].into_iter())
}

fn fill_hash<K, V, KeyBytes, ValueBytes>(object: &mut Ebpf, name: &str, entries: &BTreeMap<K, V>) -> Result<()>
where
    K: bytemuck::Pod,
    V: bytemuck::Pod,
    KeyBytes: Pod + bytemuck::Pod,
    ValueBytes: Pod + bytemuck::Pod,
{
    let map = object.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    let mut map = HashMap::<_, KeyBytes, ValueBytes>::try_from(map).with_context(|| format!("opening {name}"))?;
    for (&key, &value) in entries {
        map.insert(bytemuck::cast::<K, KeyBytes>(key), bytemuck::cast::<V, ValueBytes>(value), 0)
            .with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

fn fill_array<'a, V, ValueBytes>(
    object: &mut Ebpf,
    name: &str,
    entries: impl Iterator<Item = (&'a u32, &'a V)>,
) -> Result<()>
where
    V: bytemuck::Pod,
    ValueBytes: Pod + bytemuck::Pod,
{
    let map = object.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    let mut map = Array::<_, ValueBytes>::try_from(map).with_context(|| format!("opening {name}"))?;
    for (&index, &value) in entries {
        map.set(index, bytemuck::cast::<V, ValueBytes>(value), 0).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

fn taken<M>(
    object: &mut Ebpf,
    name: &str,
    open: impl FnOnce(aya::maps::Map) -> Result<M, aya::maps::MapError>,
) -> Result<M> {
    let map = object.take_map(name).with_context(|| format!("the object has no map {name}"))?;
    open(map).with_context(|| format!("opening {name}"))
}
