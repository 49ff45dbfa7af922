//! What the measured programs find in their maps.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use aya::maps::Array;
use aya::{Ebpf, EbpfLoader};
use xlb_common::abi::{
    Backend, COUNTED_SERVICES_MAX, Config, Frontend, Member, NETNS_HOST, TCP, UDP, backend_flags, frontend_flags,
};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::SlotWord;
use xlb_common::{Family as _, V4, V6};

use super::cases::{AFFINE_VIP, CASES, HISTORY_VIP, MapsOf, PLAIN_VIP, Packet, RANGES_VIP, SOLE_VIP};
use crate::kernel::dataplane::object_path;
use crate::kernel::flows::stored;
use crate::kernel::kernel_maps::fill;
use crate::kernel::sample::{UPLINK, UPLINK_MAC, Version, host_mac, pod_address, pod_mac, vip_address};

const BACKENDS: u8 = 3;
const SLOTS: u32 = 251;
const MANY: u32 = 30_000;
const PORT: u16 = 80;
const AFFINITY_S: u32 = 10_800;
/// Flow maps that the measured programs have, and do not touch: their real size would only take memory.
const UNUSED_FLOWS: [&str; 3] = ["FLOWS_V6", "UDP_FLOWS_V6", "UDP_PENDING_V6"];
const UNUSED_ENTRIES: u32 = 1_024;
/// The port of the first flow's client; flows differ in their client's address.
pub const CLIENT_PORT: u16 = 40_000;

/// The object with its maps filled.
pub fn load(maps: MapsOf) -> Result<Ebpf> {
    let path = object_path("xlb-bench.o");
    let mut loader = EbpfLoader::new();
    for map in UNUSED_FLOWS {
        loader.map_max_entries(map, UNUSED_ENTRIES);
    }
    let counted_services = if maps == MapsOf::Uncounted { 0 } else { COUNTED_SERVICES_MAX };
    loader.override_global("COUNTED_SERVICES", &counted_services, true);
    let mut object = loader
        .load_file(&path)
        .with_context(|| format!("loading {}; `cargo xtask build-ebpf` makes it", path.display()))?;
    for case in CASES.iter().filter(|case| case.maps == maps) {
        for name in case.harness_program().into_iter().chain([case.program]) {
            load_program(&mut object, name).with_context(|| format!("loading {name}"))?;
        }
    }
    fill(&mut object, &tables(maps), Config::default())?;
    Ok(object)
}

fn load_program(object: &mut Ebpf, name: &str) -> Result<()> {
    use aya::programs::Program;
    match object.program_mut(name).context("no such program")? {
        Program::Xdp(program) if program.fd().is_err() => Ok(program.load()?),
        Program::SchedClassifier(program) if program.fd().is_err() => Ok(program.load()?),
        _ => Ok(()),
    }
}

/// Tells the programs what to make of each packet.
pub fn set_traffic(object: &mut Ebpf, packet: Packet, flows: u32) -> Result<()> {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&flows.to_ne_bytes());
    bytes[8..24].copy_from_slice(&stored(vip_address(packet.version, packet.vip)));
    bytes[24..26].copy_from_slice(&PORT.to_be_bytes());
    bytes[26..28].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    bytes[28] = packet.protocol;
    let map = object.map_mut("TRAFFIC").context("no map TRAFFIC")?;
    Array::<_, [u8; 32]>::try_from(map)?.set(0, bytes, 0).context("describing the traffic")
}

/// Tells the programs how a packet begins that they make anew each time.
pub fn set_headers(object: &mut Ebpf, frame: &[u8]) -> Result<()> {
    let bytes: [u8; 80] = frame.get(..80).context("a short frame")?.try_into()?;
    let map = object.map_mut("HEADERS").context("no map HEADERS")?;
    Array::<_, [u8; 80]>::try_from(map)?.set(0, bytes, 0).context("describing a packet")
}

/// A service of each kind and family; its pods' links take frames from XDP.
fn tables(maps: MapsOf) -> MemoryTables {
    let mut tables = MemoryTables { uplinks: [(UPLINK, UPLINK_MAC)].into(), ..MemoryTables::default() };
    for (number, version) in (1..).zip(Version::ALL) {
        let (slots_base, members_base) = (SLOTS * number, u32::from(BACKENDS) * number);
        let history_base = slots_base + SLOTS * Version::ALL.len() as u32;
        let plain = Frontend { service: number, slots_base, slots: SLOTS, members_base, ..Frontend::default() };
        let of_kind = |kind: u32| Frontend { service: number + 2 * kind, ..plain };
        let sole = Member { backend: members_base as u16, flags: 0, generation: 1 };
        let frontends = [
            (PLAIN_VIP, plain),
            (HISTORY_VIP, Frontend { slots_base: history_base, ..of_kind(1) }),
            (RANGES_VIP, Frontend { flags: frontend_flags::SOURCE_RANGES, ..of_kind(2) }),
            (AFFINE_VIP, Frontend { affinity_s: AFFINITY_S, ..of_kind(3) }),
            (SOLE_VIP, Frontend { slots: 0, sole, ..of_kind(4) }),
        ];
        for (vip, frontend) in frontends {
            add_frontend(&mut tables, vip_address(version, vip), frontend);
        }
        tables.v4.source_ranges.insert((of_kind(2).service, stored(IpAddr::from([10, 0, 0, 0])), 8));
        let owner = |slot: u32| SlotWord::owned_by((slot % u32::from(BACKENDS)) as u8);
        let next = |slot: u32| owner(slot).handed_to(Some(((slot + 1) % u32::from(BACKENDS)) as u8));
        tables.slots.extend((slots_base..).zip((0..SLOTS).map(|slot| owner(slot).0)));
        tables.slots.extend((history_base..).zip((0..SLOTS).map(|slot| next(slot).0)));
        for (index, pod) in (members_base..).zip(1..=BACKENDS) {
            tables.members.insert(index, Member { backend: index as u16, flags: 0, generation: 1 });
            tables.backends.insert(index, backend(version, pod));
        }
    }
    if maps.are_many() {
        let plain = Frontend { service: 1, slots_base: SLOTS, slots: SLOTS, members_base: 3, ..Frontend::default() };
        let vip = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + number);
        (0..MANY).for_each(|number| add_frontend(&mut tables, vip(number).into(), plain));
    }
    tables
}

fn add_frontend(tables: &mut MemoryTables, vip: IpAddr, frontend: Frontend) {
    let port = PORT.to_be_bytes();
    for protocol in [TCP, UDP] {
        let _ = match vip {
            IpAddr::V4(vip) => tables.v4.frontends.insert(V4::endpoint_key(vip.octets(), port, protocol), frontend),
            IpAddr::V6(vip) => tables.v6.frontends.insert(V6::endpoint_key(vip.octets(), port, protocol), frontend),
        };
    }
}

fn backend(version: Version, pod: u8) -> Backend {
    Backend {
        address: stored(pod_address(version, pod)),
        generation: 1,
        flags: backend_flags::IN_USE | backend_flags::DIRECT | backend_flags::TAKES_XDP,
        ifindex: UPLINK,
        netns_id: NETNS_HOST,
        pod_mac: pod_mac(pod),
        host_mac: host_mac(pod),
        port: 8080_u16.to_be_bytes(),
        protocol: TCP,
        family: if version == Version::V4 { 4 } else { 6 },
        ..Backend::default()
    }
}
