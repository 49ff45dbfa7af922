//! The tables that rows and random packets meet: each kind of pod, and each kind of service, for TCP, UDP and
//! SCTP, and all of that once for IPv4 and once for IPv6.
//!
//! | | IPv4 | IPv6 |
//! |---|---|---|
//! | VIPs | 203.0.113.x | 2001:db8:113::x |
//! | clients | 198.51.100.x | 2001:db8:100::x |
//! | pods | 10.244.1.x | fd00:244:1::x |
//!
//! | VIP x | owners of its slot, newest first |
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
//! | .22 | pod 2, before that pod 3, and before those pods 1 and 6, whom the slot forgot |
//! | .30 .31 | pod 1; pod 2, before that pod 1: with source ranges |
//! | .32 | nobody, with source ranges; refused otherwise |
//! | .33 | nobody: refused |
//! | .34 | nobody any more, before that pod 6: refused |
//! | .35 | pod 1, with affinity |
//! | .36 | pod 2, before that pod 1, with affinity |
//! | .37 | the same, and pod 1 takes no new connections |
//! | .38 | the sole pod 1, with affinity |
//! | .39 .40 | 251 slots with owners of all kinds, rehashed: with affinity, without |
//! | .50 | the sole pod 1; the host's stack served it before |
//! | .51 | pod 2, before that pods 1 and 6; the host's stack before |
//! | .52 .53 .54 | nobody, the host's stack before: Cluster, Local, refused |
//! | .55 | pod 2, before that pod 1, with source ranges; the host's stack before |
//! | .56 | 251 slots with owners of all kinds, rehashed; the host's stack before |
//! | .57 .58 | pod 1; pod 2, before that pod 1: a pod went a short while ago |
//!
//! Behind uplink 2 router2 has taken router's place; uplink 3 was made anew as uplink 2; uplink 4 is gone, and none has its place.
//!
//! The pods 1 and 8 have their sole frontends on record, .1 and .5, for where pods are the cluster's. Client .240 is of the cluster.
//! Client .77's last connections to .36 and .37 went to pod 1.
//! The ranges hold clients .0, .1, .4 and .8 to .11. The node's address on the uplink is 192.0.2.1 and 2001:db8:2::1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use xlb_common::abi::{
    Backend, FlowEntry, Frontend, Member, NETNS_HOST, SCTP, TCP, UDP, backend_flags, frontend_flags, uplink_flags,
};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::{OWNERS, SlotWord};
use xlb_common::{Family as _, V4, V6};

use self::special::{add_admitting, add_forgetful, add_handed_over};
use super::flows::{FlowKey, stored};
use super::rows::AGO;
use super::surroundings::{add_sole_frontends, add_vips, ways};

#[path = "sample/special.rs"]
mod special;

pub use super::addresses::{Version, client_address, in_ipv6, pod_address, vip_address};

/// A test-run's packets come in on the loopback device.
pub const UPLINK: u32 = 1;
/// MAC of the uplink.
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC of the router behind the uplink.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// MAC of another uplink, which a test-run does not have.
pub const UPLINK_2_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x21];
/// MAC of another router.
pub const ROUTER_2_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
/// The uplinks that flows may have come by.
pub const UPLINKS: [u32; 4] = [UPLINK, 2, 3, 4];
/// Pods are numbered from 1.
pub const PODS: u8 = 8;
/// The services' port, and the pods', by protocol. SCTP's services have the pods' port as well.
pub const PORTS: [(u8, u16, u16); 3] = [(TCP, 80, 8080), (UDP, 53, 5353), (SCTP, 38, 3868)];
/// Last bytes of the VIPs.
pub const VIPS: [u8; 38] = [
    1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 50,
    51, 52, 53, 54, 55, 56, 57, 58,
];
/// How long affinity lasts: longer than any test.
pub const AFFINITY_S: u32 = 10_800;
/// The node's addresses on the uplink.
pub const NODE: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1));

const GENERATION: u32 = 7;
const SPREAD_SLOTS: u32 = 251;

