//! The tables that rows and random packets meet: each kind of pod, and each kind of service, once for TCP and once for
//! UDP.
//!
//! | VIP 203.0.113.x | owners of its slot, newest first |
//! |---|---|
//! | .1 .2 .3 .4 .5 | no slot: the sole pod 1, 4, 5, 6, 8 |
//! | .10 | pod 1 |
//! | .11 | pod 2, before that pod 1 |
//! | .12 | pod 7, before that pod 6 (both hidden) |
//! | .13 | pod 5 (stack), before that pods 6 and 1 |
//! | .14 | a backend that is gone |
//! | .15 .16 | nobody: Local, Cluster |
//! | .17 .18 | nobody any more, before that pod 6: Cluster, Local |
//! | .19 | pod 1, before that pods 2 to 8 |
//! | .20 | 251 slots with owners of all kinds |
//! | .21 | the sole pod is gone |

use xlb_common::abi::{
    Backend, EndpointKeyV4, FlowEntry, FlowKeyV4, Frontend, Member, NETNS_HOST, TCP, UDP, backend_flags, frontend_flags,
};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::{OWNERS, SlotWord};

/// A test-run's packets come in on the loopback device.
pub const UPLINK: u32 = 1;
/// MAC of the uplink.
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC of the router behind the uplink.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Pods are numbered from 1.
pub const PODS: u8 = 8;
/// The services' port, and the pods', by protocol.
pub const PORTS: [(u8, u16, u16); 2] = [(TCP, 80, 8080), (UDP, 53, 5353)];
/// Last bytes of the VIPs.
pub const VIPS: [u8; 17] = [1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21];

const GENERATION: u32 = 7;
const SPREAD_SLOTS: u32 = 251;

/// The tables.
#[must_use]
pub fn tables() -> MemoryTables {
    let mut tables = MemoryTables { uplinks: [(UPLINK, UPLINK_MAC)].into(), ..MemoryTables::default() };
    for (protocol, ..) in PORTS {
        for pod in 1..=PODS {
            add_pod(&mut tables, pod, protocol);
        }
        for (vip, pod) in [(1, 1), (2, 4), (3, 5), (4, 6), (5, 8)] {
            add_sole(&mut tables, vip, protocol, member(pod, protocol));
        }
        add_sole(&mut tables, 21, protocol, gone(protocol));
        for (vip, owners, flags) in services() {
            add_service(&mut tables, vip, protocol, &[word(&owners)], flags);
        }
        let words: Vec<SlotWord> = (0..SPREAD_SLOTS).map(spread_word).collect();
        add_service(&mut tables, 20, protocol, &words, 0);
    }
    tables
}

/// A VIP's address.
#[must_use]
pub const fn vip_address(last: u8) -> [u8; 4] {
    [203, 0, 113, last]
}

/// A pod's address.
#[must_use]
pub const fn pod_address(pod: u8) -> [u8; 4] {
    [10, 244, 1, pod]
}

/// MAC of a pod's end of its link.
#[must_use]
pub const fn pod_mac(pod: u8) -> [u8; 6] {
    [2, 0, 0, 1, 0, pod]
}

/// MAC of the host's end of a pod's link.
#[must_use]
pub const fn host_mac(pod: u8) -> [u8; 6] {
    [2, 0, 0, 2, 0, pod]
}

/// The entry that a client's packet to `vip` leaves for the pod of `key`.
#[must_use]
pub fn flow_entry(tables: &MemoryTables, vip: EndpointKeyV4, key: &FlowKeyV4) -> Option<FlowEntry> {
    let mut stored = [0; 16];
    stored[..4].copy_from_slice(&vip.address);
    let pod = EndpointKeyV4 { address: key.pod, port: key.pod_port, ..vip };
    Some(FlowEntry {
        vip: stored,
        vip_port: vip.port,
        service: tables.frontends.get(&vip)?.service,
        backend: *tables.backend_ids.get(&pod)?,
        ingress_ifindex: UPLINK,
        next_hop_mac: ROUTER_MAC,
        uplink_mac: UPLINK_MAC,
        ..FlowEntry::default()
    })
}

/// VIP, the pods that own and owned the slot (0: none), flags.
fn services() -> [(u8, Vec<u8>, u32); 10] {
    let local = frontend_flags::DROP_WHEN_EMPTY;
    [
        (10, vec![1], 0),
        (11, vec![2, 1], 0),
        (12, vec![7, 6], local),
        (13, vec![5, 6, 1], 0),
        (14, vec![PODS + 1], 0),
        (15, vec![0], local),
        (16, vec![0], 0),
        (17, vec![0, 6], 0),
        (18, vec![0, 6], local),
        (19, (1..=PODS).collect(), 0),
    ]
}

