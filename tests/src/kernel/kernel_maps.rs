//! The loaded object's maps, written from and compared with [`MemoryTables`]. Keys and values cross as plain bytes.

use std::borrow::BorrowMut;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::{Ebpf, Pod};
use bytemuck::cast as bytes;
use xlb_common::abi::{
    AffinityEntry, Config, FlowEntry, ServiceStats, Settings, SourceKeyV4, SourceKeyV6, UPLINKS_MAX, Uplink,
    uplink_flags,
};
use xlb_common::budget::Spending;
use xlb_common::hot::{HOLD_NS, HalfOpen};
use xlb_common::memory::MemoryTables;
use xlb_common::tables::now_of;
use xlb_common::{Family as _, Reason, V4, V6};
use xlb_userspace::maps::kernel::now_ns;

use super::flows::{FlowKey, Flows};
use super::fragment_maps::FragmentMaps;
use super::frontend_maps;

/// Bytes of a flow's entry.
const FLOW_ENTRY: usize = size_of::<FlowEntry>();

type FlowMap<const KEY: usize> = HashMap<MapData, [u8; KEY], [u8; FLOW_ENTRY]>;

/// The IPv4 flow maps, in the order of `FlowTable`.
pub const FLOW_MAPS_V4: [&str; 6] =
    ["FLOWS_V4", "PENDING_V4", "UDP_FLOWS_V4", "UDP_PENDING_V4", "SCTP_FLOWS_V4", "SCTP_PENDING_V4"];
/// The IPv6 flow maps, in the order of `FlowTable`.
pub const FLOW_MAPS_V6: [&str; 6] =
    ["FLOWS_V6", "PENDING_V6", "UDP_FLOWS_V6", "UDP_PENDING_V6", "SCTP_FLOWS_V6", "SCTP_PENDING_V6"];

/// The maps that programs write, held open.
pub struct KernelMaps {
    flows_v4: Vec<FlowMap<12>>,
    flows_v6: Vec<FlowMap<36>>,
    reasons: PerCpuArray<MapData, u64>,
    budgets: PerCpuArray<MapData, u64>,
    half_open: Array<MapData, [u8; 32]>,
    pins_v4: HashMap<MapData, [u8; 12], [u8; 8]>,
    pins_v6: HashMap<MapData, [u8; 36], [u8; 8]>,
    service_stats: PerCpuArray<MapData, [u8; 56]>,
    affinity_v4: HashMap<MapData, [u8; 8], [u8; 16]>,
    affinity_v6: HashMap<MapData, [u8; 20], [u8; 16]>,
    /// What is known of fragments.
    pub fragments: FragmentMaps,
}

/// Where clients' last connections to a service went: service and client to backend and its generation.
pub type Affinity = BTreeMap<(u32, [u8; 16]), (u32, u32)>;

/// The records that the tables have.
#[must_use]
pub fn affinity_of(tables: &MemoryTables) -> Affinity {
    let (v4, v6) = (tables.v4.affinity.borrow(), tables.v6.affinity.borrow());
    let of_v4 = v4.iter().map(|(key, entry)| ((key.service, V4::to_stored(key.client)), entry));
    let of_v6 = v6.iter().map(|(key, entry)| ((key.service, key.client), entry));
    of_v4.chain(of_v6).map(|(key, entry)| (key, (entry.backend, entry.generation))).collect()
}

impl KernelMaps {
    /// Takes the maps out of the object.
    pub fn take(object: &mut Ebpf) -> Result<Self> {
        Ok(Self {
            flows_v4: FLOW_MAPS_V4.iter().map(|name| taken(object, name, HashMap::try_from)).collect::<Result<_>>()?,
            flows_v6: FLOW_MAPS_V6.iter().map(|name| taken(object, name, HashMap::try_from)).collect::<Result<_>>()?,
            reasons: taken(object, "REASONS", PerCpuArray::try_from)?,
            budgets: taken(object, "BUDGETS", PerCpuArray::try_from)?,
            service_stats: taken(object, "SERVICE_STATS", PerCpuArray::try_from)?,
            half_open: taken(object, "HALF_OPEN", Array::try_from)?,
            pins_v4: taken(object, "PINS_V4", HashMap::try_from)?,
            pins_v6: taken(object, "PINS_V6", HashMap::try_from)?,
            affinity_v4: taken(object, "AFFINITY_V4", HashMap::try_from)?,
            affinity_v6: taken(object, "AFFINITY_V6", HashMap::try_from)?,
            fragments: FragmentMaps::take(object)?,
        })
    }

    /// A flow's entry.
    pub fn flow(&self, table: u8, key: &FlowKey) -> Option<FlowEntry> {
        let table = usize::from(table);
        let entry = match key {
            FlowKey::V4(key) => self.flows_v4[table].get(&bytes(*key), 0),
            FlowKey::V6(key) => self.flows_v6[table].get(&bytes(*key), 0),
        };
        entry.ok().map(bytes)
    }

