//! What the sample's tables have beside services and pods: which addresses are VIPs, and ways back that have moved.

use xlb_common::abi::{Frontend, Way, WayKey, vip_flags};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::SlotWord;
use xlb_common::{Family as _, V4};

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
