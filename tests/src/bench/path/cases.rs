//! What is measured: a program, the packets that it gets, and the maps that they meet.

use xlb_common::abi::{TCP, UDP};

use crate::kernel::sample::Version;

/// One measured program with one kind of packet.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub program: &'static str,
    /// The program that only makes the packet; none: the figure is gross.
    pub harness: Option<&'static str>,
    pub packet: Packet,
    pub baseline: Option<&'static str>,
    pub verdict: u32,
    pub maps: MapsOf,
    /// Flows in turn; a row each.
    pub flows: &'static [u32],
}

/// What packets of a case have in common.
#[derive(Clone, Copy)]
pub struct Packet {
    pub version: Version,
    pub protocol: u8,
    /// Last byte of the VIP.
    pub vip: u8,
    pub flags: &'static str,
    /// An ICMP error that quotes such a packet.
    pub is_quoted: bool,
}

/// The maps that packets meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MapsOf {
    /// A few Services, whose packets and bytes are counted.
    Few,
    /// The same, uncounted.
    Uncounted,
    /// Those that SYNs were counted in: as many as here make times hot, in which packets of connections look for their flow's entry.
    Hot,
    /// 30 000 Services besides.
    Many,
    /// Those and SYNs.
    ManyHot,
}

impl MapsOf {
    /// All.
    pub const ALL: [Self; 5] = [Self::Few, Self::Uncounted, Self::Hot, Self::Many, Self::ManyHot];

    /// Whether there are 30 000 Services besides.
    pub fn are_many(self) -> bool {
        matches!(self, Self::Many | Self::ManyHot)
    }
}

/// A VIP that nobody serves.
const OTHER_VIP: u8 = 99;
/// Served VIPs: slots with one owner each, with a former owner, with source ranges, with affinity, and without slots.
pub const PLAIN_VIP: u8 = 10;
pub const HISTORY_VIP: u8 = 11;
pub const RANGES_VIP: u8 = 12;
pub const AFFINE_VIP: u8 = 13;
pub const SOLE_VIP: u8 = 14;

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const TC_NEXT: u32 = u32::MAX;
const TC_REDIRECT: u32 = 7;

const ONE: &[u32] = &[1];
const FEW_AND_MANY: &[u32] = &[1, 100_000];
const UP_TO_A_MILLION: &[u32] = &[1, 1_000, 100_000, 1_000_000];

const ACK: Packet = Packet { version: Version::V4, protocol: TCP, vip: PLAIN_VIP, flags: "A", is_quoted: false };
const ACK_V6: Packet = Packet { version: Version::V6, ..ACK };
const SYN: Packet = Packet { flags: "S", ..ACK };

/// An established connection's packets, and what most cases differ from.
const ESTABLISHED: Case = Case {
    name: "established",
    program: "path_xdp",
    harness: Some("varied"),
    packet: ACK,
    baseline: Some("forwarder"),
    verdict: XDP_REDIRECT,
    maps: MapsOf::Few,
    flows: UP_TO_A_MILLION,
};
const LIKE_IT: Case = Case { baseline: Some("established"), flows: FEW_AND_MANY, ..ESTABLISHED };
const HARNESS: Case = Case {
    name: "varied",
    program: "varied",
    harness: Some("empty"),
    baseline: None,
    verdict: XDP_PASS,
    ..ESTABLISHED
};
const OPERATION: Case = Case { verdict: XDP_PASS, baseline: Some("forwarder"), flows: UP_TO_A_MILLION, ..ESTABLISHED };
const TC: Case = Case {
    name: "tc: established",
    program: "path_tc",
    harness: Some("tc: varied"),
    baseline: Some("tc: forwarder"),
    verdict: TC_REDIRECT,
    ..LIKE_IT
};

