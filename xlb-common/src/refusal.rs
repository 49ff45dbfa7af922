//! "Port unreachable": what the client of a service hears that has no usable pod in the whole cluster, and if the operator
//! says so, that of a VIP's port that no service has.
//!
//! The report is made of the packet itself: its head is quoted, its ends are exchanged, and it goes back by the interface
//! and to the MAC that it came from. kube-proxy answers TCP in the same way; a client that connects takes it for "refused".
//! TCP may be told by a reset instead ([`reset`]).

use crate::budget::Spending;
use crate::checksum::Sum;
use crate::family::{Family, V4, V6};
use crate::packet::Packet;
use crate::parse::{ETHER_TYPE_AT, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_LENGTH, Parsed, macs, wanted};
use crate::path::Arrival;
use crate::reason::Reason;
use crate::rewrite::readdress_frame;
use crate::tables::Tables;

pub mod reset;

/// TTL and hop limit of an answer.
pub(crate) const HOPS: u8 = 64;
/// Length of an ICMP header.
const ICMP_LENGTH: usize = 8;

mod v4 {
    /// Internetwork control, the precedence of ICMP errors (RFC 1812 chapter 4.3.2.5).
    pub const TYPE_OF_SERVICE: u8 = 0xc0;
    /// Never fragmented, so the identification may be zero (RFC 6864).
    pub const DONT_FRAGMENT: u8 = 0x40;
    /// Type destination unreachable, code port unreachable (RFC 792).
    pub const PORT_UNREACHABLE: [u8; 2] = [3, 3];
    pub const HEADER_LENGTH: usize = 20;
}

mod v6 {
    /// Type destination unreachable, code port unreachable (RFC 4443 chapter 3.1).
    pub const PORT_UNREACHABLE: [u8; 2] = [1, 4];
    pub const HEADER_LENGTH: usize = 40;
}

/// Bytes that are quoted behind the IP header. RFC 1812 and RFC 4443 ask for as much as fits; what a sender needs is enough
/// to find its socket, and a constant length is what the verifier needs.
pub mod quoted {
    /// Ports, and TCP's sequence number (RFC 792). Every packet that was parsed is so long.
    pub const USUAL: usize = 8;
    /// SCTP's common header and an INIT up to its initiate tag: by that alone a client tells an error about its own INIT
    /// from a forged one (RFC 9260 chapter 10). A packet that asks for an association and is shorter is not answered.
    pub const SCTP: usize = 20;
}

/// Answers the packet, if it may be answered now: then `reason` is why, and it was that before. It is parsed once more: this way is rare, and costs the other one
/// nothing.
#[inline(never)]
pub fn refuse<F: Family, P: Packet, T: Tables<F>, const WANTED: u8>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
    reason: Reason,
) -> Reason {
    let Ok(parsed) = F::parse::<P, WANTED>(packet) else { return Reason::RejectSuppressed };
    if !has_one_sender(&parsed) || !tables.may_spend(Spending::Refusal) {
        return Reason::RejectSuppressed;
    }
    if WANTED == wanted::TCP_AND_UDP && !parsed.transport.is_udp() && tables.settings().resets_tcp() {
        return F::reset(packet).map_or(Reason::RejectSuppressed, |()| reason);
    }
    let reporter = tables.report_address(arrival.ifindex).unwrap_or(parsed.destination.0);
    let reported = if WANTED == wanted::SCTP {
        F::report_unreachable::<P, { quoted::SCTP }>(packet, reporter)
    } else {
        F::report_unreachable::<P, { quoted::USUAL }>(packet, reporter)
    };
    match reported {
        Some(()) => reason,
        None => Reason::RejectSuppressed,
    }
}

/// Whether one host sent the packet, to this one alone: all others must not be answered (RFC 1122 chapter 3.2.2).
#[inline(always)]
pub(crate) fn has_one_sender<F: Family>(parsed: &Parsed<F>) -> bool {
    let is_group = |mac: [u8; 6]| mac[0] & 1 != 0;
    F::is_unicast(parsed.source.0) && !is_group(parsed.macs.source) && !is_group(parsed.macs.destination)
}

