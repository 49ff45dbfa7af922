//! Ping: an ICMP echo request to a VIP that has a usable backend is answered here, as a VIP is on no interface whose host
//! could (RFC 792; RFC 4443 chapter 4). The answer is the packet itself, turned around.

use crate::abi::vip_flags;
use crate::budget::Spending;
use crate::checksum::{Difference, TransportChange};
use crate::errors::Quoting;
use crate::packet::Packet;
use crate::path::Arrival;
use crate::reason::Reason;
use crate::refusal::{HOPS, has_one_sender};
use crate::rewrite::readdress_frame;
use crate::tables::Tables;

/// Bytes of an echo message in front of its data.
const HEADER_LENGTH: u32 = 8;

/// Whether the ICMP packet is an echo request, with all of its header.
#[inline(always)]
pub fn is_request<F: Quoting, P: Packet>(packet: &P) -> bool {
    let header = packet.load::<{ HEADER_LENGTH as usize }>(F::TRANSPORT_AT);
    header.is_some_and(|[kind, code, ..]| [kind, code] == [F::ECHO_REQUEST, 0])
}

/// Answers the request, if it is to a VIP that has somebody behind it, and may be answered now.
#[inline(never)]
pub fn answer<F: Quoting, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, arrival: &Arrival) -> Reason {
    if !tables.settings().answers_echo() {
        return Reason::Icmp;
    }
    let Some((outer, payload)) = F::outer(packet) else { return Reason::Truncated };
    if payload < HEADER_LENGTH {
        return Reason::Malformed;
    }
    let Some(vip) = tables.vip(outer.destination.0) else { return Reason::Icmp };
    if !tables.is_our_mac(arrival.ifindex, outer.macs.destination) {
        return Reason::OtherHost;
    }
    if vip & vip_flags::USABLE == 0 {
        return Reason::EchoUnanswered;
    }
    if !has_one_sender(&outer) || !tables.may_spend(Spending::Echo) {
        return Reason::EchoSuppressed;
    }
    turn_around::<F, P>(packet).map_or(Reason::Truncated, |()| Reason::EchoAnswered)
}

/// The request becomes the reply; sums that were wrong stay wrong.
#[inline(always)]
fn turn_around<F: Quoting, P: Packet>(packet: &mut P) -> Option<()> {
    let macs = crate::parse::macs(packet).ok()?;
    let hops = F::exchange_ends(packet, HOPS)?;
    packet.store(F::TRANSPORT_AT, [F::ECHO_REPLY])?;
    readdress_frame(packet, macs.source, macs.destination)?;
    let ports = Difference::of_word([F::ECHO_REQUEST, 0], [F::ECHO_REPLY, 0]);
    let change = TransportChange { ports, has_header_sum: F::HAS_HEADER_SUM, ..TransportChange::default() };
    let sum_at = F::TRANSPORT_AT + 2;
    packet.follow(sum_at, change)?;
    packet.note_change(hops);
    // Both are zero in one's complement, but over a message of zeros only the second is right.
    if packet.load::<2>(sum_at)? == [0, 0] { packet.store(sum_at, [0xff, 0xff]) } else { Some(()) }
}
