//! Fragments of IP datagrams (RFC 791 chapter 3.2, RFC 8200 chapter 4.5). Only the first has the ports: it goes the way of
//! a whole packet, and records where it went. The others follow the record, and have only their addresses rewritten: the
//! first one's sum is over the whole datagram.
//!
//! | fragment | record | what becomes of it | what is written |
//! |---|---|---|---|
//! | first, from outside | none, or of an earlier datagram | as a whole packet | the pod, if one gets it; else nothing is known any more |
//! | first, from outside | left to the stack | left to the stack | - |
//! | later, from outside | the pod | to that pod | - |
//! | later, from outside | none | left to the stack | that its datagram is left to the stack |
//! | later, from outside | left to the stack | left to the stack | - |
//! | first, of a backend | any | as a whole packet of a pod | the ports |
//! | first, of a pod's other port | the ports | as a whole packet of a pod | nothing is known any more |
//! | later, of a pod | the ports | as a reply of that flow | - |
//! | later, of a pod | none | left to the stack | - |
//!
//! So the parts of a datagram are never shared out: one pod has all of them, or the stack has, and puts them together for
//! kube-proxy. A record counts for [`RECORD_NS`], as long as a host waits for the rest: identifications are used again.
//! Fragments that overlap go to one pod, whose kernel discards their datagram (RFC 5722, Linux `inet_frag_queue_insert`).

use crate::abi::{FlowEntry, FragmentEntry, TCP, fragment_kind};
use crate::admit::known_flow;
use crate::checksum::Difference;
use crate::family::{End, Family, HeaderChange};
use crate::packet::Packet;
use crate::parse::{Endpoint, wanted};
use crate::path::{Arrival, Delivery, Door, change_for, decide, deliver, enter, frontend_of, passable};
use crate::reason::Reason;
use crate::refusal::refuse;
use crate::reply::{self, after_stack, to_uplink};
use crate::rewrite::readdress_frame;
use crate::select::{Pick, backend_of, live};
use crate::stats::{count_forward, count_reply};
use crate::tables::Tables;
use crate::way;

pub use self::first::{First, Quoted};
pub use self::piece::Piece;

mod first;
pub(crate) mod piece;

/// How long a record counts: Linux waits as long for the rest of an IPv4 datagram (`IP_FRAG_TIME`).
pub const RECORD_NS: u64 = 30_000_000_000;
/// Bytes of the smallest TCP header, which a first fragment that is served has: no later one begins in it.
const TCP_HEADER: u32 = 20;

/// A packet from outside that [`Family::parse`] has called a fragment. Each part is a function: together they need more
/// than the stack of a kernel program.
#[inline(always)]
pub fn serve<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    packet.gather(headers::<F>());
    if role_from_outside::<F, P, T>(packet, tables)? == Role::Later {
        return follow::<F, P, T>(packet, tables, arrival);
    }
    let pick = decide_first::<F, P, T>(packet, tables, arrival);
    match pick.reason() {
        reason if reason.refuses() => Err(refuse_first::<F, P, T>(packet, tables, arrival, reason)),
        _ => deliver_first::<F, P, T>(packet, tables, arrival.door, pick),
    }
}

/// Bytes of a frame up to the end of a first fragment's TCP header.
const fn headers<F: Family>() -> usize {
    F::TRANSPORT_AT + F::FRAGMENT_HEADER + TCP_HEADER as usize
}

/// What a fragment is to the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It has the transport header.
    First,
    /// It has not.
    Later,
}

#[inline(never)]
fn role_from_outside<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T) -> Result<Role, Reason> {
    let piece = F::piece(packet)?;
    if piece.offset != 0 {
        return Ok(Role::Later);
    }
    if piece.has_more {
        match recorded(tables, &piece).kind {
            fragment_kind::LEFT => return Err(Reason::FragmentLeft),
            // A new datagram has the identification of an older one: nothing of it may follow that.
            kind if kind != FragmentEntry::default().kind => record(tables, &piece, FragmentEntry::default()),
            _ => {}
        }
    }
    Ok(Role::First)
}

/// As for a whole packet; without a pod, why there is none.
#[inline(never)]
fn decide_first<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T, arrival: &Arrival) -> Pick {
    let first = First::<F, P>::of(packet);
    let decided = F::parse::<_, { wanted::TCP_AND_UDP }>(&first).and_then(|parsed| decide(tables, &parsed, arrival));
    decided.map_or_else(Pick::none, |(pick, ..)| pick)
}