/// All cases; a harness comes before who needs it.
pub const CASES: [Case; 35] = [
    Case { name: "empty", program: "empty", harness: None, ..HARNESS },
    HARNESS,
    Case { name: "varied_v6", program: "varied_v6", packet: ACK_V6, flows: FEW_AND_MANY, ..HARNESS },
    Case { name: "restored", program: "restored", flows: ONE, ..HARNESS },
    Case { name: "tc: empty", program: "empty_tc", harness: None, verdict: TC_NEXT, flows: FEW_AND_MANY, ..HARNESS },
    Case {
        name: "tc: varied",
        program: "varied_tc",
        harness: Some("tc: empty"),
        verdict: TC_NEXT,
        flows: FEW_AND_MANY,
        ..HARNESS
    },
    Case { name: "forwarder", program: "forwarder", baseline: None, ..ESTABLISHED },
    ESTABLISHED,
    Case { name: "established_again", ..LIKE_IT },
    Case { name: "established_uncounted", maps: MapsOf::Uncounted, ..LIKE_IT },
    Case { name: "established_v6", program: "path_xdp_v6", harness: Some("varied_v6"), packet: ACK_V6, ..LIKE_IT },
    Case { name: "established, 30 k services", maps: MapsOf::Many, ..LIKE_IT },
    Case { name: "established, sole backend", packet: Packet { vip: SOLE_VIP, ..ACK }, ..LIKE_IT },
    Case { name: "established, source ranges", packet: Packet { vip: RANGES_VIP, ..ACK }, ..LIKE_IT },
    Case { name: "established, affinity", packet: Packet { vip: AFFINE_VIP, ..ACK }, ..LIKE_IT },
    Case { name: "established, slot with history", packet: Packet { vip: HISTORY_VIP, ..ACK }, ..LIKE_IT },
    Case { name: "syn", packet: SYN, maps: MapsOf::Hot, flows: UP_TO_A_MILLION, ..LIKE_IT },
    Case { name: "syn, 30 k services", packet: SYN, maps: MapsOf::ManyHot, baseline: Some("syn"), ..LIKE_IT },
    Case {
        name: "syn, affinity",
        packet: Packet { vip: AFFINE_VIP, ..SYN },
        maps: MapsOf::Hot,
        baseline: Some("syn"),
        ..LIKE_IT
    },
    Case {
        name: "syn, slot with history",
        packet: Packet { vip: HISTORY_VIP, ..SYN },
        maps: MapsOf::Hot,
        baseline: Some("syn"),
        ..LIKE_IT
    },
    Case { name: "established_hot", maps: MapsOf::Hot, ..LIKE_IT },
    Case { name: "udp", packet: Packet { protocol: UDP, ..ACK }, maps: MapsOf::Hot, ..LIKE_IT },
    Case {
        name: "icmp error",
        program: "path_icmp",
        harness: Some("restored"),
        packet: Packet { is_quoted: true, ..ACK },
        flows: ONE,
        ..LIKE_IT
    },
    Case { name: "not_ours", packet: Packet { vip: OTHER_VIP, ..ACK }, verdict: XDP_PASS, ..LIKE_IT },
    Case {
        name: "not_ours, 30 k services",
        packet: Packet { vip: OTHER_VIP, ..ACK },
        verdict: XDP_PASS,
        maps: MapsOf::Many,
        ..LIKE_IT
    },
    Case { name: "alone: frontend looked up", program: "look_frontend", ..OPERATION },
    Case { name: "alone: slot, member, backend", program: "look_backend", ..OPERATION },
    Case { name: "alone: flow written", program: "write_flow", flows: FEW_AND_MANY, ..OPERATION },
    Case { name: "alone: flow looked up", program: "look_flow", flows: FEW_AND_MANY, ..OPERATION },
    Case { name: "alone: verdict counted", program: "count_reason", flows: ONE, ..OPERATION },
    Case { name: "alone: service counted", program: "count_service", flows: ONE, ..OPERATION },
    Case { name: "tc: forwarder", program: "forwarder_tc", baseline: None, ..TC },
    TC,
    Case { name: "tc: syn", packet: SYN, maps: MapsOf::Hot, baseline: Some("tc: established"), ..TC },
    Case {
        name: "tc: not_ours",
        packet: Packet { vip: OTHER_VIP, ..ACK },
        verdict: TC_NEXT,
        baseline: Some("tc: established"),
        ..TC
    },
];
