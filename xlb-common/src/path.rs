//! The packet path: forward, from the client to the pod, and back. Everything xlb does to a packet is on this page.

use core::num::NonZeroU32;
use core::ops::Deref;

use crate::abi::{Backend, Frontend, Tags, frontend_flags, uplink_flags};
use crate::affinity;
use crate::echo;
use crate::errors::{self, Quoting};
use crate::family::{End, Family, HeaderChange, V4, V6};
use crate::fragments;
use crate::handover::may_be_hosts;
use crate::hook::Kind;
use crate::opening::Opening;
use crate::packet::Packet;
use crate::parse::{Endpoint, EtherType, Parsed, ether_type, wanted};
use crate::reason::Reason;
use crate::refusal::refuse;
use crate::reply::reply;
use crate::rewrite::{Ports, readdress, readdress_frame};
use crate::sctp;
use crate::select::{Pick, backend_of, opens_flow, pick_at_once, pick_by_owners};
use crate::shape::measure;
use crate::shaped;
use crate::sole;
use crate::sources;
use crate::stats::count_forward;
use crate::tables::{Stage, Tables};
use crate::twin;
use crate::unowned::unowned;
use crate::way;

/// The hook at which a packet from outside meets xlb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// XDP on the uplink: frames, before the stack made skbs of them. What a pod's link does not take is left to tc.
    Xdp,
    /// XDP with no tc behind it: generic XDP, after which tc finds packets without their Ethernet header.
    XdpAlone,
    /// tc ingress on the uplink: skbs, after GRO.
    Tc,
}

impl Door {
    #[inline(always)]
    const fn of(number: u8) -> Self {
        match number {
            0 => Self::Xdp,
            1 => Self::XdpAlone,
            _ => Self::Tc,
        }
    }

    /// Whether packets are frames, and no skbs yet.
    #[inline(always)]
    #[must_use]
    pub const fn is_xdp(self) -> bool {
        !matches!(self, Self::Tc)
    }
}

/// How a packet from outside arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// By which hook.
    pub door: Door,
    /// On which interface.
    pub ifindex: u32,
    /// With which VLAN tags.
    pub tags: Tags,
}

impl Arrival {
    /// Without tags, as far as is known.
    #[inline(always)]
    #[must_use]
    pub const fn at(door: Door, ifindex: u32) -> Self {
        Self { door, ifindex, tags: Tags::NONE }
    }
}

/// What the hook has to do with a packet that the path served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Hand it to this interface; none: let the host's stack deliver it.
    pub to: Option<NonZeroU32>,
    /// Why there.
    pub reason: Reason,
}

impl Delivery {
    /// By the backend's link, or by the host's stack.
    #[inline(always)]
    pub(crate) fn to(backend: &Backend, reason: Reason) -> Self {
        let to = if backend.is_direct() { NonZeroU32::new(backend.ifindex) } else { None };
        Self { to, reason }
    }
}

/// A packet from outside, on its way to a pod.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &mut P,
    tables: &T,
    arrival: Arrival,
) -> Result<Delivery, Reason> {
    let verdict = ingress_usual(packet, tables, arrival);
    let Some(kind) = Kind::of(&verdict) else { return verdict };
    if kind == Kind::Twin {
        Tables::<V4>::note(tables, Stage::PortTaken);
    }
    ingress_of(kind, packet, tables, arrival)
}

/// What [`ingress`] does with nearly all packets. One of a [`Kind`] is as it was.
#[inline(always)]
pub fn ingress_usual<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &mut P,
    tables: &T,
    arrival: Arrival,
) -> Result<Delivery, Reason> {
    match ether_type(packet)? {
        EtherType::V4 => answered::<V4, P, T, { wanted::TCP_AND_UDP }>(packet, tables, &arrival),
        EtherType::V6 => answered::<V6, P, T, { wanted::TCP_AND_UDP }>(packet, tables, &arrival),
        EtherType::Other => Err(Reason::NotIp),
    }
}