#[inline(never)]
fn refuse_first<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
    reason: Reason,
) -> Reason {
    refuse::<F, Quoted<'_, F, P>, T, { wanted::TCP_AND_UDP }>(&mut Quoted::of(packet), tables, arrival, reason)
}

#[inline(never)]
fn deliver_first<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    door: Door,
    pick: Pick,
) -> Result<Delivery, Reason> {
    let backend = backend_of::<F, T>(tables, &pick)?;
    let piece = F::piece(packet)?;
    let first = &mut First::<F, P>::of(packet);
    let parsed = F::parse::<_, { wanted::TCP_AND_UDP }>(first)?;
    let service = frontend_of(tables, &parsed)?.service;
    if piece.has_more {
        let (kind, (backend, generation)) = (fragment_kind::TO_POD, pick.reference());
        record(tables, &piece, FragmentEntry { kind, backend, generation, service, ..FragmentEntry::default() });
    }
    let delivery = deliver(first, &parsed, &backend, door, pick)?;
    count_forward::<F, P, T>(tables, packet, service);
    Ok(delivery)
}

/// A packet of a pod that [`Family::parse`] has called a fragment.
#[inline(always)]
pub fn reply<F: Family, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    packet.gather(headers::<F>());
    match role_from_pod::<F, P, T>(packet, tables)? {
        Role::Later => follow_reply::<F, P, T, IS_DIRECT>(packet, tables),
        Role::First => {
            reply::reply::<F, First<'_, F, P>, T, IS_DIRECT, { wanted::TCP_AND_UDP }>(&mut First::of(packet), tables)
        }
    }
}

/// A first fragment of a backend leaves its ports behind, if others follow it.
#[inline(never)]
fn role_from_pod<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Result<Role, Reason> {
    let piece = F::piece(packet)?;
    if piece.offset != 0 {
        return Ok(Role::Later);
    }
    let parsed = F::parse::<_, { wanted::TCP_AND_UDP }>(&First::<F, P>::of(packet))?;
    if !piece.has_more {
        return Ok(Role::First);
    }
    let Endpoint(pod, source_port) = parsed.source;
    if !tables.is_backend(&F::endpoint_key(pod, source_port, piece.protocol)) {
        // A client's fragment that is left to the stack may pass here on its way to another router.
        if recorded(tables, &piece).kind == fragment_kind::REPLY {
            record(tables, &piece, FragmentEntry::default());
        }
        return Ok(Role::First);
    }
    let destination_port = parsed.destination.1;
    let entry = FragmentEntry { kind: fragment_kind::REPLY, source_port, destination_port, ..FragmentEntry::default() };
    record(tables, &piece, entry);
    Ok(Role::First)
}

#[inline(always)]
pub(crate) fn record<F: Family, T: Tables<F>>(tables: &T, piece: &Piece<F>, entry: FragmentEntry) {
    let protocol = piece.protocol.into();
    tables.record_fragment(&piece.key(), &FragmentEntry { begun_ns: tables.now_ns(), protocol, ..entry });
}

/// A later fragment from outside: to the pod that the first one went to.
#[inline(never)]
fn follow<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    let piece = F::piece(packet)?;
    if !tables.is_our_mac(arrival.ifindex, piece.macs.destination) {
        return Err(Reason::OtherHost);
    }
    let record = recorded(tables, &piece);
    match record.kind {
        fragment_kind::TO_POD => check_place(&piece, &record)?,
        fragment_kind::LEFT => return Err(Reason::FragmentLeft),
        // They leave by other hooks, which need the record.
        fragment_kind::REPLY | fragment_kind::OF_LINK => return Err(Reason::Fragment),
        _ => return Err(leave(tables, &piece, arrival.door)),
    }
    let backend = live(tables, record.backend, record.generation).ok_or(Reason::Fragment)?;
    passable(arrival.door, &backend, piece.hops)?;
    enter(packet, &backend, arrival.door).ok_or(Reason::Truncated)?;
    readdress(packet, &piece, change_for(&backend)).ok_or(Reason::Truncated)?;
    count_forward::<F, P, T>(tables, packet, record.service);
    Ok(Delivery::to(&backend, Reason::FragmentFollowed))
}