    /// Writes a flow's entry. What it says of a clock that begins with zero now becomes what the kernel's clock says.
    pub fn remember(&mut self, table: u8, key: &FlowKey, entry: &FlowEntry) -> Result<()> {
        let entry = FlowEntry { last_seen: entry.last_seen.wrapping_add(now_of(now_ns()?)), ..*entry };
        let (table, entry) = (usize::from(table), bytes::<_, [u8; FLOW_ENTRY]>(entry));
        match key {
            FlowKey::V4(key) => self.flows_v4[table].insert(bytes::<_, [u8; 12]>(*key), entry, 0),
            FlowKey::V6(key) => self.flows_v6[table].insert(bytes::<_, [u8; 36]>(*key), entry, 0),
        }
        .context("writing a flow")
    }

    /// All flows.
    pub fn flows(&self) -> Result<Flows> {
        let mut flows = Flows::new();
        read(&self.flows_v4, |key| FlowKey::V4(bytes(key)), &mut flows)?;
        read(&self.flows_v6, |key| FlowKey::V6(bytes(key)), &mut flows)?;
        Ok(flows)
    }

    /// Replaces all flows. Nothing is known of fragments then, nor where owners were found.
    pub fn set_flows(&mut self, flows: &Flows) -> Result<()> {
        self.fragments.forget()?;
        self.forget_pins()?;
        for (table, key) in self.flows()?.into_keys() {
            let table = usize::from(table);
            match key {
                FlowKey::V4(key) => self.flows_v4[table].remove(&bytes(key)),
                FlowKey::V6(key) => self.flows_v6[table].remove(&bytes(key)),
            }
            .context("forgetting a flow")?;
        }
        flows.iter().try_for_each(|((table, key), entry)| self.remember(*table, key, entry))
    }

    fn forget_pins(&mut self) -> Result<()> {
        let keys: Vec<_> = self.pins_v4.keys().collect::<Result<_, _>>()?;
        keys.iter().try_for_each(|key| self.pins_v4.remove(key))?;
        let keys: Vec<_> = self.pins_v6.keys().collect::<Result<_, _>>()?;
        Ok(keys.iter().try_for_each(|key| self.pins_v6.remove(key))?)
    }

    /// Where clients' last connections went.
    pub fn affinity(&self) -> Result<Affinity> {
        let backend = |entry| {
            let AffinityEntry { backend, generation, .. } = bytes(entry);
            (backend, generation)
        };
        let mut records = Affinity::new();
        for record in self.affinity_v4.iter() {
            let (key, entry): ([u8; 8], [u8; 16]) = record.context("reading AFFINITY_V4")?;
            let SourceKeyV4 { service, client } = bytes(key);
            records.insert((service, V4::to_stored(client)), backend(entry));
        }
        for record in self.affinity_v6.iter() {
            let (key, entry): ([u8; 20], [u8; 16]) = record.context("reading AFFINITY_V6")?;
            let SourceKeyV6 { service, client } = bytes(key);
            records.insert((service, client), backend(entry));
        }
        Ok(records)
    }

    /// Replaces all records of affinity by those of the tables.
    pub fn set_affinity(&mut self, tables: &MemoryTables) -> Result<()> {
        refill(&mut self.affinity_v4, &tables.v4.affinity.borrow())?;
        refill(&mut self.affinity_v6, &tables.v6.affinity.borrow())
    }

    /// Lets every CPU send answers as after a silence.
    pub fn refill_answers(&mut self) -> Result<()> {
        let full = vec![0; aya::util::nr_cpus().map_err(|(_, error)| error)?];
        (0..Spending::COUNT as u32).try_for_each(|index| {
            let full = PerCpuValues::try_from(full.clone())?;
            self.budgets.set(index, full, 0).context("refilling the budgets of answers")
        })
    }

    /// Writes how many handshakes began in a window that does not end soon.
    pub fn set_half_open(&mut self, begun: u64) -> Result<()> {
        let half_open = HalfOpen { window_ns: now_ns()? + HOLD_NS, begun, ..HalfOpen::default() };
        self.half_open.set(0, bytes::<_, [u8; 32]>(half_open), 0).context("writing HALF_OPEN")
    }

    /// What was counted of a service.
    pub fn service_stats(&self, index: u16) -> Result<ServiceStats> {
        let of_cpus = self.service_stats.get(&index.into(), 0).context("reading the numbers of a service")?;
        Ok(of_cpus.iter().fold(ServiceStats::default(), |sum, &of_cpu| sum.plus(bytes(of_cpu))))
    }

