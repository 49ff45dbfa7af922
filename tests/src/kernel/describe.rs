//! Packets and flows to text, in the words of [`super::frame`]. What is as usual is left out; a wrong sum is not usual.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xlb_common::abi::{FlowEntry, SCTP, TCP, UDP, flow_flags};
use xlb_common::checksum::checksum;

use super::flows::{FlowKey, Flows, socket};
use super::frame::{FLAG_LETTERS, mac};
use super::headers::{Layout, transport_sum};
use super::icmp;
use super::pieces::is_fragment;
use super::sctp;

/// Names of the flow maps in text, in the order of `FlowTable`.
pub const FLOW_TABLES: [&str; 6] = ["flow", "pending", "udp-flow", "udp-pending", "sctp-flow", "sctp-pending"];

const MACS: [&str; 6] = ["uplink", "router", "uplink2", "router2", "other", "all"];

/// Whether the sums of a packet are right. None: there is nothing to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// The header's, or there is none (IPv6).
    pub ip: bool,
    /// The transport's, or there is none (UDP over IPv4, SCTP).
    pub transport: bool,
}

/// The sums of a frame, computed from scratch. A fragment has only a part of what its sum is over.
#[must_use]
pub fn sums(frame: &[u8]) -> Option<Sums> {
    let layout = Layout::of(frame).filter(|_| !is_fragment(frame))?;
    let header = &frame[layout.ip_at..layout.transport_at];
    let segment = frame.get(layout.transport_at..layout.ip_at + length_of_packet(header)?)?;
    let protocol = frame[layout.protocol_at];
    let is_v4 = layout.is_v4();
    let ip = !is_v4 || checksum(0, header) == [0, 0];
    if let Some(transport) = icmp::is_sum_right(protocol, layout.addresses(frame), segment) {
        return Some(Sums { ip, transport });
    }
    if protocol == SCTP && segment.len() >= sctp::HEADERS {
        return Some(Sums { ip, transport: sctp::is_right(segment) });
    }
    let sum_at = match protocol {
        TCP if segment.len() >= 20 => 16,
        UDP if segment.len() >= 8 => 6,
        _ => return None,
    };
    let has_none = is_v4 && protocol == UDP && segment[sum_at..sum_at + 2] == [0, 0];
    let transport = has_none || transport_sum(layout.addresses(frame), protocol, segment) == [0, 0];
    Some(Sums { ip, transport })
}

/// Bytes of the packet in a frame, as its header says.
pub(super) fn length_of_packet(header: &[u8]) -> Option<usize> {
    let length = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    match header[0] {
        0x45..=0x4f => Some(length(2)),
        first if first >> 4 == 6 => Some(40 + length(4)),
        _ => None,
    }
}

/// A frame that the path served: whole headers.
#[must_use]
pub fn describe(frame: &[u8]) -> String {
    let (Some(Sums { ip, transport }), Some(layout)) = (sums(frame), Layout::of(frame)) else {
        return format!("{frame:02x?}");
    };
    if let Some(quoted) = icmp::quoted(frame) {
        let [source, destination] = layout.addresses(frame);
        let (hops, from, to) = (frame[layout.hops_at], mac_name(&frame[6..12]), mac_name(&frame[..6]));
        let kind = &frame[layout.transport_at..layout.transport_at + 2];
        let head = format!("icmp {source} {destination} {kind:?} ttl {hops} from {from} to {to}");
        let shape = shape(frame, &layout);
        return format!("{head}{shape} ip sum {ip} icmp sum {transport} quotes {}", describe(&quoted));
    }
    let [source, destination] = layout.ends(frame);
    let protocol = frame[layout.protocol_at];
    let mut text = format!("{} {source} {destination}", protocol_name(protocol));
    if protocol == SCTP {
        let _ = write!(text, " {}", sctp::name(frame[layout.transport_at + sctp::CHUNK_AT]));
    }
    if protocol == TCP {
        let flags = frame[layout.transport_at + 13];
        let letters = FLAG_LETTERS.chars().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0);
        let _ = write!(text, " {}", letters.map(|(_, letter)| letter).collect::<String>());
    }
    let (hops, from, to) = (frame[layout.hops_at], mac_name(&frame[6..12]), mac_name(&frame[..6]));
    let _ = write!(text, " ttl {hops} from {from} to {to}");
    let segment = &frame[layout.transport_at..];
    match (protocol, &segment[6..8]) {
        (UDP, [0, 0]) => text.push_str(" no-sum"),
        (UDP, [0xff, 0xff]) => text.push_str(" sum ffff"),
        (SCTP, _) if segment[sctp::SUM_AT..].starts_with(&[0; 4]) => text.push_str(" no-sum"),
        _ => {}
    }
    text.push_str(&shape(frame, &layout));
    for (is_right, what) in [(ip, "ip"), (transport, "transport")] {
        if !is_right {
            let _ = write!(text, " wrong-{what}-sum");
        }
    }
    text
}

