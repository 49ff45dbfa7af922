//! What becomes of packets to a port of a VIP that no service has.
//!
//! By default they are passed on, as kube-proxy would do: the host may have something there. What the host's stack would
//! then send back to the router it came from ends at the uplink's egress, so that no packet circles until its TTL ends.

use crate::family::Family;
use crate::packet::Packet;
use crate::parse::{ETHER_TYPE_AT, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, Parsed};
use crate::path::Arrival;
use crate::reason::Reason;
use crate::select::opens_flow;
use crate::tables::Tables;
use crate::{V4, V6};

/// Why a packet without a frontend goes where it goes. Only what begins a flow is refused.
#[inline(never)]
pub fn unowned<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, arrival: &Arrival) -> Reason {
    let settings = tables.settings();
    if !settings.stops_unowned() || tables.vip(parsed.destination.0).is_none() {
        return Reason::NotOurs;
    }
    if !tables.is_our_mac(arrival.ifindex, parsed.macs.destination) {
        return Reason::OtherHost;
    }
    if settings.rejects_unowned() && opens_flow(parsed) { Reason::UnownedRejected } else { Reason::UnownedDropped }
}

/// Whether the frame's destination is a VIP. Asked of what came by an uplink and leaves by one after the host's stack: had
/// anybody on this node wanted it, it would have another destination by now.
#[inline(always)]
pub fn is_to_vip<P: Packet, T: Tables<V4> + Tables<V6>>(packet: &P, tables: &T) -> bool {
    match packet.load::<2>(ETHER_TYPE_AT) {
        Some(ETHER_TYPE_IPV4) => leads_to_vip::<V4, P, T>(packet, tables),
        Some(ETHER_TYPE_IPV6) => leads_to_vip::<V6, P, T>(packet, tables),
        _ => false,
    }
}

#[inline(always)]
fn leads_to_vip<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) -> bool {
    F::destination(packet).is_some_and(|address| tables.vip(address).is_some())
}