/// The words of the service whose owners are of all kinds: with and without a history, with and without a gap.
fn spread_word(index: u32) -> SlotWord {
    let pods = u32::from(PODS) + 2;
    let owners = (0..index % 4).map(|position| ((index * 7 + position * 3) % pods) as u8);
    let current = (index % u32::from(PODS)) as u8 + 1;
    let previous: Vec<u8> = owners.filter(|&pod| pod != 0 && pod != current).collect();
    let current = if index % 16 == 5 { 0 } else { current };
    word(&[vec![current], previous].concat())
}

/// Members are numbered as pods are, less one.
fn word(pods: &[u8]) -> SlotWord {
    let mut bytes = [0xff; OWNERS];
    for (byte, pod) in bytes.iter_mut().zip(pods) {
        *byte = pod.wrapping_sub(1);
    }
    SlotWord(u64::from_le_bytes(bytes))
}

fn add_pod(tables: &mut MemoryTables, pod: u8, protocol: u8) {
    let (id, address, port) = (backend_id(pod, protocol), pod_address(pod), pod_port(protocol));
    let mut stored = [0; 16];
    stored[..4].copy_from_slice(&address);
    let backend = Backend {
        address: stored,
        generation: GENERATION,
        flags: backend_flags::IN_USE | kind(pod),
        ifindex: 100 + u32::from(pod),
        netns_id: NETNS_HOST,
        pod_mac: pod_mac(pod),
        host_mac: host_mac(pod),
        port,
        protocol,
        family: 4,
        ..Backend::default()
    };
    tables.backends.insert(id, backend);
    tables.backend_ids.insert(EndpointKeyV4 { address, port, protocol, zero: 0 }, id);
}

const fn kind(pod: u8) -> u32 {
    use backend_flags::{DIRECT, HIDDEN, TAKES_XDP};
    match pod {
        4 => DIRECT,
        5 => 0,
        6 | 7 => DIRECT | TAKES_XDP | HIDDEN,
        8 => HIDDEN,
        _ => DIRECT | TAKES_XDP,
    }
}

fn add_sole(tables: &mut MemoryTables, vip: u8, protocol: u8, sole: Member) {
    let frontend = Frontend { service: service_id(vip, protocol), sole, ..Frontend::default() };
    tables.frontends.insert(frontend_key(vip, protocol), frontend);
}

fn add_service(tables: &mut MemoryTables, vip: u8, protocol: u8, words: &[SlotWord], flags: u32) {
    let service = service_id(vip, protocol);
    let frontend = Frontend {
        service,
        slots_base: service * SPREAD_SLOTS,
        slots: words.len() as u32,
        members_base: service * u32::from(PODS + 1),
        flags,
        ..Frontend::default()
    };
    tables.frontends.insert(frontend_key(vip, protocol), frontend);
    tables.slots.extend((frontend.slots_base..).zip(words.iter().map(|word| word.0)));
    let members = (1..=PODS).map(|pod| member(pod, protocol)).chain([gone(protocol)]);
    tables.members.extend((frontend.members_base..).zip(members));
}

fn frontend_key(vip: u8, protocol: u8) -> EndpointKeyV4 {
    let port = PORTS.iter().find(|ports| ports.0 == protocol).map_or(0, |ports| ports.1).to_be_bytes();
    EndpointKeyV4 { address: vip_address(vip), port, protocol, zero: 0 }
}

fn pod_port(protocol: u8) -> [u8; 2] {
    PORTS.iter().find(|ports| ports.0 == protocol).map_or(0, |ports| ports.2).to_be_bytes()
}

fn member(pod: u8, protocol: u8) -> Member {
    Member { backend: backend_id(pod, protocol) as u16, flags: 0, generation: GENERATION }
}

/// A reference that is older than what its id means now.
fn gone(protocol: u8) -> Member {
    Member { backend: backend_id(1, protocol) as u16, flags: 0, generation: GENERATION - 1 }
}

fn backend_id(pod: u8, protocol: u8) -> u32 {
    u32::from(pod) + if protocol == UDP { 100 } else { 0 }
}

fn service_id(vip: u8, protocol: u8) -> u32 {
    u32::from(vip) * 2 + u32::from(protocol == UDP)
}
