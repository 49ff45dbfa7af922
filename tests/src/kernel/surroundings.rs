//! What the sample's tables have beside services and pods: which addresses are VIPs, and ways back that have moved.

use std::net::IpAddr;

use xlb_common::abi::{CLUSTER_NETWORKS, Frontend, SoleFrontend, TCP, Way, WayKey, vip_flags};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::SlotWord;
use xlb_common::{Family as _, V4, V6};

use super::addresses::{Version, client_address, pod_address, vip_address};
use super::flows::stored;
use super::sample::{ROUTER_2_MAC, ROUTER_MAC, UPLINK_2_MAC};

/// As the agent would write them: usable are those whose slots have owners.
pub fn add_vips(tables: &mut MemoryTables) {
    let usable = |frontend: &Frontend| {
        let word = tables.slots.get(&frontend.slots_base).copied().map_or(SlotWord::EMPTY, SlotWord);
        if frontend.slots == 0 || word.current().is_some() { vip_flags::USABLE } else { 0 }
    };
    let v4 = tables.v4.frontends.iter().map(|(key, frontend)| (V4::to_stored(key.address), usable(frontend)));
    let v6 = tables.v6.frontends.iter().map(|(key, frontend)| (key.address, usable(frontend)));
    (tables.v4.vips, tables.v6.vips) = (v4.collect(), v6.collect());
}

/// Of uplink 2 by one next hop, and of the uplinks 3 and 4, of which the last is gone.
#[must_use]
pub fn ways() -> [(WayKey, Way); 3] {
    let way = |ifindex, next_hop_mac| Way { ifindex, next_hop_mac, uplink_mac: UPLINK_2_MAC };
    [
        (WayKey::of(2, ROUTER_MAC), way(2, ROUTER_2_MAC)),
        (WayKey::any(3), way(2, [0; 6])),
        (WayKey::any(4), Way::default()),
    ]
}

/// To the pods 1 and 8 leads, for TCP and as far as these say, one VIP alone. Client .240 is of the cluster.
pub fn add_sole_frontends(tables: &mut MemoryTables) {
    for version in Version::ALL {
        for (pod, vip) in [(1, 1), (8, 5)] {
            add_sole_frontend(tables, pod_address(version, pod), vip_address(version, vip));
        }
        let range = |bits| (CLUSTER_NETWORKS, stored(client_address(version, 240)), bits);
        match version {
            Version::V4 => tables.v4.source_ranges.insert(range(32)),
            Version::V6 => tables.v6.source_ranges.insert(range(128)),
        };
    }
}

fn add_sole_frontend(tables: &mut MemoryTables, pod: IpAddr, vip: IpAddr) {
    let (pod_port, vip_port) = (8080_u16.to_be_bytes(), 80_u16.to_be_bytes());
    let sole = |frontend: &Frontend| SoleFrontend {
        backend: frontend.sole,
        vip: stored(vip),
        vip_port,
        zero: [0; 2],
        service: frontend.service,
    };
    match (pod, vip) {
        (IpAddr::V4(pod), IpAddr::V4(vip)) => {
            let frontend = &tables.v4.frontends[&V4::endpoint_key(vip.octets(), vip_port, TCP)];
            let sole = sole(frontend);
            tables.v4.sole_frontends.insert(V4::endpoint_key(pod.octets(), pod_port, TCP), sole);
        }
        (IpAddr::V6(pod), IpAddr::V6(vip)) => {
            let frontend = &tables.v6.frontends[&V6::endpoint_key(vip.octets(), vip_port, TCP)];
            let sole = sole(frontend);
            tables.v6.sole_frontends.insert(V6::endpoint_key(pod.octets(), pod_port, TCP), sole);
        }
        _ => {}
    }
}