/// The tables.
#[must_use]
pub fn tables() -> MemoryTables {
    let mut tables = MemoryTables {
        uplinks: [(UPLINK, UPLINK_MAC), (2, UPLINK_2_MAC)].into(),
        uplink_flags: [(2, uplink_flags::MOVED)].into(),
        ways: ways().into(),
        ..MemoryTables::default()
    };
    for version in Version::ALL {
        for (protocol, ..) in PORTS {
            add_services(&mut tables, Kind { version, protocol });
        }
    }
    add_vips(&mut tables);
    add_sole_frontends(&mut tables);
    tables.v4.report_addresses.insert(UPLINK, stored(NODE.0.into()));
    tables.v6.report_addresses.insert(UPLINK, stored(NODE.1.into()));
    tables
}

/// The same, while clients are followed to other ways.
#[must_use]
pub fn following() -> MemoryTables {
    let mut tables = tables();
    tables.uplink_flags.insert(UPLINK, uplink_flags::FOLLOW);
    tables
}

/// The same, while handshakes are many.
#[must_use]
pub fn hot() -> MemoryTables {
    let mut tables = tables();
    tables.uplink_flags.insert(UPLINK, uplink_flags::HOT);
    tables
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
pub fn flow_entry(tables: &MemoryTables, vip: SocketAddr, protocol: u8, key: &FlowKey) -> Option<FlowEntry> {
    let [_, pod] = key.ends();
    let (frontend, backend) = match (vip.ip(), pod.ip()) {
        (IpAddr::V4(vip_ip), IpAddr::V4(pod_ip)) => {
            let key = |address: Ipv4Addr, port: u16| V4::endpoint_key(address.octets(), port.to_be_bytes(), protocol);
            let frontend = tables.v4.frontends.get(&key(vip_ip, vip.port()))?;
            (frontend, tables.v4.backend_ids.get(&key(pod_ip, pod.port()))?)
        }
        (IpAddr::V6(vip_ip), IpAddr::V6(pod_ip)) => {
            let key = |address: Ipv6Addr, port: u16| V6::endpoint_key(address.octets(), port.to_be_bytes(), protocol);
            let frontend = tables.v6.frontends.get(&key(vip_ip, vip.port()))?;
            (frontend, tables.v6.backend_ids.get(&key(pod_ip, pod.port()))?)
        }
        _ => return None,
    };
    Some(FlowEntry {
        vip: stored(vip.ip()),
        vip_port: vip.port().to_be_bytes(),
        service: frontend.service,
        backend: *backend as u16,
        ingress_ifindex: UPLINK,
        next_hop_mac: ROUTER_MAC,
        uplink_mac: UPLINK_MAC,
        last_seen: AGO,
        ..FlowEntry::default()
    })
}

/// What the pods and services of one round have in common.
#[derive(Clone, Copy)]
struct Kind {
    version: Version,
    protocol: u8,
}

fn add_services(tables: &mut MemoryTables, of: Kind) {
    for pod in 1..=PODS {
        add_pod(tables, pod, of);
    }
    for (vip, pod) in [(1, 1), (2, 4), (3, 5), (4, 6), (5, 8)] {
        add_sole(tables, vip, of, of.member(pod));
    }
    add_sole(tables, 21, of, of.gone());
    for (vip, owners, flags) in services() {
        add_service(tables, vip, of, &[word(&owners)], flags);
    }
    let words: Vec<SlotWord> = (0..SPREAD_SLOTS).map(spread_word).collect();
    add_service(tables, 20, of, &words, 0);
    add_forgetful(tables, of);
    add_admitting(tables, of, &words);
    add_handed_over(tables, of, &words);
}

/// VIP, the pods that own and owned the slot (0: none), flags.
fn services() -> [(u8, Vec<u8>, u16); 10] {
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

fn add_pod(tables: &mut MemoryTables, pod: u8, of: Kind) {
    let (id, address, port) = (of.backend_id(pod), pod_address(of.version, pod), of.pod_port());
    let backend = Backend {
        address: stored(address),
        generation: GENERATION,
        flags: backend_flags::IN_USE | flags_of(pod),
        ifindex: 100 + u32::from(pod),
        netns_id: NETNS_HOST,
        pod_mac: pod_mac(pod),
        host_mac: host_mac(pod),
        port,
        protocol: of.protocol,
        family: if address.is_ipv4() { 4 } else { 6 },
        ..Backend::default()
    };
    tables.backends.insert(id, backend);
    match address {
        IpAddr::V4(address) => {
            tables.v4.backend_ids.insert(V4::endpoint_key(address.octets(), port, of.protocol), id);
        }
        IpAddr::V6(address) => {
            tables.v6.backend_ids.insert(V6::endpoint_key(address.octets(), port, of.protocol), id);
        }
    }
}

const fn flags_of(pod: u8) -> u32 {
    use backend_flags::{DIRECT, HIDDEN, TAKES_XDP};
    match pod {
        4 => DIRECT,
        5 => 0,
        6 | 7 => DIRECT | TAKES_XDP | HIDDEN,
        8 => HIDDEN,
        _ => DIRECT | TAKES_XDP,
    }
}

fn add_sole(tables: &mut MemoryTables, vip: u8, of: Kind, sole: Member) {
    add_frontend(tables, vip, of, Frontend { service: of.service_id(vip), sole, ..Frontend::default() });
}

fn add_service(tables: &mut MemoryTables, vip: u8, of: Kind, words: &[SlotWord], flags: u16) {
    let service = of.service_id(vip);
    let frontend = Frontend {
        service,
        slots_base: service * SPREAD_SLOTS,
        slots: words.len() as u32,
        members_base: service * u32::from(PODS + 1),
        members: u16::from(PODS) + 1,
        flags,
        ..Frontend::default()
    };
    add_frontend(tables, vip, of, frontend);
    tables.slots.extend((frontend.slots_base..).zip(words.iter().map(|word| word.0)));
    let members = (1..=PODS).map(|pod| of.member(pod)).chain([of.gone()]);
    tables.members.extend((frontend.members_base..).zip(members));
}

fn add_frontend(tables: &mut MemoryTables, vip: u8, of: Kind, frontend: Frontend) {
    add_frontend_at(tables, vip, of, (of.vip_port(), frontend));
    if of.protocol == SCTP {
        add_frontend_at(tables, vip, of, (of.pod_port(), frontend));
    }
}

fn add_frontend_at(tables: &mut MemoryTables, vip: u8, of: Kind, (port, frontend): ([u8; 2], Frontend)) {
    match vip_address(of.version, vip) {
        IpAddr::V4(address) => {
            tables.v4.frontends.insert(V4::endpoint_key(address.octets(), port, of.protocol), frontend);
        }
        IpAddr::V6(address) => {
            tables.v6.frontends.insert(V6::endpoint_key(address.octets(), port, of.protocol), frontend);
        }
    }
}

fn change_frontend(tables: &mut MemoryTables, vip: u8, of: Kind, change: impl FnOnce(&mut Frontend)) {
    let frontend = match vip_address(of.version, vip) {
        IpAddr::V4(address) => {
            tables.v4.frontends.get_mut(&V4::endpoint_key(address.octets(), of.vip_port(), of.protocol))
        }
        IpAddr::V6(address) => {
            tables.v6.frontends.get_mut(&V6::endpoint_key(address.octets(), of.vip_port(), of.protocol))
        }
    };
    frontend.map(change);
}

impl Kind {
    fn vip_port(self) -> [u8; 2] {
        PORTS.iter().find(|ports| ports.0 == self.protocol).map_or(0, |ports| ports.1).to_be_bytes()
    }

    fn pod_port(self) -> [u8; 2] {
        PORTS.iter().find(|ports| ports.0 == self.protocol).map_or(0, |ports| ports.2).to_be_bytes()
    }

    fn member(self, pod: u8) -> Member {
        Member { backend: self.backend_id(pod) as u16, flags: 0, generation: GENERATION }
    }

    /// A reference that is older than what its id means now.
    fn gone(self) -> Member {
        Member { generation: GENERATION - 1, ..self.member(1) }
    }

    fn backend_id(self, pod: u8) -> u32 {
        u32::from(pod) + 100 * self.number()
    }

    fn service_id(self, vip: u8) -> u32 {
        u32::from(vip) * 6 + self.number()
    }

    /// Each kind has its own.
    fn number(self) -> u32 {
        let protocol = PORTS.iter().position(|ports| ports.0 == self.protocol).unwrap_or_default() as u32;
        protocol + 3 * u32::from(self.version == Version::V6)
    }
}
