//! The packet path: forward, from the client to the pod, and back. Everything xlb does to a packet is on this page.

use core::num::NonZeroU32;
use core::ops::Deref;

use crate::abi::{Backend, FlowEntry, Frontend, flow_flags, frontend_flags};
use crate::admit::{find_reply, note_client};
use crate::affinity;
use crate::errors::{self, Quoting};
use crate::family::{End, Family, HeaderChange, V4, V6};
use crate::fragments;
use crate::handover::{may_be_hosts, pick_by_entry};
use crate::packet::Packet;
use crate::parse::{Endpoint, EtherType, Parsed, ether_type};
use crate::reason::Reason;
use crate::refusal::refuse;
use crate::rewrite::{readdress, readdress_frame};
use crate::select::{Choice, Pick, choice_of, opens_flow, pick_at_once, pick_by_asking};
use crate::sources;
use crate::stats::{count_flow, count_forward, count_reply, generation_of};
use crate::tables::{Stage, Tables};

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
    /// Whether packets are frames, and no skbs yet.
    #[inline(always)]
    #[must_use]
    pub const fn is_xdp(self) -> bool {
        !matches!(self, Self::Tc)
    }
}

/// Where a packet from outside arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// By which hook.
    pub door: Door,
    /// On which interface.
    pub ifindex: u32,
}

/// What the hook has to do with a packet that the path served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Hand it to this interface; none: let the host's stack deliver it.
    pub to: Option<NonZeroU32>,
    /// Why there.
    pub reason: Reason,
}

/// A packet from outside, on its way to a pod.
#[inline(always)]
pub fn ingress<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &mut P,
    tables: &T,
    arrival: Arrival,
) -> Result<Delivery, Reason> {
    match ether_type(packet)? {
        EtherType::V4 => answered::<V4, P, T>(packet, tables, &arrival),
        EtherType::V6 => answered::<V6, P, T>(packet, tables, &arrival),
        EtherType::Other => Err(Reason::NotIp),
    }
}

/// A packet that is served, or refused by an answer; or an error about one.
#[inline(always)]
fn answered<F: Quoting, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    match serve::<F, P, T>(packet, tables, arrival) {
        Err(Reason::EmptyRejected) => Err(refuse::<F, P, T>(packet, tables, arrival)),
        Err(Reason::Icmp) => errors::to_pod::<F, P, T>(packet, tables, arrival),
        Err(Reason::Fragment) => fragments::serve::<F, P, T>(packet, tables, arrival),
        verdict => verdict,
    }
}

/// A packet whose IP version is known. A function for each: both in one need more than the 512 bytes of stack that a
/// kernel program has. What few packets need is in functions beside it ([`pick_by_asking`], [`sources::admit`],
/// [`note_opening`]), which answer in one register: of a larger answer the verifier refuses the pointer that is left in it.
#[inline(never)]
fn serve<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    let parsed = F::parse(packet)?;
    let (pick, choice, service) = decide(tables, &parsed, arrival)?;
    let delivery = deliver(packet, &parsed, &choice.backend, arrival.door, pick)?;
    count_forward::<F, P, T>(tables, packet, service);
    Ok(delivery)
}

/// Which pod a packet goes to, if it goes to one, and of which Service port; what its reply will need is written.
#[inline(always)]
pub(crate) fn decide<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    arrival: &Arrival,
) -> Result<(Pick, Choice, u32), Reason> {
    let frontend = frontend_of(tables, parsed)?;
    let frontend: &Frontend = &frontend;
    if !tables.is_our_mac(arrival.ifindex, parsed.macs.destination) {
        return Err(Reason::OtherHost);
    }
    tables.note(Stage::Frontend(*frontend));
    let pick = match pick_at_once(tables, frontend, parsed) {
        Some(pick) => pick,
        None if may_be_hosts(frontend, parsed) => pick_by_entry(tables, frontend, parsed),
        None => pick_by_asking(tables, frontend, parsed),
    };
    if frontend.has(frontend_flags::SOURCE_RANGES) && !sources::admit(tables, frontend, parsed, pick) {
        return Err(Reason::SourceNotAllowed);
    }
    let choice = choice_of(tables, &pick)?;
    tables.note(Stage::Chosen(choice.backend));
    passable(arrival.door, &choice.backend)?;
    if choice.backend.is_direct() && parsed.hops <= 1 {
        return Err(Reason::TtlExpired);
    }
    if opens_flow(parsed) {
        note_opening(tables, frontend, parsed, pick, arrival);
    }
    Ok((pick, choice, frontend.service))
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
    translate(packet, parsed, backend, door).ok_or(Reason::Truncated)?;
    let to = if backend.is_direct() { NonZeroU32::new(backend.ifindex) } else { None };
    Ok(Delivery { to, reason: pick.reason() })
}

#[inline(always)]
pub(crate) fn frontend_of<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    parsed: &Parsed<F>,
) -> Result<impl Deref<Target = Frontend> + use<'a, F, T>, Reason> {
    let Endpoint(vip, port) = parsed.destination;
    tables.frontend(F::endpoint_key(vip, port, parsed.transport.number())).ok_or(Reason::NotOurs)
}

/// What has to be known of a flow before its pod answers, and of its client.
#[inline(never)]
fn note_opening<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    pick: Pick,
    arrival: &Arrival,
) {
    let Ok(choice) = choice_of(tables, &pick) else { return };
    let entry = flow_entry(tables, parsed, &choice, frontend.service, arrival);
    if note_client(tables, parsed, &choice, &entry) {
        affinity::record(tables, frontend, parsed, (choice.id, choice.backend.generation));
        if parsed.transport.is_udp() {
            count_flow(tables, &entry);
        }
    }
}