const fn protocol_name(number: u8) -> &'static str {
    match number {
        TCP => "tcp",
        SCTP => "sctp",
        _ => "udp",
    }
}

/// Tags, and how many bytes of options or extension headers there are.
fn shape(frame: &[u8], layout: &Layout) -> String {
    let mut text = String::new();
    for tag in frame[12..layout.ip_at - 2].as_chunks::<4>().0 {
        let word = if tag[0] == 0x88 { "provider" } else { "vlan" };
        let _ = write!(text, " {word} {}", u16::from_be_bytes([tag[2], tag[3]]));
    }
    let usual = if layout.is_v4() { Layout::V4 } else { Layout::V6 };
    let between = layout.transport_at - usual.behind(layout.ip_at - usual.ip_at).transport_at;
    if between != 0 {
        let _ = write!(text, " between {between}");
    }
    text
}

/// Flows, one line each.
#[must_use]
pub fn describe_flows(flows: &Flows) -> String {
    flows.iter().map(|((table, key), entry)| describe_flow(*table, key, entry) + "\n").collect()
}

fn describe_flow(table: u8, key: &FlowKey, entry: &FlowEntry) -> String {
    let mut text = flow_words(table, key, entry);
    let _ =
        write!(text, " (service {}, backend {}, interface {})", entry.service, entry.backend, entry.ingress_ifindex);
    let _ = write!(text, " from {} to {}", mac_name(&entry.next_hop_mac), mac_name(&entry.uplink_mac));
    if !entry.tags.is_none() {
        let _ = write!(text, " tags {:02x?}", entry.tags);
    }
    text
}

/// What a row's `given` says of a flow.
#[must_use]
pub fn flow_words(table: u8, key: &FlowKey, entry: &FlowEntry) -> String {
    let [client, pod] = key.ends();
    let [a, b, c, d, ..] = entry.vip;
    let vip = match key {
        FlowKey::V4(_) => IpAddr::from(Ipv4Addr::new(a, b, c, d)),
        FlowKey::V6(_) => IpAddr::from(Ipv6Addr::from(entry.vip)),
    };
    let vip = socket(vip, entry.vip_port);
    let mut text = format!("{} {client} {pod} vip {vip}", FLOW_TABLES[usize::from(table)]);
    const FLAGS: [(u16, &str); 7] = [
        (flow_flags::STACK, " stack"),
        (flow_flags::CLOSED, " closed"),
        (flow_flags::SUPERSEDED, " superseded"),
        (flow_flags::UNSEEN, " unseen"),
        (flow_flags::POD_FIN, " pod-fin"),
        (flow_flags::ANSWERED, " answered"),
        (flow_flags::ADMITTED, " admitted"),
    ];
    for (flag, word) in FLAGS {
        text.push_str(if entry.flags & flag == 0 { "" } else { word });
    }
    if entry.client_port != [0; 2] {
        let _ = write!(text, " own-port {}", u16::from_be_bytes(entry.client_port));
    }
    if entry.flags & flow_flags::SYN_ACK_SEEN != 0 {
        let _ = write!(text, " syn-ack {}", entry.syn_ack_acknowledged);
    }
    if entry.syn_ack_number != 0 {
        let _ = write!(text, " number {}", entry.syn_ack_number);
    }
    text
}

fn mac_name(address: &[u8]) -> String {
    let pods = (1..=8).flat_map(|pod| [format!("pod{pod}"), format!("host{pod}")]);
    let mut names = MACS.into_iter().map(str::to_owned).chain(pods);
    names.find(|name| mac(name).is_ok_and(|named| named == address)).unwrap_or_else(|| format!("{address:02x?}"))
}
