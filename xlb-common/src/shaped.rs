//! Packets of another shape than the usual one: with VLAN tags, IPv4 options, or IPv6 extension headers. Measured once, they
//! take the same way as all others, through a view ([`Shifted`]): the usual program keeps its constant offsets.
//!
//! A pod's link has no VLANs. So a packet loses its tags when, and only when, it is handed to a pod's link; its reply regains
//! them from the flow's entry. Through the host's stack it keeps them.

use crate::echo;
use crate::errors::Quoting;
use crate::family::Family;
use crate::packet::Packet;
use crate::parse::{EtherType, ether_type, wanted};
use crate::path::{Arrival, Delivery, Door, decide, deliver, frontend_of};
use crate::reason::Reason;
use crate::refusal::refuse;
use crate::reply;
use crate::select::{Pick, backend_of};
use crate::shape::{Shape, is_tagged, tags_of};
use crate::shifted::Shifted;
use crate::stats::count_forward;
use crate::tables::Tables;
use crate::twin;

/// Why XDP leaves such a packet alone: tc serves it, if it is behind.
#[inline(always)]
pub fn left_by_xdp<P: Packet>(packet: &P, door: Door) -> Reason {
    match ether_type(packet) {
        Ok(EtherType::Other) if !is_tagged(packet) => Reason::NotIp,
        Ok(_) if door == Door::Xdp => Reason::LeftToTc,
        Ok(EtherType::V4) => Reason::IpOptions,
        Ok(EtherType::V6) => Reason::ExtensionHeaders,
        Ok(EtherType::Other) => Reason::NotIp,
        Err(reason) => reason,
    }
}

/// A packet from outside that is served, or refused by an answer. Deciding and delivering are two functions: with offsets
/// that vary they do not fit one stack together with those that they call.
#[inline(always)]
pub fn serve<F: Quoting, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
    shape: Shape,
) -> Result<Delivery, Reason> {
    let arrival = &Arrival { tags: tags_of(packet, shape), ..*arrival };
    let pick = decide_shaped::<F, P, T>(packet, tables, arrival, shape);
    if pick.reason() == Reason::Icmp {
        return Err(answer_shaped::<F, P, T>(packet, tables, arrival, shape));
    }
    let verdict = if pick.reason() == Reason::OtherFrontend {
        twin::serve::<F, _, T>(&mut Shifted::<F, P>::of(packet, shape), tables, arrival)
    } else {
        deliver_shaped::<F, P, T>(packet, tables, arrival.door, shape, pick)
    };
    let delivery = match verdict {
        Err(reason) if reason.refuses() => {
            return Err(refuse_shaped::<F, P, T>(packet, tables, arrival, shape, reason));
        }
        verdict => verdict?,
    };
    if delivery.to.is_some() && !untag(packet, shape) { Err(Reason::TagsNotMoved) } else { Ok(delivery) }
}

#[inline(never)]
fn decide_shaped<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
    shape: Shape,
) -> Pick {
    let parsed = F::parse::<_, { wanted::TCP_AND_UDP }>(&Shifted::<F, P>::of(packet, shape));
    let decided = parsed.and_then(|parsed| decide(tables, &parsed, arrival));
    decided.map_or_else(Pick::none, |(pick, ..)| pick)
}

#[inline(never)]
fn deliver_shaped<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    door: Door,
    shape: Shape,
    pick: Pick,
) -> Result<Delivery, Reason> {
    let backend = backend_of::<F, T>(tables, &pick)?;
    let packet = &mut Shifted::<F, P>::of(packet, shape);
    let parsed = F::parse::<_, { wanted::TCP_AND_UDP }>(packet)?;
    let service = frontend_of(tables, &parsed)?.service;
    let delivery = deliver(packet, &parsed, &backend, door, pick)?;
    count_forward::<F, _, T>(tables, packet, service);
    Ok(delivery)
}

/// Whether the packet has lost its tags.
#[inline(never)]
fn untag<P: Packet>(packet: &mut P, shape: Shape) -> bool {
    packet.untag(shape.tags()).is_some()
}

/// An echo request keeps its shape as it becomes the reply: its tags lead back to where it came from.
#[inline(never)]
fn answer_shaped<F: Quoting, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
    shape: Shape,
) -> Reason {
    let packet = &mut Shifted::<F, P>::of(packet, shape);
    if echo::is_request::<F, _>(packet) { echo::answer::<F, _, T>(packet, tables, arrival) } else { Reason::Icmp }
}

/// The answer is made of the packet without its tags, and regains them. A header with options would have to be quoted
/// with them: such a packet is not answered.
#[inline(never)]
fn refuse_shaped<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
    shape: Shape,
    reason: Reason,
) -> Reason {
    if shape.between().length != 0 {
        return Reason::RejectSuppressed;
    }
    let tags = tags_of(packet, shape);
    if !untag(packet, shape) {
        return Reason::TagsNotMoved;
    }
    let reason = refuse::<F, P, T, { wanted::TCP_AND_UDP }>(packet, tables, arrival, reason);
    if reason.refuses() && packet.tag(tags).is_none() { Reason::TagsNotMoved } else { reason }
}

/// A packet that a pod sent. On a pod's link (`IS_DIRECT`) a tag would be one of the pod's choice, in the uplink's network.
#[inline(always)]
pub fn reply<F: Family, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
    shape: Shape,
) -> Result<Delivery, Reason> {
    if IS_DIRECT && (shape.tags() != 0 || packet.has_tag_beside()) {
        return Err(Reason::NotIp);
    }
    reply_shaped::<F, P, T, IS_DIRECT>(packet, tables, shape)
}

#[inline(never)]
fn reply_shaped<F: Family, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
    shape: Shape,
) -> Result<Delivery, Reason> {
    reply::reply::<F, _, T, IS_DIRECT, { wanted::TCP_AND_UDP }>(&mut Shifted::<F, P>::of(packet, shape), tables)
}
