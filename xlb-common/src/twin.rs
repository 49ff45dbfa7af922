//! Two frontends, one pod port, one client port: datagrams of (client, VIP 1) and (client, VIP 2) that go to one pod would
//! be one flow there, and its answers could be of either. The second flow gets another port of the client's address, as
//! it would get from netfilter; its entry keeps the client's own, to which answers go.
//!
//! | what is known of the client's own port with the pod | and of the twin ports | the flow has |
//! |---|---|---|
//! | nothing, or a flow with this frontend | not looked at | the client's own port, by the usual program |
//! | a flow with another frontend | this flow, at one of them | that one |
//! | one that is idle | no such flow | the client's own port, which it takes over |
//! | one that is not | no such flow, and one is free | the first free one |
//! | one that is not | other flows at all of them | none: dropped |
//!
//! The twin ports are a hash of the flow's ends, so each node, pod and moment has the same ones. TCP and SCTP have none:
//! their clients hear that the port is in use by nobody's answer ([`crate::admit`]), and choose another.

use crate::abi::{Backend, FlowEntry, Frontend};
use crate::admit::{is_between, newest_udp, note_datagram};
use crate::affinity;
use crate::family::Family;
use crate::hash::{FlowParts, flow_hash, slot_of};
use crate::opening::Opening;
use crate::packet::Packet;
use crate::parse::{Endpoint, Parsed, wanted};
use crate::path::{Arrival, Delivery, Door, change_for, enter, frontend_of, passable, pick};
use crate::reason::Reason;
use crate::refusal::refuse;
use crate::rewrite::{Ports, readdress};
use crate::select::{Pick, backend_of};
use crate::stats::{count_flow, count_forward};
use crate::tables::{FlowTable, NOW_NS, Stage, Step, Tables};

/// Twin ports of a flow.
pub const PROBES: u32 = 4;
/// With the client's own port in front.
pub(crate) const PLACES: u32 = PROBES + 1;
/// A UDP flow without a packet for so long may lose its port, in units of [`NOW_NS`]: what netfilter gives an answered one
/// (`nf_conntrack_udp_timeout_stream`, 120 s).
pub const IDLE_MAX: u32 = (120_000_000_000 / NOW_NS) as u32;
/// A client that has a reserved port (RFC 6335) keeps one: a server may ask for it.
const RESERVED: u16 = 1_024;

/// The client's port with which a flow reaches a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Seat {
    /// Network byte order.
    pub port: [u8; 2],
    /// Id of the backend, if the flow has the port.
    pub backend: u16,
    /// Whether it has.
    pub kind: SeatKind,
}

/// Whether a flow has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SeatKind {
    /// The flow has it.
    Own,
    /// The flow may have it.
    Free,
    /// The flow may have it: another's has been idle.
    Idle,
    /// There is none.
    Taken,
}

/// A datagram that the usual program has called one of [`Reason::OtherFrontend`], or refused by an answer.
#[inline(always)]
pub fn answered<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    match serve::<F, P, T>(packet, tables, arrival) {
        Err(reason) if reason.refuses() => {
            Err(refuse::<F, P, T, { wanted::TCP_AND_UDP }>(packet, tables, arrival, reason))
        }
        verdict => verdict,
    }
}

/// The same, that is not answered. Each part is a function: together they need more than the stack of a kernel program.
#[inline(always)]
pub fn serve<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    let pick = choose::<F, P, T>(packet, tables, arrival);
    let seat = take_seat::<F, P, T>(packet, tables, arrival, pick);
    deliver::<F, P, T>(packet, tables, arrival.door, pick, seat)
}

/// The pod that has the flow, by whichever port, or gets it; without one, why.
#[inline(never)]
fn choose<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T, arrival: &Arrival) -> Pick {
    choice::<F, P, T>(packet, tables, arrival).unwrap_or_else(Pick::none)
}

#[inline(always)]
fn choice<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T, arrival: &Arrival) -> Result<Pick, Reason> {
    let mut parsed = Parsed::nothing();
    read(packet, &mut parsed)?;
    let frontend = frontend_of(tables, &parsed)?;
    if !tables.is_our_mac(arrival.ifindex, parsed.macs.destination) {
        return Err(Reason::OtherHost);
    }
    tables.note(Stage::Frontend(*frontend));
    let pick = pick::<F, T, true>(tables, &frontend, &parsed)?;
    let backend = backend_of(tables, &pick)?;
    tables.note(Stage::Chosen(*backend));
    passable(arrival.door, &backend, parsed.hops)?;
    Ok(pick)
}

/// A function of its own, because what it reads would stay on the stack of the one that goes on to ask the owners.
#[inline(never)]
fn read<F: Family, P: Packet>(packet: &P, parsed: &mut Parsed<F>) -> Result<(), Reason> {
    *parsed = F::parse::<P, { wanted::TCP_AND_UDP }>(packet)?;
    if parsed.transport.is_udp() { Ok(()) } else { Err(Reason::OtherFrontend) }
}

