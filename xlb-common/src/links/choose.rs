//! To which endpoint a packet of a client at a link goes: steps 1 to 10 of [`links`](crate::links).

use super::{Link, LinkTables, as_answer, is_directed, key, peer_of, sent_to};
use crate::abi::{Inside, InsideAffinity, InsideFlow, LinkFlowKey, inside_flags};
use crate::family::Family;
use crate::inside::NS_PER_S;
use crate::inside::parts::{self, Part};
use crate::parse::{Endpoint, Parsed};
use crate::reason::Reason;
use crate::stats::count_inside;

/// What becomes of the packet; if it goes to an endpoint, `to` is that one. What a new flow needs is in functions of its
/// own: their keys and values do not fit one stack together.
#[inline(never)]
pub(super) fn choose<F: Family, T: LinkTables<F>>(
    tables: &T,
    service: &Inside,
    parsed: &Parsed<F>,
    link: &Link,
    to: &mut Endpoint<F>,
) -> Reason {
    let known = find_known(tables, parsed, to);
    let is_udp = parsed.transport.is_udp();
    if known && goes_on(tables, service, parsed, to) {
        return Reason::LinkFollowed;
    }
    if !is_udp && !parsed.transport.is_syn() {
        return Reason::LinkUnknown;
    }
    if service.flags & inside_flags::SOURCE_RANGES != 0 && !tables.is_allowed_source(service.service, parsed.source.0) {
        return Reason::LinkNotAllowed;
    }
    if service.endpoints == 0 {
        return Reason::LinkRejected;
    }
    let part = parts::usable(service, true);
    if part.count == 0 {
        return Reason::LinkNotLocal;
    }
    if known && !is_udp && parts::has(tables, part, &to.pair()) {
        return Reason::LinkFollowed;
    }
    let is_affine = service.affinity_s != 0 && find_last(tables, service, part, parsed, to);
    let reason = if is_affine { Reason::LinkAffine } else { pick_any(tables, part, parsed, link.random, to) };
    if is_directed(reason) {
        begin(tables, service, parsed, link.ifindex, to);
    }
    reason
}

/// Whether the packet's flow is known; then `to` is its endpoint.
#[inline(never)]
fn find_known<F: Family, T: LinkTables<F>>(tables: &T, parsed: &Parsed<F>, to: &mut Endpoint<F>) -> bool {
    match peer_of(tables, &sent_to(parsed)) {
        Some(endpoint) => {
            *to = endpoint;
            true
        }
        None => false,
    }
}

/// Steps 1 and 2: whether a packet of a known flow opens nothing.
#[inline(always)]
fn goes_on<F: Family, T: LinkTables<F>>(
    tables: &T,
    service: &Inside,
    parsed: &Parsed<F>,
    endpoint: &Endpoint<F>,
) -> bool {
    match parsed.transport.is_udp() {
        true => parts::serves(tables, service, &endpoint.pair()),
        false => !parsed.transport.is_syn(),
    }
}

/// Step 8: the endpoint of the client's last connection, while the record counts (semantics 9.3).
#[inline(always)]
fn find_last<F: Family, T: LinkTables<F>>(
    tables: &T,
    service: &Inside,
    part: Part,
    parsed: &Parsed<F>,
    to: &mut Endpoint<F>,
) -> bool {
    read_last(tables, service, parsed, to) && parts::has(tables, part, &to.pair())
}

/// Whether the client's last connection is recorded and not too long ago; then `to` is where it went.
#[inline(never)]
fn read_last<F: Family, T: LinkTables<F>>(
    tables: &T,
    service: &Inside,
    parsed: &Parsed<F>,
    to: &mut Endpoint<F>,
) -> bool {
    let last = tables.link_affinity(service.service, parsed.source.0).unwrap_or_default();
    // A clock that is read on another CPU may be a tick behind the record's.
    let age_ns = tables.now_ns().saturating_sub(last.last_new_ns);
    *to = Endpoint(F::from_stored(last.address), last.port);
    last.port != [0; 2] && age_ns <= u64::from(service.affinity_s) * NS_PER_S
}

