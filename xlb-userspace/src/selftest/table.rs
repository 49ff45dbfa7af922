//! What the maps hold in a self-test: a VIP of each family, and a pod behind each. The addresses are those that documents
//! are written with (RFC 5737, RFC 3849): no socket of the node has them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, HashMap};
use bytemuck::Pod;
use xlb_common::abi::{
    Backend, Config, Frontend, Member, NETNS_HOST, Settings, TCP, UDP, UPLINKS_MAX, Uplink, backend_flags, vip_flags,
};
use xlb_common::memory::{InMemory, MemoryTables};
use xlb_common::slot::SlotWord;
use xlb_common::tables::now_of;
use xlb_common::{Family as _, V4, V6};

use crate::maps::kernel;
use crate::maps::raw::Raw;

/// The VIPs.
pub const VIP: ([u8; 4], [u8; 16]) =
    ([203, 0, 113, 10], [0x20, 1, 0xd, 0xb8, 1, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
/// The pods.
pub const POD: ([u8; 4], [u8; 16]) = ([192, 0, 2, 7], [0x20, 1, 0xd, 0xb8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
/// The pod's port behind each of [`SERVICES`].
pub const POD_PORT: u16 = 8080;
/// Ports of the VIPs with protocol, and whether their packets go past the host's stack.
pub const SERVICES: [(u16, u8, bool); 4] = [(80, TCP, true), (53, UDP, true), (81, TCP, false), (54, UDP, false)];

/// Of every id.
const GENERATION: u32 = 1;
/// The interface of a test-run's packets.
const UPLINK: u32 = 1;
/// MACs of the two ends of the pods' link.
const POD_MAC: [u8; 6] = [2, 0, 0, 1, 0, 7];
const HOST_MAC: [u8; 6] = [2, 0, 0, 2, 0, 7];

/// The tables, behind an uplink with this MAC.
#[must_use]
pub fn tables(uplink_mac: [u8; 6]) -> MemoryTables {
    let mut tables = MemoryTables { uplinks: [(UPLINK, uplink_mac)].into(), ..MemoryTables::default() };
    tables.settings.set(Settings::default().with_echo());
    tables.now_ns = kernel::now_ns().unwrap_or_default();
    tables.now = now_of(tables.now_ns);
    add::<V4>(&mut tables, VIP.0, POD.0, 0);
    add::<V6>(&mut tables, VIP.1, POD.1, SERVICES.len() as u32);
    tables
}

fn add<F: InMemory>(tables: &mut MemoryTables, vip: F::Address, pod: F::Address, first_id: u32) {
    for (id, (port, protocol, is_direct)) in (first_id..).zip(SERVICES) {
        // Services of one protocol have pod ports of their own: a pod could not tell their connections apart.
        let pod_port = pod_port(is_direct).to_be_bytes();
        let delivery = if is_direct { backend_flags::DIRECT | backend_flags::TAKES_XDP } else { 0 };
        let backend = Backend {
            address: F::to_stored(pod),
            generation: GENERATION,
            flags: backend_flags::IN_USE | delivery,
            ifindex: UPLINK,
            netns_id: NETNS_HOST,
            pod_mac: POD_MAC,
            host_mac: HOST_MAC,
            port: pod_port,
            protocol,
            family: F::VERSION,
            zero: [0; 16],
        };
        let member = Member { backend: id as u16, flags: 0, generation: GENERATION };
        tables.backends.insert(id, backend);
        tables.members.insert(id, member);
        tables.slots.insert(id, SlotWord::owned_by(0).0);
        // TCP is found by its slot, UDP by the only backend: both ways are taken.
        let (slots, sole) = if protocol == TCP { (1, Member::default()) } else { (0, member) };
        let (slots_base, members_base) = (id, id);
        let frontend =
            Frontend { service: id, slots_base, slots, members_base, sole, members: 1, ..Frontend::default() };
        let of_family = F::of_mut(tables);
        of_family.frontends.insert(F::endpoint_key(vip, port.to_be_bytes(), protocol), frontend);
        of_family.backend_ids.insert(F::endpoint_key(pod, pod_port, protocol), id);
    }
    F::of_mut(tables).vips.insert(F::to_stored(vip), vip_flags::USABLE);
}

/// Where the pod listens.
#[must_use]
pub const fn pod_port(is_direct: bool) -> u16 {
    if is_direct { POD_PORT } else { POD_PORT + 1 }
}

/// Writes the tables into the maps of an object.
///
/// # Errors
/// When the object lacks a map, or the kernel refuses a write.
pub fn fill(object: &mut Ebpf, tables: &MemoryTables) -> Result<()> {
    hash(object, "FRONTENDS_V4", &tables.v4.frontends)?;
    hash(object, "FRONTENDS_V6", &tables.v6.frontends)?;
    hash(object, "BACKEND_IDS_V4", &tables.v4.backend_ids)?;
    hash(object, "BACKEND_IDS_V6", &tables.v6.backend_ids)?;
    let vips_v4 = tables.v4.vips.iter().map(|(&address, &flags)| (V4::from_stored(address), flags)).collect();
    hash::<[u8; 4], u32>(object, "VIPS_V4", &vips_v4)?;
    hash(object, "VIPS_V6", &tables.v6.vips)?;
    array(object, "BACKENDS", &tables.backends)?;
    array(object, "MEMBERS", &tables.members)?;
    array(object, "SLOTS", &tables.slots)?;
    let uplinks = tables.uplinks.iter();
    let uplinks = uplinks.map(|(&ifindex, &mac)| (ifindex % UPLINKS_MAX, Uplink { ifindex, mac, ..Uplink::default() }));
    array(object, "UPLINKS", &uplinks.collect())?;
    let settings = tables.settings.get();
    let config = Config { stack_in_use: 1, settings, generation: 1, only_uplink: 0, zero: 0 };
    array(object, "CONFIG", &[(0, config)].into())
}

fn hash<K: Pod, V: Pod>(object: &mut Ebpf, name: &str, entries: &BTreeMap<K, V>) -> Result<()> {
    let map = object.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    let mut map = HashMap::<_, Raw<K>, Raw<V>>::try_from(map).with_context(|| format!("opening {name}"))?;
    let mut all = entries.iter();
    all.try_for_each(|(&key, &value)| map.insert(Raw(key), Raw(value), 0)).with_context(|| format!("writing {name}"))
}

fn array<V: Pod>(object: &mut Ebpf, name: &str, entries: &BTreeMap<u32, V>) -> Result<()> {
    let map = object.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    let mut map = Array::<_, Raw<V>>::try_from(map).with_context(|| format!("opening {name}"))?;
    let mut all = entries.iter();
    all.try_for_each(|(&index, &value)| map.set(index, Raw(value), 0)).with_context(|| format!("writing {name}"))
}