    /// Writes the numbers of a service, on every CPU.
    pub fn set_service_stats(&mut self, index: u16, numbers: ServiceStats) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let of_cpus = PerCpuValues::try_from(vec![bytes::<_, [u8; 56]>(numbers); cpus])?;
        self.service_stats.set(index.into(), of_cpus, 0).context("writing the numbers of a service")
    }

    /// Each counter, summed over the CPUs, in the order of their numbers.
    pub fn counts(&self) -> Result<Vec<u64>> {
        let sum = |index: usize| -> Result<u64> {
            Ok(self.reasons.get(&(index as u32), 0).context("reading a counter")?.iter().sum())
        };
        (0..Reason::COUNT).map(sum).collect()
    }
}

/// The flows of a family's maps.
fn read<const KEY: usize>(
    maps: &[FlowMap<KEY>],
    key_of: impl Fn([u8; KEY]) -> FlowKey,
    flows: &mut Flows,
) -> Result<()> {
    for (table, map) in maps.iter().enumerate() {
        for pair in map.iter() {
            let (key, entry) = pair.context("reading the flow maps")?;
            flows.insert((table as u8, key_of(key)), bytes(entry));
        }
    }
    Ok(())
}

/// Writes everything that the agent would write.
pub fn fill(object: &mut Ebpf, tables: &MemoryTables, config: Config) -> Result<()> {
    replace(object, &MemoryTables::default(), tables, config)
}

/// Brings everything that the agent would write from one state to another.
pub fn replace(object: &mut Ebpf, before: &MemoryTables, after: &MemoryTables, config: Config) -> Result<()> {
    let (v4, v6) = ((&before.v4, &after.v4), (&before.v6, &after.v6));
    frontend_maps::replace(object, &v4.0.frontends, &v4.1.frontends)?;
    frontend_maps::replace(object, &v6.0.frontends, &v6.1.frontends)?;
    replace_hash::<_, _, [u8; 8], [u8; 4]>(object, "BACKEND_IDS_V4", &v4.0.backend_ids, &v4.1.backend_ids)?;
    replace_hash::<_, _, [u8; 8], [u8; 32]>(object, "SOLE_FRONTENDS_V4", &v4.0.sole_frontends, &v4.1.sole_frontends)?;
    replace_hash::<_, _, [u8; 20], [u8; 32]>(object, "SOLE_FRONTENDS_V6", &v6.0.sole_frontends, &v6.1.sole_frontends)?;
    replace_hash::<_, _, [u8; 4], [u8; 4]>(object, "VIPS_V4", &vips_v4(before), &vips_v4(after))?;
    replace_hash::<_, _, [u8; 16], [u8; 4]>(object, "VIPS_V6", &v6.0.vips, &v6.1.vips)?;
    replace_hash::<_, _, [u8; 20], [u8; 4]>(object, "BACKEND_IDS_V6", &v6.0.backend_ids, &v6.1.backend_ids)?;
    replace_ranges(object, "SOURCE_RANGES_V4", [&v4.0.source_ranges, &v4.1.source_ranges], |service, client| {
        bytes::<_, [u8; 8]>(V4::source_key(service, V4::from_stored(client)))
    })?;
    replace_ranges(object, "SOURCE_RANGES_V6", [&v6.0.source_ranges, &v6.1.source_ranges], |service, client| {
        bytes::<_, [u8; 20]>(V6::source_key(service, client))
    })?;
    replace_array::<_, u64>(object, "SLOTS", &before.slots, &after.slots)?;
    replace_array::<_, [u8; 8]>(object, "MEMBERS", &before.members, &after.members)?;
    replace_array::<_, [u8; 64]>(object, "BACKENDS", &before.backends, &after.backends)?;
    replace_array::<_, [u8; 36]>(object, "UPLINKS", &uplinks(before), &uplinks(after))?;
    replace_hash::<_, _, [u8; 12], [u8; 16]>(object, "WAYS", &before.ways, &after.ways)?;
    set_settings(object, after.settings.get(), config)
}

/// Writes what the operator chose.
pub fn set_settings(object: &mut Ebpf, settings: Settings, config: Config) -> Result<()> {
    let config = Config { settings, ..config };
    replace_array::<_, [u8; 24]>(object, "CONFIG", &BTreeMap::new(), &[(0, config)].into())
}

fn vips_v4(tables: &MemoryTables) -> BTreeMap<[u8; 4], u32> {
    tables.v4.vips.iter().map(|(&address, &flags)| (V4::from_stored(address), flags)).collect()
}

fn uplinks(tables: &MemoryTables) -> BTreeMap<u32, Uplink> {
    tables.uplinks.iter().map(|(&ifindex, &mac)| (ifindex % UPLINKS_MAX, uplink(tables, ifindex, mac))).collect()
}