/// What [`ingress`] does with packets of a kind.
#[inline(always)]
pub fn ingress_of<P: Packet, T: Tables<V4> + Tables<V6>>(
    kind: Kind,
    packet: &mut P,
    tables: &T,
    arrival: Arrival,
) -> Result<Delivery, Reason> {
    match (kind, ether_type(packet)?) {
        (Kind::Shape, _) => ingress_shaped(packet, tables, &arrival),
        (_, EtherType::Other) => Err(Reason::NotIp),
        (Kind::Sole, _) => Err(Reason::NotOurs),
        (Kind::Icmp, EtherType::V4) => icmp::<V4, P, T>(packet, tables, &arrival),
        (Kind::Icmp, EtherType::V6) => icmp::<V6, P, T>(packet, tables, &arrival),
        (Kind::Fragment, EtherType::V4) => fragments::serve::<V4, P, T>(packet, tables, &arrival),
        (Kind::Fragment, EtherType::V6) => fragments::serve::<V6, P, T>(packet, tables, &arrival),
        (Kind::Sctp, EtherType::V4) => sctp::serve::<V4, P, T>(packet, tables, &arrival),
        (Kind::Sctp, EtherType::V6) => sctp::serve::<V6, P, T>(packet, tables, &arrival),
        (Kind::Twin, EtherType::V4) => twin::answered::<V4, P, T>(packet, tables, &arrival),
        (Kind::Twin, EtherType::V6) => twin::answered::<V6, P, T>(packet, tables, &arrival),
    }
}

#[inline(always)]
fn icmp<F: Quoting, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    if echo::is_request::<F, P>(packet) {
        return Err(echo::answer::<F, P, T>(packet, tables, arrival));
    }
    errors::to_pod::<F, P, T>(packet, tables, arrival)
}

/// A packet that a pod sent: a reply becomes the VIP's. At the host's end of the pod's link (`IS_DIRECT`) it goes straight
/// to the uplink; after the host's stack it is there, and becomes so if its backend is served through the stack.
#[inline(always)]
pub fn egress<P: Packet, T: Tables<V4> + Tables<V6>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    let verdict = egress_usual::<P, T, IS_DIRECT>(packet, tables);
    match Kind::of(&verdict) {
        Some(kind) => egress_of::<P, T, IS_DIRECT>(kind, packet, tables),
        None => verdict,
    }
}

/// What [`egress`] does with nearly all packets. One of a [`Kind`] is as it was.
#[inline(always)]
pub fn egress_usual<P: Packet, T: Tables<V4> + Tables<V6>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    match ether_type(packet)? {
        EtherType::V4 => reply::<V4, P, T, IS_DIRECT, { wanted::TCP_AND_UDP }>(packet, tables),
        EtherType::V6 => reply::<V6, P, T, IS_DIRECT, { wanted::TCP_AND_UDP }>(packet, tables),
        EtherType::Other => Err(Reason::NotIp),
    }
}

/// What [`egress`] does with packets of a kind.
#[inline(always)]
pub fn egress_of<P: Packet, T: Tables<V4> + Tables<V6>, const IS_DIRECT: bool>(
    kind: Kind,
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    match (kind, ether_type(packet)?) {
        (Kind::Shape, _) => egress_shaped::<P, T, IS_DIRECT>(packet, tables),
        (_, EtherType::Other) => Err(Reason::NotIp),
        (Kind::Twin, _) => Err(Reason::NotAReply),
        (Kind::Sole, EtherType::V4) => sole::reply::<V4, P, T, IS_DIRECT>(packet, tables),
        (Kind::Sole, EtherType::V6) => sole::reply::<V6, P, T, IS_DIRECT>(packet, tables),
        (Kind::Icmp, EtherType::V4) => errors::reply::<V4, P, T, IS_DIRECT>(packet, tables),
        (Kind::Icmp, EtherType::V6) => errors::reply::<V6, P, T, IS_DIRECT>(packet, tables),
        (Kind::Fragment, EtherType::V4) => fragments::reply::<V4, P, T, IS_DIRECT>(packet, tables),
        (Kind::Fragment, EtherType::V6) => fragments::reply::<V6, P, T, IS_DIRECT>(packet, tables),
        (Kind::Sctp, EtherType::V4) => reply::<V4, P, T, IS_DIRECT, { wanted::SCTP }>(packet, tables),
        (Kind::Sctp, EtherType::V6) => reply::<V6, P, T, IS_DIRECT, { wanted::SCTP }>(packet, tables),
    }
}