/// Whether the door leads to the pod: an XDP program redirects to links that take frames, and to no others.
#[inline(always)]
pub(crate) fn passable(door: Door, backend: &Backend) -> Result<(), Reason> {
    match door {
        Door::Xdp if !backend.takes_xdp() => Err(Reason::LeftToTc),
        Door::XdpAlone if backend.is_direct() && !backend.takes_xdp() => Err(Reason::LinkNotReady),
        _ => Ok(()),
    }
}

/// The packet becomes the pod's. The host's stack counts the hop itself; a pod's link needs no MACs except from XDP.
#[inline(always)]
fn translate<F: Family, P: Packet>(packet: &mut P, parsed: &Parsed<F>, backend: &Backend, door: Door) -> Option<()> {
    if door.is_xdp() && backend.is_direct() {
        readdress_frame(packet, backend.pod_mac, backend.host_mac)?;
    }
    let address = F::from_stored(backend.address);
    let change = HeaderChange { end: End::Destination, address, counts_hop: backend.is_direct() };
    readdress(packet, parsed, change, backend.port)
}

/// What a reply will need.
#[inline(always)]
fn flow_entry<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    choice: &Choice,
    service: u32,
    arrival: &Arrival,
) -> FlowEntry {
    FlowEntry {
        vip: F::to_stored(parsed.destination.0),
        vip_port: parsed.destination.1,
        flags: if choice.backend.is_direct() { 0 } else { flow_flags::STACK },
        service,
        backend: choice.id as u16,
        generation: generation_of(tables, service),
        ingress_ifindex: arrival.ifindex,
        next_hop_mac: parsed.macs.source,
        uplink_mac: parsed.macs.destination,
        syn_ack_acknowledged: 0,
        last_seen: tables.now(),
    }
}

/// A packet that a pod sent, at the host's end of its link: a reply goes straight to the uplink, as the VIP's.
#[inline(always)]
pub fn from_pod<P: Packet, T: Tables<V4> + Tables<V6>>(packet: &mut P, tables: &T) -> Result<Delivery, Reason> {
    match ether_type(packet)? {
        EtherType::V4 => reply::<V4, P, T, true>(packet, tables),
        EtherType::V6 => reply::<V6, P, T, true>(packet, tables),
        EtherType::Other => Err(Reason::NotIp),
    }
}

/// A reply, whole or a fragment, or an error about a client's packet. Each is a function: in one with the others it leaves them no stack.
#[inline(always)]
fn reply<F: Quoting, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    match reply_whole::<F, P, T, IS_DIRECT>(packet, tables) {
        Err(Reason::Fragment) => fragments::reply::<F, P, T, IS_DIRECT>(packet, tables),
        Err(Reason::Icmp) if IS_DIRECT => errors::of_pod::<F, P, T>(packet, tables),
        Err(Reason::Icmp) => errors::of_stack::<F, P, T>(packet, tables),
        verdict => verdict,
    }
}

/// A reply with its transport header: straight to the uplink, or after the host's stack.
#[inline(never)]
pub(crate) fn reply_whole<F: Family, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    if IS_DIRECT { reply_directly(packet, tables) } else { reply_through_stack(packet, tables) }
}

#[inline(always)]
fn reply_directly<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Result<Delivery, Reason> {
    let parsed = F::parse(packet)?;
    let (entry, reason) = find_reply(tables, &parsed)?;
    if entry.is_stack() {
        return Err(Reason::ReplyLeftToStack);
    }
    if parsed.hops <= 1 {
        return Err(Reason::ReplyTtlExpired);
    }
    if !packet.fits(entry.ingress_ifindex) {
        return Err(if F::may_be_cut(packet) { Reason::ReplyNotCut } else { Reason::ReplyTooBig });
    }
    readdress_frame(packet, entry.next_hop_mac, entry.uplink_mac).ok_or(Reason::Truncated)?;
    restore(packet, &parsed, &entry, true).ok_or(Reason::Truncated)?;
    count_reply::<F, P, T>(tables, packet, &entry);
    Ok(Delivery { to: NonZeroU32::new(entry.ingress_ifindex), reason })
}

/// A packet that leaves by the uplink after the host's stack: a reply of a `stack` backend becomes the VIP's.
#[inline(always)]
pub fn from_stack<P: Packet, T: Tables<V4> + Tables<V6>>(packet: &mut P, tables: &T) -> Result<Delivery, Reason> {
    match ether_type(packet)? {
        EtherType::V4 => reply::<V4, P, T, false>(packet, tables),
        EtherType::V6 => reply::<V6, P, T, false>(packet, tables),
        EtherType::Other => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn reply_through_stack<F: Family, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Result<Delivery, Reason> {
    let parsed = F::parse(packet)?;
    let (entry, reason) = find_reply(tables, &parsed)?;
    if !entry.is_stack() {
        return Err(Reason::NotAReply);
    }
    restore(packet, &parsed, &entry, false).ok_or(Reason::Truncated)?;
    count_reply::<F, P, T>(tables, packet, &entry);
    Ok(Delivery { to: None, reason })
}

/// The packet becomes the VIP's.
#[inline(always)]
fn restore<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    entry: &FlowEntry,
    counts_hop: bool,
) -> Option<()> {
    let change = HeaderChange { end: End::Source, address: F::from_stored(entry.vip), counts_hop };
    readdress(packet, parsed, change, entry.vip_port)
}