/// Steps 9 and 10: one of the part's endpoints, and if it will not do any of the others. What is sent to oneself comes back
/// from the stack as one's own packet, and is dropped (semantics 18.6). An endpoint that hears the client's port through
/// another VIP already would have two flows with one name: another one is better (18.5), and if there is none, the newer flow
/// counts.
#[inline(always)]
fn pick_any<F: Family, T: LinkTables<F>>(
    tables: &T,
    part: Part,
    parsed: &Parsed<F>,
    random: u32,
    to: &mut Endpoint<F>,
) -> Reason {
    let first = scale(random, part.count);
    if !take(tables, part, first, to) {
        return Reason::StaleReference;
    }
    let is_self = to.0 == parsed.source.0;
    if !is_self && !is_taken(tables, parsed, to) {
        return Reason::LinkServed;
    }
    let hairpin_or_taken = if is_self { Reason::LinkHairpin } else { Reason::LinkServed };
    if part.count == 1 {
        return hairpin_or_taken;
    }
    let other = first.wrapping_add(1 + scale(random.rotate_left(16), part.count - 1));
    let other = if other >= part.count { other - part.count } else { other };
    if !take(tables, part, other, to) {
        return Reason::StaleReference;
    }
    if to.0 != parsed.source.0 {
        return Reason::LinkServed;
    }
    // The client is the endpoint twice, by two ports, or both are unsuitable.
    Reason::LinkHairpin
}

/// Whether the part has an endpoint of this number; then `to` is that one.
#[inline(never)]
fn take<F: Family, T: LinkTables<F>>(tables: &T, part: Part, number: u32, to: &mut Endpoint<F>) -> bool {
    let Some((address, port)) = parts::at(tables, part, number) else { return false };
    *to = Endpoint(address, port);
    true
}

/// A number below `count`.
#[inline(always)]
fn scale(random: u32, count: u32) -> u32 {
    ((u64::from(random) * u64::from(count)) >> 32) as u32
}

/// Whether the client's port already has a flow with the endpoint that is another VIP's.
#[inline(never)]
fn is_taken<F: Family, T: LinkTables<F>>(tables: &T, parsed: &Parsed<F>, endpoint: &Endpoint<F>) -> bool {
    let vip = peer_of::<F, T>(tables, &answer_key(parsed, endpoint));
    vip.is_some_and(|vip| vip.pair() != parsed.destination.pair())
}

/// A new flow is remembered, and counts.
#[inline(never)]
fn begin<F: Family, T: LinkTables<F>>(
    tables: &T,
    service: &Inside,
    parsed: &Parsed<F>,
    ifindex: u32,
    endpoint: &Endpoint<F>,
) {
    remember(tables, parsed, endpoint);
    if service.affinity_s != 0 {
        record(tables, service.service, parsed, endpoint);
    }
    tables.note_clients(ifindex);
    count_inside(tables, service.service);
}

#[inline(never)]
fn record<F: Family, T: LinkTables<F>>(tables: &T, service: u32, parsed: &Parsed<F>, endpoint: &Endpoint<F>) {
    let (address, port) = (F::to_stored(endpoint.0), endpoint.1);
    let last = InsideAffinity { address, port, zero: [0; 6], last_new_ns: tables.now_ns() };
    tables.record_link_affinity(service, parsed.source.0, &last);
}

/// Both directions of the flow, that of the answers first.
#[inline(never)]
fn remember<F: Family, T: LinkTables<F>>(tables: &T, parsed: &Parsed<F>, endpoint: &Endpoint<F>) {
    tables.remember_link_flow(&answer_key(parsed, endpoint), &flow(&parsed.destination));
    tables.remember_link_flow(&sent_to(parsed), &flow(endpoint));
}

#[inline(always)]
fn answer_key<F: Family>(parsed: &Parsed<F>, endpoint: &Endpoint<F>) -> LinkFlowKey {
    as_answer(key::<F>(parsed.transport.number(), parsed.source.pair(), endpoint.pair()))
}

#[inline(always)]
fn flow<F: Family>(peer: &Endpoint<F>) -> InsideFlow {
    InsideFlow { address: F::to_stored(peer.0), port: peer.1, zero: [0; 2] }
}
