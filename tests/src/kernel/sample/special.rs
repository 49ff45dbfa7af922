//! Services that look at more than a slot: at owners who were forgotten, at what came before, at the client.

use std::net::IpAddr;

use xlb_common::abi::{AffinityEntry, Member, frontend_flags, member_flags};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::SlotWord;
use xlb_common::{Family as _, V4, V6};

use super::{
    AFFINITY_S, GENERATION, Kind, PODS, Version, add_service, add_sole, change_frontend, client_address, stored, word,
};
/// A slot that pod 2 owns and pod 3 owned, and before them owners for whom there was no room: pods 1 and 6.
pub(super) fn add_forgetful(tables: &mut MemoryTables, of: Kind) {
    let forgot = (1..=9).fold(SlotWord::owned_by(0), |word, owner| word.handed_to(Some(owner)));
    let named = forgot.owners().fold(forgot, SlotWord::without).handed_to(Some(2)).handed_to(Some(1));
    add_service(tables, 22, of, &[named], 0);
    for pod in [1, 6] {
        let index = of.service_id(22) * u32::from(PODS + 1) + u32::from(pod) - 1;
        tables.members.insert(index, Member { flags: member_flags::FORGOTTEN, ..of.member(pod) });
    }
}

/// Frontends that the host's stack served before, and two that lost a pod a short while ago.
pub(super) fn add_handed_over(tables: &mut MemoryTables, of: Kind, words: &[SlotWord]) {
    use frontend_flags::{DROP_WHEN_EMPTY, HOST_BEFORE, REHASHED, REJECT_WHEN_EMPTY, SOURCE_RANGES, STRAYS};
    add_sole(tables, 50, of, of.member(1));
    change_frontend(tables, 50, of, |frontend| frontend.flags = HOST_BEFORE);
    add_service(tables, 51, of, &[word(&[2, 1, 6])], HOST_BEFORE);
    add_service(tables, 52, of, &[word(&[0])], HOST_BEFORE);
    add_service(tables, 53, of, &[word(&[0])], HOST_BEFORE | DROP_WHEN_EMPTY);
    add_service(tables, 54, of, &[word(&[0])], HOST_BEFORE | REJECT_WHEN_EMPTY);
    add_service(tables, 55, of, &[word(&[2, 1])], HOST_BEFORE | SOURCE_RANGES);
    add_service(tables, 56, of, words, HOST_BEFORE | REHASHED);
    add_service(tables, 57, of, &[word(&[1])], STRAYS);
    add_service(tables, 58, of, &[word(&[2, 1])], STRAYS);
}

/// Services that look at the client: source ranges, affinity, refusal.
pub(super) fn add_admitting(tables: &mut MemoryTables, of: Kind, words: &[SlotWord]) {
    use frontend_flags::{DROP_WHEN_EMPTY, REHASHED, REJECT_WHEN_EMPTY, SOURCE_RANGES};
    add_service(tables, 30, of, &[word(&[1])], SOURCE_RANGES);
    add_service(tables, 31, of, &[word(&[2, 1])], SOURCE_RANGES);
    add_service(tables, 32, of, &[word(&[0])], SOURCE_RANGES | REJECT_WHEN_EMPTY);
    add_service(tables, 33, of, &[word(&[0])], REJECT_WHEN_EMPTY | DROP_WHEN_EMPTY);
    add_service(tables, 34, of, &[word(&[0, 6])], REJECT_WHEN_EMPTY);
    add_service(tables, 35, of, &[word(&[1])], 0);
    add_service(tables, 36, of, &[word(&[2, 1])], 0);
    add_service(tables, 37, of, &[word(&[2, 1])], 0);
    add_sole(tables, 38, of, of.member(1));
    add_service(tables, 39, of, words, REHASHED);
    add_service(tables, 40, of, words, REHASHED);
    for vip in 35..=39 {
        change_frontend(tables, vip, of, |frontend| frontend.affinity_s = AFFINITY_S);
    }
    let pod_1 = of.service_id(37) * u32::from(PODS + 1);
    tables.members.insert(pod_1, Member { flags: member_flags::TAKES_NO_NEW, ..of.member(1) });
    for vip in [36, 37] {
        add_record(tables, of, vip, client_address(of.version, 77));
    }
    for vip in [30, 31, 32, 55] {
        for (first, host_bits) in [(0, 1), (4, 0), (8, 2)] {
            add_range(tables, of, vip, (client_address(of.version, first), host_bits));
        }
    }
}

/// Of pod 1, and newer than any clock says.
fn add_record(tables: &MemoryTables, of: Kind, vip: u8, client: IpAddr) {
    let record = AffinityEntry { backend: of.backend_id(1), generation: GENERATION, last_new_ns: u64::MAX };
    let service = of.service_id(vip);
    match client {
        IpAddr::V4(client) => {
            tables.v4.affinity.borrow_mut().insert(V4::source_key(service, client.octets()), record);
        }
        IpAddr::V6(client) => {
            tables.v6.affinity.borrow_mut().insert(V6::source_key(service, client.octets()), record);
        }
    }
}

fn add_range(tables: &mut MemoryTables, of: Kind, vip: u8, (first, host_bits): (IpAddr, u32)) {
    let range = (of.service_id(vip), stored(first), if first.is_ipv4() { 32 } else { 128 } - host_bits);
    match of.version {
        Version::V4 => tables.v4.source_ranges.insert(range),
        Version::V6 => tables.v6.source_ranges.insert(range),
    };
}
