//! Fragments of flows of clients at links. The first one, which has the ports, fares as a whole packet, and records them; the
//! others follow the flow, and have only their addresses rewritten. One that comes before the first is left to the stack:
//! between a pod and its link nothing changes the order.

use super::{Link, LinkTables, as_answer, decide, direct, heard_from, is_directed, key, peer_of, restore_in};
use crate::abi::{FragmentEntry, LinkFlowKey, fragment_kind};
use crate::family::{End, Family, HeaderChange, V4, V6};
use crate::fragments::{First, Piece, Quoted, check_place, readdress, record, recorded};
use crate::inside::service_of;
use crate::packet::Packet;
use crate::parse::{Endpoint, EtherType, ether_type, wanted};
use crate::path::{Arrival, Door};
use crate::reason::Reason;
use crate::refusal::refuse;

/// A fragment that a pod sent, perhaps to a VIP. None: it is of no known flow to a service, and as it was.
#[inline(always)]
pub fn serve<P: Packet, T: LinkTables<V4> + LinkTables<V6>>(packet: &mut P, tables: &T, link: Link) -> Option<Reason> {
    match ether_type(packet).ok()? {
        EtherType::V4 => serve_in::<V4, P, T>(packet, tables, &link),
        EtherType::V6 => serve_in::<V6, P, T>(packet, tables, &link),
        EtherType::Other => None,
    }
}

/// A fragment that goes into a pod, perhaps of an answer to a client there. None as above.
#[inline(always)]
pub fn restore<P: Packet, T: LinkTables<V4> + LinkTables<V6>>(packet: &mut P, tables: &T) -> Option<Reason> {
    match ether_type(packet).ok()? {
        EtherType::V4 => restore_fragment::<V4, P, T>(packet, tables),
        EtherType::V6 => restore_fragment::<V6, P, T>(packet, tables),
        EtherType::Other => None,
    }
}

#[inline(always)]
fn serve_in<F: Family, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T, link: &Link) -> Option<Reason> {
    if offset::<F, P>(packet)? != 0 {
        return follow::<F, P, T>(packet, tables, End::Destination);
    }
    // It is recorded before its addresses change, as the others have those that it had.
    record_first::<F, P, T>(packet, tables, End::Destination);
    let mut to = Endpoint(F::from_stored([0; 16]), [0; 2]);
    match decide(&First::<F, P>::of(packet), tables, link, &mut to)? {
        Reason::LinkRejected => Some(refuse_first::<F, P, T>(packet, tables, link)),
        reason if is_directed(reason) => Some(direct(&mut First::<F, P>::of(packet), &to, reason)),
        reason => Some(reason),
    }
}

#[inline(always)]
fn restore_fragment<F: Family, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T) -> Option<Reason> {
    if offset::<F, P>(packet)? != 0 {
        return follow::<F, P, T>(packet, tables, End::Source);
    }
    record_first::<F, P, T>(packet, tables, End::Source);
    restore_in::<F, First<'_, F, P>, T>(&mut First::of(packet), tables)
}

#[inline(never)]
fn offset<F: Family, P: Packet>(packet: &P) -> Option<u32> {
    F::piece(packet).ok().map(|piece| piece.offset)
}

#[inline(never)]
fn refuse_first<F: Family, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T, link: &Link) -> Reason {
    let arrival = Arrival::at(Door::Tc, link.ifindex);
    refuse::<F, Quoted<'_, F, P>, T, { wanted::TCP_AND_UDP }>(
        &mut Quoted::of(packet),
        tables,
        &arrival,
        Reason::LinkRejected,
    )
}

/// A first fragment that is for a service, or of a known flow from an endpoint, leaves its ports behind, if others follow it:
/// nobody else's take room of what is recorded.
#[inline(never)]
fn record_first<F: Family, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T, end: End) {
    let Ok(parsed) = F::parse::<_, { wanted::TCP_AND_UDP }>(&First::<F, P>::of(packet)) else { return };
    let is_ours = match end {
        End::Destination => service_of(tables, parsed.destination.pair(), parsed.transport.number()).is_some(),
        End::Source => peer_of::<F, T>(tables, &heard_from(&parsed)).is_some(),
    };
    if is_ours {
        record_ports::<F, P, T>(packet, tables, parsed.source.1, parsed.destination.1);
    }
}

#[inline(never)]
fn record_ports<F: Family, P: Packet, T: LinkTables<F>>(
    packet: &P,
    tables: &T,
    source_port: [u8; 2],
    destination_port: [u8; 2],
) {
    let Ok(piece) = F::piece(packet) else { return };
    if piece.has_more {
        let kind = fragment_kind::OF_LINK;
        record(tables, &piece, FragmentEntry { kind, source_port, destination_port, ..FragmentEntry::default() });
    }
}

/// A later fragment: the end that the first one's flow changed changes.
#[inline(never)]
fn follow<F: Family, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T, end: End) -> Option<Reason> {
    let piece = F::piece(packet).ok()?;
    let record = recorded(tables, &piece);
    if record.kind != fragment_kind::OF_LINK || check_place(&piece, &record).is_err() {
        return None;
    }
    let reason = if end == End::Source { Reason::LinkReplied } else { Reason::LinkFollowed };
    let key = flow_key(&piece, &record, end);
    let Endpoint(address, _) = peer_of::<F, T>(tables, &key)?;
    let change = HeaderChange { end, address, counts_hop: false };
    Some(readdress(packet, &piece, change).map_or(Reason::Truncated, |()| reason))
}

/// Key of the flow, with the client at the end that does not change.
#[inline(always)]
fn flow_key<F: Family>(piece: &Piece<F>, record: &FragmentEntry, end: End) -> LinkFlowKey {
    let source = (piece.source, record.source_port);
    let destination = (piece.destination, record.destination_port);
    match end {
        End::Destination => key::<F>(piece.protocol, source, destination),
        End::Source => as_answer(key::<F>(piece.protocol, destination, source)),
    }
}