/// A later fragment that nothing is known of. With tc behind it, XDP leaves the decision to tc: the first one may be on its
/// way there.
#[inline(always)]
fn leave<F: Family, T: Tables<F>>(tables: &T, piece: &Piece<F>, door: Door) -> Reason {
    if door == Door::Xdp {
        return Reason::Fragment;
    }
    record(tables, piece, FragmentEntry { kind: fragment_kind::LEFT, ..FragmentEntry::default() });
    Reason::FragmentEarly
}

/// A later fragment of a pod: as a reply of the flow that the first one belonged to.
#[inline(never)]
fn follow_reply<F: Family, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    let piece = F::piece(packet)?;
    let record = recorded(tables, &piece);
    if record.kind != fragment_kind::REPLY {
        return Err(Reason::Fragment);
    }
    check_place(&piece, &record)?;
    let key = F::flow_key((piece.destination, record.destination_port), (piece.source, record.source_port));
    let entry = known_flow(tables, record.protocol as u8, &key);
    if !entry.is_known() || entry.is_stack() == IS_DIRECT {
        return Err(Reason::Fragment);
    }
    if IS_DIRECT && piece.hops <= 1 {
        return Err(Reason::ReplyTtlExpired);
    }
    if !IS_DIRECT {
        restore(packet, &piece, &entry, false).ok_or(Reason::Truncated)?;
        count_reply::<F, P, T>(tables, packet, &entry);
        return after_stack::<F, P, T>(packet, tables, &entry, Reason::ReplyFragment);
    }
    let way = way::way_of::<F, T>(tables, &entry)?;
    if !packet.fits(way.ifindex) {
        return Err(if F::may_be_cut(packet) { Reason::ReplyNotCut } else { Reason::ReplyTooBig });
    }
    readdress_frame(packet, way.next_hop_mac, way.uplink_mac).ok_or(Reason::Truncated)?;
    restore(packet, &piece, &entry, true).ok_or(Reason::Truncated)?;
    count_reply::<F, P, T>(tables, packet, &entry);
    to_uplink(packet, way, entry.tags, Reason::ReplyFragment)
}

#[inline(always)]
fn restore<F: Family, P: Packet>(packet: &mut P, piece: &Piece<F>, entry: &FlowEntry, counts_hop: bool) -> Option<()> {
    readdress(packet, piece, HeaderChange { end: End::Source, address: F::from_stored(entry.vip), counts_hop })
}

/// What is known of the fragment's datagram; of kind zero if nothing is. No `Option`: the verifier refuses to copy what one
/// of two cases leaves open.
#[inline(always)]
pub(crate) fn recorded<F: Family, T: Tables<F>>(tables: &T, piece: &Piece<F>) -> FragmentEntry {
    let record = tables.fragment(&piece.key()).unwrap_or_default();
    // A clock that is read on another CPU may be a tick behind the record's.
    let is_young = tables.now_ns().saturating_sub(record.begun_ns) <= RECORD_NS;
    if is_young { record } else { FragmentEntry::default() }
}

/// A fragment that begins inside the header that the first one had would replace a part of it (RFC 1858, RFC 3128). UDP's
/// header is as short as an offset's unit.
#[inline(always)]
pub(crate) fn check_place<F: Family>(piece: &Piece<F>, record: &FragmentEntry) -> Result<(), Reason> {
    let is_inside = record.protocol == u16::from(TCP) && piece.offset < TCP_HEADER;
    if is_inside { Err(Reason::Malformed) } else { Ok(()) }
}

/// Gives a later fragment a new address. An IPv6 header has no sum of its own, so none takes the change up.
#[inline(always)]
pub(crate) fn readdress<F: Family, P: Packet>(packet: &mut P, piece: &Piece<F>, change: HeaderChange<F>) -> Option<()> {
    let old = match change.end {
        End::Source => piece.source,
        End::Destination => piece.destination,
    };
    F::store_header(packet, &piece.as_parsed(), change)?;
    if !F::HAS_HEADER_SUM {
        let fewer = piece.hops.wrapping_sub(u8::from(change.counts_hop));
        let hops = Difference::of_word([0, piece.hops], [0, fewer]);
        packet.note_change(F::difference(old, change.address).plus(hops));
    }
    Some(())
}