#[inline(always)]
fn ingress_shaped<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    if arrival.door.is_xdp() {
        return Err(shaped::left_by_xdp(packet, arrival.door));
    }
    let shape = measure(packet).known()?;
    if shape.is_v4() {
        shaped::serve::<V4, P, T>(packet, tables, arrival, shape)
    } else {
        shaped::serve::<V6, P, T>(packet, tables, arrival, shape)
    }
}

#[inline(always)]
fn egress_shaped<P: Packet, T: Tables<V4> + Tables<V6>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    let shape = measure(packet).known()?;
    if shape.is_v4() {
        shaped::reply::<V4, P, T, IS_DIRECT>(packet, tables, shape)
    } else {
        shaped::reply::<V6, P, T, IS_DIRECT>(packet, tables, shape)
    }
}

/// A packet that is served, or refused by an answer.
#[inline(always)]
pub(crate) fn answered<F: Family, P: Packet, T: Tables<F>, const WANTED: u8>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    let verdict = match arrival.door {
        Door::Xdp => serve::<F, P, T, WANTED, { Door::Xdp as u8 }>(packet, tables, arrival),
        Door::XdpAlone => serve::<F, P, T, WANTED, { Door::XdpAlone as u8 }>(packet, tables, arrival),
        Door::Tc => serve::<F, P, T, WANTED, { Door::Tc as u8 }>(packet, tables, arrival),
    };
    match verdict {
        Err(reason) if reason.refuses() => Err(refuse::<F, P, T, WANTED>(packet, tables, arrival, reason)),
        verdict => verdict,
    }
}

/// A packet whose IP version is known, and by its number the door, so that a program has what its own door needs and no more.
/// A function for each: both in one need more than the 512 bytes of stack that a kernel program has. What few packets need
/// is in functions beside it ([`Tables::ask_owners`] and those after it).
#[inline(never)]
fn serve<F: Family, P: Packet, T: Tables<F>, const WANTED: u8, const DOOR: u8>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    let arrival = &Arrival { door: Door::of(DOOR), ..*arrival };
    let parsed = F::parse::<P, WANTED>(packet)?;
    let (pick, backend, service) = decide(tables, &parsed, arrival)?;
    let delivery = deliver(packet, &parsed, &backend, arrival.door, pick)?;
    count_forward::<F, P, T>(tables, packet, service);
    Ok(delivery)
}

/// Which pod a packet goes to, if it goes to one, and of which Service port; what its reply will need is written.
#[inline(always)]
pub(crate) fn decide<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    parsed: &Parsed<F>,
    arrival: &Arrival,
) -> Result<(Pick, impl Deref<Target = Backend> + use<'a, F, T>, u32), Reason> {
    let Ok(frontend) = frontend_of(tables, parsed) else { return Err(unowned(tables, parsed, arrival)) };
    let frontend: &Frontend = &frontend;
    if !tables.is_our_mac(arrival.ifindex, parsed.macs.destination) {
        return Err(Reason::OtherHost);
    }
    tables.note(Stage::Frontend(*frontend));
    let pick = pick::<F, T, false>(tables, frontend, parsed)?;
    let backend = backend_of(tables, &pick)?;
    tables.note(Stage::Chosen(*backend));
    passable(arrival.door, &backend, parsed.hops)?;
    let is_to_hear = backend.is_hidden() && parsed.transport.only_acknowledges();
    let pick = if is_to_hear { tables.hear_client(parsed, pick) } else { pick };
    let opens_flow = opens_flow(parsed);
    let minded = if opens_flow { 0 } else { tables.uplink_flags(arrival.ifindex) };
    let is_lost = !opens_flow && frontend.has(frontend_flags::STRAYS)
        || minded & uplink_flags::HOT != 0 && tables.is_to_relearn(parsed, pick);
    if opens_flow || is_lost {
        let opening = Opening { service: frontend.service, parsed, pick, arrival };
        if tables.open(&opening)? && frontend.affinity_s != 0 {
            affinity::record(tables, frontend.service, parsed, pick);
        }
    }
    if minded & uplink_flags::FOLLOW != 0 {
        way::follow(tables, parsed, pick, arrival);
    }
    Ok((pick, backend, frontend.service))
}

