//! Packets and flows to text, in the words of [`super::frame`]. What is as usual is left out; a wrong sum is not usual.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use xlb_common::abi::{FlowEntry, FlowKeyV4, TCP, UDP, flow_flags};
use xlb_common::checksum::checksum;

use super::frame::{FLAG_LETTERS, mac, transport_sum};
use super::kernel_maps::Flows;

/// Names of the flow maps in text, in the order of `FlowTable`.
pub const FLOW_TABLES: [&str; 4] = ["flow", "pending", "udp-flow", "udp-pending"];

const MACS: [&str; 4] = ["uplink", "router", "other", "all"];

/// Whether the sums of an IPv4 packet without options are right. None: there is nothing to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// The header's.
    pub ip: bool,
    /// The transport's, or there is none (UDP).
    pub transport: bool,
}

/// The sums of a frame, computed from scratch.
#[must_use]
pub fn sums(frame: &[u8]) -> Option<Sums> {
    let header = frame.get(14..34).filter(|header| frame[12..14] == [8, 0] && header[0] == 0x45)?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let segment = frame.get(34..14 + total)?;
    let sum_at = match header[9] {
        TCP if segment.len() >= 20 => 16,
        UDP if segment.len() >= 8 => 6,
        _ => return None,
    };
    let addresses: [[u8; 4]; 2] = bytemuck::pod_read_unaligned(&header[12..20]);
    let has_none = header[9] == UDP && segment[sum_at..sum_at + 2] == [0, 0];
    let transport = has_none || transport_sum(addresses[0], addresses[1], header[9], segment) == [0, 0];
    Some(Sums { ip: checksum(0, header) == [0, 0], transport })
}

/// A frame that the path served: whole headers, without options.
#[must_use]
pub fn describe(frame: &[u8]) -> String {
    let Some(Sums { ip, transport }) = sums(frame) else { return format!("{frame:02x?}") };
    let end = |address: usize, port: usize| {
        let address: [u8; 4] = bytemuck::pod_read_unaligned(&frame[address..address + 4]);
        SocketAddrV4::new(Ipv4Addr::from(address), u16::from_be_bytes([frame[port], frame[port + 1]]))
    };
    let is_tcp = frame[23] == TCP;
    let mut text = format!("{} {} {}", if is_tcp { "tcp" } else { "udp" }, end(26, 34), end(30, 36));
    if is_tcp {
        let letters = FLAG_LETTERS.chars().enumerate().filter(|(bit, _)| frame[47] & (1 << bit) != 0);
        let _ = write!(text, " {}", letters.map(|(_, letter)| letter).collect::<String>());
    }
    let _ = write!(text, " ttl {} from {} to {}", frame[22], mac_name(&frame[6..12]), mac_name(&frame[..6]));
    if !is_tcp && (frame[40..42] == [0, 0] || frame[40..42] == [0xff, 0xff]) {
        let _ = write!(text, " {}", if frame[40] == 0 { "no-sum" } else { "sum ffff" });
    }
    for (is_right, what) in [(ip, "ip"), (transport, "transport")] {
        if !is_right {
            let _ = write!(text, " wrong-{what}-sum");
        }
    }
    text
}

/// Flows, one line each.
#[must_use]
pub fn describe_flows(flows: &Flows) -> String {
    flows.iter().map(|((table, key), entry)| describe_flow(*table, key, entry) + "\n").collect()
}

fn describe_flow(table: u8, key: &FlowKeyV4, entry: &FlowEntry) -> String {
    let end = |address: [u8; 4], port: [u8; 2]| SocketAddrV4::new(Ipv4Addr::from(address), u16::from_be_bytes(port));
    let vip = [entry.vip[0], entry.vip[1], entry.vip[2], entry.vip[3]];
    let mut text = format!(
        "{} {} {} vip {}",
        FLOW_TABLES[usize::from(table)],
        end(key.client, key.client_port),
        end(key.pod, key.pod_port),
        end(vip, entry.vip_port)
    );
    for (flag, word) in [(flow_flags::STACK, " stack"), (flow_flags::CLOSED, " closed")] {
        text.push_str(if entry.flags & flag == 0 { "" } else { word });
    }
    if entry.flags & flow_flags::SYN_ACK_SEEN != 0 {
        let _ = write!(text, " syn-ack {}", entry.syn_ack_acknowledged);
    }
    let _ =
        write!(text, " (service {}, backend {}, interface {})", entry.service, entry.backend, entry.ingress_ifindex);
    let _ = write!(text, " from {} to {}", mac_name(&entry.next_hop_mac), mac_name(&entry.uplink_mac));
    text
}

fn mac_name(address: &[u8]) -> String {
    let pods = (1..=8).flat_map(|pod| [format!("pod{pod}"), format!("host{pod}")]);
    let mut names = MACS.into_iter().map(str::to_owned).chain(pods);
    names.find(|name| mac(name).is_ok_and(|named| named == address)).unwrap_or_else(|| format!("{address:02x?}"))
}