/// Makes an IPv4 packet its own report, which quotes `QUOTED` bytes behind the header. None if it is shorter, or cannot be
/// given the report's length.
#[inline(never)]
pub fn report_v4<P: Packet, const QUOTED: usize>(packet: &mut P, reporter: [u8; 4]) -> Option<()> {
    const MESSAGE_AT: usize = ETHERNET_LENGTH + v4::HEADER_LENGTH;
    let length = 2 * v4::HEADER_LENGTH + ICMP_LENGTH + QUOTED;
    let macs = macs(packet).ok()?;
    let header = packet.load::<{ v4::HEADER_LENGTH }>(ETHERNET_LENGTH)?;
    let rest = packet.load::<QUOTED>(MESSAGE_AT)?;
    let [_, _, _, sender, _]: [[u8; 4]; v4::HEADER_LENGTH / 4] = bytemuck::cast(header);
    packet.renew(ETHERNET_LENGTH + length)?;
    packet.store(ETHER_TYPE_AT, ETHER_TYPE_IPV4)?;
    let [l0, l1] = (length as u16).to_be_bytes();
    let first = [0x45, v4::TYPE_OF_SERVICE, l0, l1, 0, 0, v4::DONT_FRAGMENT, 0, HOPS, V4::ICMP];
    packet.store(ETHERNET_LENGTH, first)?;
    packet.store(ETHERNET_LENGTH + 10, Sum::of(first).and(reporter).and(sender).checksum())?;
    packet.store(ETHERNET_LENGTH + 12, reporter)?;
    packet.store(ETHERNET_LENGTH + 16, sender)?;
    packet.store(MESSAGE_AT + ICMP_LENGTH, header)?;
    packet.store(MESSAGE_AT + ICMP_LENGTH + v4::HEADER_LENGTH, rest)?;
    store_message(packet, MESSAGE_AT, v4::PORT_UNREACHABLE, Sum::of(header).and(rest))?;
    readdress_frame(packet, macs.source, macs.destination)
}

/// Makes an IPv6 packet its own report, as [`report_v4`] does.
#[inline(never)]
pub fn report_v6<P: Packet, const QUOTED: usize>(packet: &mut P, reporter: [u8; 16]) -> Option<()> {
    const MESSAGE_AT: usize = ETHERNET_LENGTH + v6::HEADER_LENGTH;
    let payload = ICMP_LENGTH + v6::HEADER_LENGTH + QUOTED;
    let macs = macs(packet).ok()?;
    let header = packet.load::<{ v6::HEADER_LENGTH }>(ETHERNET_LENGTH)?;
    let rest = packet.load::<QUOTED>(MESSAGE_AT)?;
    let [_, s0, s1, ..]: [[u8; 8]; v6::HEADER_LENGTH / 8] = bytemuck::cast(header);
    let sender: [u8; 16] = bytemuck::cast([s0, s1]);
    packet.renew(MESSAGE_AT + payload)?;
    packet.store(ETHER_TYPE_AT, ETHER_TYPE_IPV6)?;
    let [l0, l1] = (payload as u16).to_be_bytes();
    packet.store(ETHERNET_LENGTH, [0x60, 0, 0, 0, l0, l1, V6::ICMP, HOPS])?;
    packet.store(ETHERNET_LENGTH + 8, reporter)?;
    packet.store(ETHERNET_LENGTH + 24, sender)?;
    packet.store(MESSAGE_AT + ICMP_LENGTH, header)?;
    packet.store(MESSAGE_AT + ICMP_LENGTH + v6::HEADER_LENGTH, rest)?;
    // The pseudo-header (RFC 8200 chapter 8.1): addresses, length, next header.
    let pseudo_header = Sum::of(reporter).and(sender).and([l0, l1]).and([0, V6::ICMP]);
    store_message(packet, MESSAGE_AT, v6::PORT_UNREACHABLE, pseudo_header.and(header).and(rest))?;
    readdress_frame(packet, macs.source, macs.destination)
}

/// The ICMP header, with a checksum over it and `sum`.
#[inline(always)]
fn store_message<P: Packet>(packet: &mut P, at: usize, [kind, code]: [u8; 2], sum: Sum) -> Option<()> {
    let [s0, s1] = sum.and([kind, code]).checksum();
    packet.store(at, [kind, code, s0, s1, 0, 0, 0, 0])
}