fn uplink(tables: &MemoryTables, ifindex: u32, mac: [u8; 6]) -> Uplink {
    let [v4, v6] = [&tables.v4.report_addresses, &tables.v6.report_addresses]
        .map(|addresses| addresses.get(&ifindex).copied().unwrap_or_default());
    let flags = tables.uplink_flags.get(&ifindex).copied().unwrap_or_default();
    let (flags, hot) = (flags & !uplink_flags::HOT, flags & uplink_flags::HOT);
    Uplink { ifindex, mac, flags, address_v4: V4::from_stored(v4), address_v6: v6, hot, zero: [0; 2] }
}

/// The key of an LPM trie counts the service's bits with the range's.
fn replace_ranges<const KEY: usize>(
    object: &mut Ebpf,
    name: &str,
    [before, after]: [&BTreeSet<(u32, [u8; 16], u32)>; 2],
    key: impl Fn(u32, [u8; 16]) -> [u8; KEY],
) -> Result<()> {
    let map = object.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    let mut map = LpmTrie::<_, [u8; KEY], u32>::try_from(map).with_context(|| format!("opening {name}"))?;
    let key = |&(service, address, bits): &(u32, [u8; 16], u32)| Key::new(32 + bits, key(service, address));
    for range in before.difference(after) {
        map.remove(&key(range)).with_context(|| format!("removing from {name}"))?;
    }
    for range in after.difference(before) {
        map.insert(&key(range), 0, 0).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

fn replace_hash<K, V, KeyBytes, ValueBytes>(
    object: &mut Ebpf,
    name: &str,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> Result<()>
where
    K: bytemuck::Pod + Ord,
    V: bytemuck::Pod,
    KeyBytes: Pod + bytemuck::Pod,
    ValueBytes: Pod + bytemuck::Pod,
{
    let map = object.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    let mut map = HashMap::<_, KeyBytes, ValueBytes>::try_from(map).with_context(|| format!("opening {name}"))?;
    for key in before.keys().filter(|key| !after.contains_key(key)) {
        map.remove(&bytemuck::cast::<K, KeyBytes>(*key)).with_context(|| format!("removing from {name}"))?;
    }
    insert_all(&mut map, after).with_context(|| format!("writing {name}"))
}

/// Whatever the map has goes.
fn refill<K, V, KeyBytes, ValueBytes>(
    map: &mut HashMap<MapData, KeyBytes, ValueBytes>,
    after: &BTreeMap<K, V>,
) -> Result<()>
where
    K: bytemuck::Pod + Ord,
    V: bytemuck::Pod,
    KeyBytes: Pod + bytemuck::Pod,
    ValueBytes: Pod + bytemuck::Pod,
{
    let keys: Vec<KeyBytes> = map.keys().collect::<Result<_, _>>().context("reading records of affinity")?;
    for key in keys {
        map.remove(&key).context("removing a record of affinity")?;
    }
    insert_all(map, after).context("writing a record of affinity")
}

fn insert_all<M, K, V, KeyBytes, ValueBytes>(
    map: &mut HashMap<M, KeyBytes, ValueBytes>,
    entries: &BTreeMap<K, V>,
) -> Result<(), MapError>
where
    M: BorrowMut<MapData>,
    K: bytemuck::Pod,
    V: bytemuck::Pod,
    KeyBytes: Pod + bytemuck::Pod,
    ValueBytes: Pod + bytemuck::Pod,
{
    let each =
        |(&key, &value)| map.insert(bytemuck::cast::<K, KeyBytes>(key), bytemuck::cast::<V, ValueBytes>(value), 0);
    entries.iter().try_for_each(each)
}

fn replace_array<V, ValueBytes>(
    object: &mut Ebpf,
    name: &str,
    before: &BTreeMap<u32, V>,
    after: &BTreeMap<u32, V>,
) -> Result<()>
where
    V: bytemuck::Pod + PartialEq,
    ValueBytes: Pod + bytemuck::Pod,
{
    let map = object.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    let mut map = Array::<_, ValueBytes>::try_from(map).with_context(|| format!("opening {name}"))?;
    let gone = before.keys().filter(|index| !after.contains_key(index)).map(|&index| (index, V::zeroed()));
    let written = after.iter().map(|(&index, &value)| (index, value));
    let changed = written.filter(|(index, value)| before.get(index) != Some(value));
    for (index, value) in gone.chain(changed) {
        map.set(index, bytemuck::cast::<V, ValueBytes>(value), 0).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

fn taken<M>(object: &mut Ebpf, name: &str, open: impl FnOnce(aya::maps::Map) -> Result<M, MapError>) -> Result<M> {
    let map = object.take_map(name).with_context(|| format!("the object has no map {name}"))?;
    open(map).with_context(|| format!("opening {name}"))
}