/// What the rules say of a packet to `frontend`. With `TWINS` a datagram's flow is looked for at its twin ports, too
/// ([`twin`]); without, one that may have it there is [`Reason::OtherFrontend`].
#[inline(always)]
pub(crate) fn pick<F: Family, T: Tables<F>, const TWINS: bool>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
) -> Result<Pick, Reason> {
    let pick = match pick_at_once(tables, frontend, parsed) {
        Some(pick) => pick,
        None if may_be_hosts(frontend, parsed) => tables.ask_entries(frontend, parsed),
        None => pick_by_owners::<F, T, TWINS>(tables, frontend, parsed),
    };
    if frontend.has(frontend_flags::SOURCE_RANGES) {
        if TWINS {
            sources::admit::<F, T, TWINS>(tables, frontend, parsed, pick)?;
        } else {
            tables.admit_source(frontend, parsed, pick)?;
        }
    }
    Ok(pick)
}

/// Makes it the pod's.
#[inline(always)]
pub(crate) fn deliver<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    backend: &Backend,
    door: Door,
    pick: Pick,
) -> Result<Delivery, Reason> {
    let (delivery, change, port) = (Delivery::to(backend, pick.reason()), change_for(backend), backend.port);
    let translated = enter(packet, backend, door).and_then(|()| readdress(packet, parsed, change, Ports::of_end(port)));
    translated.map(|()| delivery).ok_or(Reason::Truncated)
}

#[inline(always)]
pub(crate) fn frontend_of<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    parsed: &Parsed<F>,
) -> Result<impl Deref<Target = Frontend> + use<'a, F, T>, Reason> {
    let Endpoint(vip, port) = parsed.destination;
    tables.frontend(F::endpoint_key(vip, port, parsed.transport.number())).ok_or(Reason::NotOurs)
}

/// Whether the door leads to the pod, for a packet with so many hops left. An XDP program redirects to links that take
/// frames, and to no others; the host's stack counts the hop itself.
#[inline(always)]
pub(crate) fn passable(door: Door, backend: &Backend, hops: u8) -> Result<(), Reason> {
    match door {
        Door::Xdp if !backend.takes_xdp() => Err(Reason::LeftToTc),
        Door::XdpAlone if backend.is_direct() && !backend.takes_xdp() => Err(Reason::LinkNotReady),
        _ if backend.is_direct() && hops <= 1 => Err(Reason::TtlExpired),
        _ => Ok(()),
    }
}

/// The frame becomes the pod's, where a pod's link does not do without MACs.
#[inline(always)]
pub(crate) fn enter<P: Packet>(packet: &mut P, backend: &Backend, door: Door) -> Option<()> {
    if door.is_xdp() && backend.is_direct() {
        readdress_frame(packet, backend.pod_mac, backend.host_mac)?;
    }
    Some(())
}

/// What has to change in the IP header of a packet that goes to the backend. The host's stack counts the hop itself.
#[inline(always)]
pub(crate) fn change_for<F: Family>(backend: &Backend) -> HeaderChange<F> {
    HeaderChange { end: End::Destination, address: F::from_stored(backend.address), counts_hop: backend.is_direct() }
}