/// The port that the flow has with the pod; it is noted as what is known of a new flow, or of a new way of an old one.
#[inline(never)]
fn take_seat<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T, arrival: &Arrival, pick: Pick) -> Seat {
    let nowhere = Seat { port: [0; 2], backend: 0, kind: SeatKind::Taken };
    let Ok(backend) = backend_of::<F, T>(tables, &pick) else { return nowhere };
    let mut parsed = Parsed::nothing();
    if read(packet, &mut parsed).is_err() {
        return nowhere;
    }
    let Ok(frontend) = frontend_of(tables, &parsed) else { return nowhere };
    let frontend: &Frontend = &frontend;
    let seat = seat(tables, &parsed.source, &parsed.destination, &backend);
    if seat.kind == SeatKind::Taken {
        return nowhere;
    }
    tables.note(Stage::Seat { port: seat.port });
    let key = F::flow_key((parsed.source.0, seat.port), (F::from_stored(backend.address), backend.port));
    let opening = Opening { service: frontend.service, parsed: &parsed, pick, arrival };
    let client_port = if seat.port == parsed.source.1 { [0; 2] } else { parsed.source.1 };
    let entry = FlowEntry { client_port, ..opening.entry(tables, &backend) };
    let is_new = if seat.kind == SeatKind::Own {
        note_datagram(tables, &key, &entry).unwrap_or_default()
    } else {
        tables.remember(FlowTable::UdpPending, &key, &entry);
        true
    };
    if is_new {
        count_flow(tables, &entry);
        if frontend.affinity_s != 0 {
            affinity::record(tables, frontend.service, &parsed, pick);
        }
    }
    seat
}

/// Makes it the pod's.
#[inline(never)]
fn deliver<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    door: Door,
    pick: Pick,
    seat: Seat,
) -> Result<Delivery, Reason> {
    let backend = backend_of::<F, T>(tables, &pick)?;
    if seat.kind == SeatKind::Taken {
        return Err(Reason::PortsTaken);
    }
    let parsed = F::parse::<P, { wanted::TCP_AND_UDP }>(packet)?;
    let service = frontend_of(tables, &parsed)?.service;
    let reason = if seat.port == parsed.source.1 { pick.reason() } else { Reason::PortChanged };
    enter(packet, &backend, door).ok_or(Reason::Truncated)?;
    let ports = Ports { of_end: backend.port, of_other: seat.port };
    readdress(packet, &parsed, change_for(&backend), ports).ok_or(Reason::Truncated)?;
    count_forward::<F, P, T>(tables, packet, service);
    Ok(Delivery::to(&backend, reason))
}

/// The port that the flow from `client` to `vip` has with the pod, else one that it may have.
#[inline(never)]
pub fn seat<F: Family, T: Tables<F>>(tables: &T, client: &Endpoint<F>, vip: &Endpoint<F>, backend: &Backend) -> Seat {
    let nowhere = Seat { port: [0; 2], backend: 0, kind: SeatKind::Taken };
    let Seating { best, .. } = tables.each_until(PLACES, Seating { client, vip, backend, best: nowhere });
    best
}

/// The places of a flow, looked at one by one.
struct Seating<'a, F: Family> {
    client: &'a Endpoint<F>,
    vip: &'a Endpoint<F>,
    backend: &'a Backend,
    /// The flow's own, or the first that is free.
    best: Seat,
}

impl<F: Family, T: Tables<F>> Step<T> for Seating<'_, F> {
    #[inline(always)]
    fn step(&mut self, tables: &T, place: u32) -> bool {
        let (next, _) = look(tables, self.client, self.vip, self.backend, place);
        if next.kind == SeatKind::Own || self.best.kind == SeatKind::Taken {
            self.best = next;
        }
        // Nothing comes from port zero, and an entry could not tell it from none.
        next.kind == SeatKind::Own || self.client.1 == [0; 2]
    }
}

/// The twin ports of the flow, in the order in which they are looked at, network byte order.
pub fn ports<F: Family>(client: &Endpoint<F>, vip: &Endpoint<F>) -> impl Iterator<Item = [u8; 2]> {
    (1..PLACES).map(|place| port_at(client, vip, place))
}

/// The client's own port, then the twin ports. A step of the golden ratio lies far from all steps before it.
#[inline(always)]
fn port_at<F: Family>(client: &Endpoint<F>, vip: &Endpoint<F>, place: u32) -> [u8; 2] {
    let client_port = u16::from_be_bytes(client.1);
    if place == 0 {
        return client.1;
    }
    let hash = flow_hash(FlowParts {
        client: F::to_hash(client.0),
        vip: F::to_hash(vip.0),
        client_port,
        vip_port: u16::from_be_bytes(vip.1),
        protocol: 0,
    });
    let (first, count) =
        if client_port < RESERVED { (1, RESERVED - 1) } else { (RESERVED, 0_u16.wrapping_sub(RESERVED)) };
    let port = u32::from(first) + slot_of(hash.wrapping_add(place.wrapping_mul(0x9e37_79b9)), count.into());
    (port as u16).to_be_bytes()
}

/// What is known of one place with the pod, and since when: zero is the client's own port.
#[inline(always)]
pub(crate) fn look<F: Family, T: Tables<F>>(
    tables: &T,
    client: &Endpoint<F>,
    vip: &Endpoint<F>,
    backend: &Backend,
    place: u32,
) -> (Seat, u32) {
    let port = port_at(client, vip, place);
    let key = F::flow_key((client.0, port), (F::from_stored(backend.address), backend.port));
    let Some(entry) = newest_udp(tables, &key) else { return (Seat { port, backend: 0, kind: SeatKind::Free }, 0) };
    let client_port = if port == client.1 { [0; 2] } else { client.1 };
    let kind = if is_between(&entry, F::to_stored(vip.0), vip.1, client_port) {
        SeatKind::Own
    } else if is_idle(&entry, tables.now()) {
        SeatKind::Idle
    } else {
        SeatKind::Taken
    };
    (Seat { port, backend: entry.backend, kind }, entry.last_seen)
}

/// Whether no packet of the flow passed for long. A clock that is read on another CPU may be behind the entry's.
#[inline(always)]
#[must_use]
pub const fn is_idle(entry: &FlowEntry, now: u32) -> bool {
    now.wrapping_sub(entry.last_seen) as i32 > IDLE_MAX as i32
}
