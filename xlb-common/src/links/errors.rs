//! ICMP errors about flows of clients at links: path MTU discovery, and "connection refused". The quote becomes the packet
//! that the error's receiver sent, as in [`errors`](crate::errors).

use super::{LinkTables, as_answer, key, peer_of};
use crate::errors::{Quote, Quoting, quote, translate};
use crate::family::{End, HeaderChange, V4, V6};
use crate::packet::Packet;
use crate::parse::{Endpoint, EtherType, Parsed, ether_type};
use crate::reason::Reason;
use crate::rewrite::Ports;

/// An error that a pod sent to a VIP, about an answer: it becomes the endpoint's, about what that has sent. None: it is about
/// no such flow, or no error, and as it was.
#[inline(always)]
pub fn serve<P: Packet, T: LinkTables<V4> + LinkTables<V6>>(packet: &mut P, tables: &T) -> Option<Reason> {
    match ether_type(packet).ok()? {
        EtherType::V4 => serve_in::<V4, P, T>(packet, tables),
        EtherType::V6 => serve_in::<V6, P, T>(packet, tables),
        EtherType::Other => None,
    }
}

/// An error on its way into a pod, about a packet that became an endpoint's: it is about the packet to the VIP again, and from
/// the VIP if the endpoint has sent it. None as above.
#[inline(always)]
pub fn restore<P: Packet, T: LinkTables<V4> + LinkTables<V6>>(packet: &mut P, tables: &T) -> Option<Reason> {
    match ether_type(packet).ok()? {
        EtherType::V4 => restore_in::<V4, P, T>(packet, tables),
        EtherType::V6 => restore_in::<V6, P, T>(packet, tables),
        EtherType::Other => None,
    }
}

#[inline(never)]
fn serve_in<F: Quoting, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T) -> Option<Reason> {
    let (outer, quote) = read::<F, P>(packet)?;
    if outer.destination.0 != quote.source.0 {
        return None;
    }
    let sent_to = key::<F>(quote.transport.number(), quote.destination.pair(), quote.source.pair());
    let endpoint: Endpoint<F> = peer_of(tables, &sent_to)?;
    let change = HeaderChange { end: End::Destination, address: endpoint.0, counts_hop: false };
    Some(
        translate(packet, &outer, change, &quote, (endpoint.0, Ports::of_end(endpoint.1)))
            .map_or(Reason::Truncated, |()| Reason::LinkError),
    )
}

#[inline(never)]
fn restore_in<F: Quoting, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T) -> Option<Reason> {
    let (outer, quote) = read::<F, P>(packet)?;
    if outer.destination.0 != quote.source.0 {
        return None;
    }
    let heard_from = as_answer(key::<F>(quote.transport.number(), quote.source.pair(), quote.destination.pair()));
    let vip: Endpoint<F> = peer_of(tables, &heard_from)?;
    let is_of_endpoint = outer.source.0 == quote.destination.0;
    let address = if is_of_endpoint { vip.0 } else { outer.source.0 };
    let change = HeaderChange { end: End::Source, address, counts_hop: false };
    Some(
        translate(packet, &outer, change, &quote, (vip.0, Ports::of_end(vip.1)))
            .map_or(Reason::Truncated, |()| Reason::LinkError),
    )
}

/// The packet that carries an error, and what that quotes.
#[inline(always)]
fn read<F: Quoting, P: Packet>(packet: &mut P) -> Option<(Parsed<F>, Quote<F>)> {
    packet.gather(F::READ_MAX);
    let (outer, payload) = F::outer(packet)?;
    let quote = quote::<F, P>(packet, payload).ok()?;
    Some((outer, quote))
}
