//! ICMP errors about a flow: a router cannot forward a packet of it, or a host does not want it (RFC 792, RFC 4443).
//!
//! An error quotes the packet that it is about. Whoever gets the error finds its socket by the quote, so the quote has to
//! become the packet that its sender knows:
//!
//! | at | comes from | quotes | becomes |
//! |---|---|---|---|
//! | the uplink ([`to_pod`]) | any router, or the client | VIP to client, which was pod to client once | to the pod, quotes pod to client |
//! | a pod's link ([`of_pod`]) | the pod | client to pod, which was client to VIP once | from the VIP, quotes client to VIP |
//! | the uplink's egress ([`of_stack`]) | the pod, or the node | the same | the same; what the node sends stays the node's |
//!
//! The way to the pod is that of the flow's other packets: the quote's mirror image is looked up as one of them. An error
//! is never answered by another one (RFC 1122 chapter 3.2.2), and nothing is learnt from it: whoever can guess a flow can
//! send one. The pod's kernel judges what it gets by its sequence numbers, as without xlb.

use crate::abi::{Backend, FlowEntry, SCTP, TCP, UDP};
use crate::admit::known_flow;
use crate::checksum::{Difference, TransportChange};
use crate::family::{End, Family, HeaderChange};
use crate::packet::Packet;
use crate::parse::{Endpoint, Parsed, TcpView, Transport, tcp_flags};
use crate::path::{self, Arrival, Delivery, change_for, enter, passable};
use crate::reason::Reason;
use crate::reply::{after_stack, to_uplink};
use crate::rewrite::{Ports, readdress_frame};
use crate::sctp::{SctpView, chunk};
use crate::select::{Pick, backend_of};
use crate::tables::{Stage, Tables};
use crate::twin::{SeatKind, seat};
use crate::way;

mod v4;
mod v6;

/// Length of an ICMP header, behind which the quote begins.
const ICMP_LENGTH: usize = 8;
/// What is assumed of a quoted segment: it is neither SYN nor RST, which is what has most claims.
const ESTABLISHED: TcpView = TcpView { flags: tcp_flags::ACK as u16, ..TcpView::NOTHING };

/// An IP version's errors.
pub trait Quoting: Family {
    /// Where the quoted packet's transport header is.
    const QUOTED_TRANSPORT_AT: usize;
    /// Bytes of a frame up to the sum of a quoted TCP header: as far as anything is read.
    const READ_MAX: usize = Self::QUOTED_TRANSPORT_AT + 18;

    /// Whether this type of message reports an error about the packet that it quotes.
    fn is_error(kind: u8) -> bool;
    /// The packet that carries the error, without ports, and how many bytes are behind its header.
    fn outer<P: Packet>(packet: &P) -> Option<(Parsed<Self>, u32)>;
    /// What the quoted header says.
    fn quoted_header<P: Packet>(packet: &P) -> Result<QuotedHeader<Self>, Reason>;
    /// Changes an address of the quoted header; what that does to a sum over the header.
    fn store_quoted<P: Packet>(packet: &mut P, end: End, old: Self::Address, new: Self::Address) -> Option<Difference>;
}

/// A quoted IP header.
#[derive(Clone, Copy, Debug)]
pub struct QuotedHeader<F: Family> {
    /// Who sent the packet.
    pub source: F::Address,
    /// To whom.
    pub destination: F::Address,
    /// IP protocol number.
    pub protocol: u8,
}

/// What an error quotes of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Quote<F: Family> {
    pub(crate) source: Endpoint<F>,
    pub(crate) destination: Endpoint<F>,
    pub(crate) transport: Transport,
    /// Whether the transport's sum is quoted, too.
    has_sum: bool,
}

/// An error that arrived by an uplink.
#[inline(always)]
pub fn to_pod<F: Quoting, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    packet.gather(F::READ_MAX);
    let pick = owner::<F, P, T>(packet, tables, arrival);
    deliver::<F, P, T>(packet, tables, arrival, pick)
}

/// Where a packet of the flow goes. The answer fits a register, a way out too.
#[inline(never)]
fn owner<F: Quoting, P: Packet, T: Tables<F>>(packet: &P, tables: &T, arrival: &Arrival) -> Pick {
    pick::<F, P, T>(packet, tables, arrival).unwrap_or_else(Pick::none)
}

#[inline(always)]
fn pick<F: Quoting, P: Packet, T: Tables<F>>(packet: &P, tables: &T, arrival: &Arrival) -> Result<Pick, Reason> {
    let mut flow = Parsed::nothing();
    read_flow(packet, &mut flow)?;
    let Endpoint(vip, port) = flow.destination;
    let key = F::endpoint_key(vip, port, flow.transport.number());
    let frontend = tables.frontend(key).ok_or(Reason::ErrorNotOurs)?;
    if !tables.is_our_mac(arrival.ifindex, flow.macs.destination) {
        return Err(Reason::OtherHost);
    }
    tables.note(Stage::Frontend(*frontend));
    path::pick::<F, T, true>(tables, &frontend, &flow)
}

/// The quoted packet's mirror image: what its receiver sent, or would have. A function of its own, because what it reads
/// would stay on the stack of the one that goes on to ask the pods' kernels.
#[inline(never)]
fn read_flow<F: Quoting, P: Packet>(packet: &P, flow: &mut Parsed<F>) -> Result<(), Reason> {
    let (outer, payload) = F::outer(packet).ok_or(Reason::Truncated)?;
    let quote = quote::<F, P>(packet, payload)?;
    if outer.destination.0 != quote.source.0 {
        return Err(Reason::ErrorNotOurs);
    }
    *flow = Parsed { source: quote.destination, destination: quote.source, transport: quote.transport, ..outer };
    Ok(())
}

/// The error becomes one about the pod's packet, and goes where the flow's packets go.
#[inline(never)]
fn deliver<F: Quoting, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
    pick: Pick,
) -> Result<Delivery, Reason> {
    let backend = backend_of(tables, &pick).map_err(without_owner)?;
    tables.note(Stage::Chosen(*backend));
    let (outer, payload) = F::outer(packet).ok_or(Reason::Truncated)?;
    passable(arrival.door, &backend, outer.hops)?;
    let quote = quote::<F, P>(packet, payload)?;
    let ports = Ports { of_end: backend.port, of_other: client_port(tables, &quote, &backend)? };
    enter(packet, &backend, arrival.door).ok_or(Reason::Truncated)?;
    let change = change_for(&backend);
    translate(packet, &outer, change, &quote, (change.address, ports)).ok_or(Reason::Truncated)?;
    Ok(Delivery::to(&backend, Reason::ErrorDelivered))
}

/// The client's port as the pod knows it, if that is another one; a way out if the pod knows its own as another flow's.
#[inline(always)]
fn client_port<F: Family, T: Tables<F>>(tables: &T, quote: &Quote<F>, backend: &Backend) -> Result<[u8; 2], Reason> {
    if !quote.transport.is_udp() {
        return Ok([0; 2]);
    }
    let seat = seat(tables, &quote.destination, &quote.source, backend);
    match seat.kind {
        SeatKind::Own => Ok(seat.port),
        SeatKind::Free | SeatKind::Idle if seat.port == quote.destination.1 => Ok([0; 2]),
        _ => Err(Reason::ErrorOwnerless),
    }
}

/// Nobody is refused or dropped because of an error, where a packet would be.
#[inline(always)]
const fn without_owner(reason: Reason) -> Reason {
    match reason {
        Reason::EmptyPassed | Reason::EmptyDropped | Reason::EmptyRejected | Reason::StaleReference => {
            Reason::ErrorOwnerless
        }
        reason => reason,
    }
}

/// An error that a pod sends, or the host about a pod, like a reply of the flow.
#[inline(always)]
pub fn reply<F: Quoting, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    if IS_DIRECT { of_pod::<F, P, T>(packet, tables) } else { of_stack::<F, P, T>(packet, tables) }
}

/// An error that a pod sends, at the host's end of its link: like a reply, it goes straight to the uplink, as the VIP's.
#[inline(never)]
fn of_pod<F: Quoting, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Result<Delivery, Reason> {
    packet.gather(F::READ_MAX);
    let (outer, payload) = F::outer(packet).ok_or(Reason::Truncated)?;
    let quote = quote::<F, P>(packet, payload)?;
    let entry = entry_of::<F, T>(tables, &quote)?;
    if outer.source.0 != quote.destination.0 {
        return Err(Reason::NotAReply);
    }
    if entry.is_stack() {
        return Err(Reason::ReplyLeftToStack);
    }
    if outer.hops <= 1 {
        return Err(Reason::ReplyTtlExpired);
    }
    let way = way::way_of::<F, T>(tables, &entry)?;
    readdress_frame(packet, way.next_hop_mac, way.uplink_mac).ok_or(Reason::Truncated)?;
    let vip = F::from_stored(entry.vip);
    let ports = Ports { of_end: entry.vip_port, of_other: entry.client_port };
    let change = HeaderChange { end: End::Source, address: vip, counts_hop: true };
    translate(packet, &outer, change, &quote, (vip, ports)).ok_or(Reason::Truncated)?;
    to_uplink(packet, way, entry.tags, Reason::ErrorReplied)
}

/// An error that leaves by the uplink after the host's stack: a pod's, or the stack's own.
#[inline(never)]
fn of_stack<F: Quoting, P: Packet, T: Tables<F>>(packet: &mut P, tables: &T) -> Result<Delivery, Reason> {
    packet.gather(F::READ_MAX);
    let (outer, payload) = F::outer(packet).ok_or(Reason::Truncated)?;
    let quote = quote::<F, P>(packet, payload)?;
    let entry = entry_of::<F, T>(tables, &quote)?;
    if !entry.is_stack() {
        return Err(Reason::NotAReply);
    }
    let vip = F::from_stored(entry.vip);
    let ports = Ports { of_end: entry.vip_port, of_other: entry.client_port };
    let is_of_pod = outer.source.0 == quote.destination.0;
    let address = if is_of_pod { vip } else { outer.source.0 };
    let change = HeaderChange { end: End::Source, address, counts_hop: false };
    translate(packet, &outer, change, &quote, (vip, ports)).ok_or(Reason::Truncated)?;
    after_stack::<F, P, T>(packet, tables, &entry, Reason::ErrorReplied)
}

/// What the quoted packet came by, whether its pod accepted the flow or not.
#[inline(always)]
fn entry_of<F: Family, T: Tables<F>>(tables: &T, quote: &Quote<F>) -> Result<FlowEntry, Reason> {
    let key = F::flow_key(quote.source.pair(), quote.destination.pair());
    match known_flow(tables, quote.transport.number(), &key) {
        entry if entry.is_known() => Ok(entry),
        _ => Err(Reason::NotAReply),
    }
}

/// The quote of the frame's error, which is in `payload` bytes behind the IP header. Padding of the frame is none of it.
#[inline(always)]
pub(crate) fn quote<F: Quoting, P: Packet>(packet: &P, payload: u32) -> Result<Quote<F>, Reason> {
    let [kind] = packet.load::<1>(F::TRANSPORT_AT).ok_or(Reason::Truncated)?;
    if !F::is_error(kind) {
        return Err(Reason::Icmp);
    }
    let quoted_at = (F::QUOTED_TRANSPORT_AT - F::TRANSPORT_AT) as u32;
    if payload < quoted_at + 4 {
        return Err(Reason::ErrorCutShort);
    }
    let QuotedHeader { source, destination, protocol } = F::quoted_header(packet)?;
    let transport = match protocol {
        TCP => Transport::of_tcp(ESTABLISHED),
        UDP => Transport::UDP,
        SCTP => Transport::of_sctp(SctpView { chunk: chunk::DATA.into() }),
        _ => return Err(Reason::ErrorNotOurs),
    };
    let [a, b, c, d] = packet.load::<4>(F::QUOTED_TRANSPORT_AT).ok_or(Reason::ErrorCutShort)?;
    let sum_at = transport.checksum_offset();
    // Nobody compares SCTP's, which is over more than any error quotes.
    let has_sum = !transport.is_sctp()
        && payload >= quoted_at + sum_at as u32 + 2
        && packet.load::<2>(F::QUOTED_TRANSPORT_AT + sum_at).is_some();
    Ok(Quote { source: Endpoint(source, [a, b]), destination: Endpoint(destination, [c, d]), transport, has_sum })
}

/// One end of the error's own packet, and of the packet that it quotes, change; all sums follow.
#[inline(always)]
pub(crate) fn translate<F: Quoting, P: Packet>(
    packet: &mut P,
    outer: &Parsed<F>,
    change: HeaderChange<F>,
    quote: &Quote<F>,
    to: (F::Address, Ports),
) -> Option<()> {
    let (old, quoted_end) = match change.end {
        End::Source => (outer.source.0, End::Destination),
        End::Destination => (outer.destination.0, End::Source),
    };
    let message = requote(packet, quote, quoted_end, to)?;
    F::store_header(packet, outer, change)?;
    // Of the two sums only ICMPv6's covers the addresses (RFC 4443 chapter 2.3).
    let addresses = if F::HAS_HEADER_SUM { Difference::NONE } else { F::difference(old, change.address) };
    let sums = TransportChange { addresses, ports: message, zero_means_none: false, has_header_sum: F::HAS_HEADER_SUM };
    packet.follow(F::TRANSPORT_AT + 2, sums)
}

/// Gives one end of the quoted packet a new address, and its ends these ports; what all of that does to a sum over the quote.
#[inline(always)]
fn requote<F: Quoting, P: Packet>(
    packet: &mut P,
    quote: &Quote<F>,
    end: End,
    (address, new): (F::Address, Ports),
) -> Option<Difference> {
    let (source_at, destination_at) = (F::QUOTED_TRANSPORT_AT, F::QUOTED_TRANSPORT_AT + 2);
    let (Endpoint(old_address, old_port), port_at, Endpoint(_, other), other_at) = match end {
        End::Source => (quote.source, source_at, quote.destination, destination_at),
        End::Destination => (quote.destination, destination_at, quote.source, source_at),
    };
    let addresses = F::difference(old_address, address);
    let header = F::store_quoted(packet, end, old_address, address)?;
    packet.store(port_at, new.of_end)?;
    let mut ports = Difference::of_word(old_port, new.of_end);
    if new.of_other != [0; 2] {
        packet.store(other_at, new.of_other)?;
        ports = ports.plus(Difference::of_word(other, new.of_other));
    }
    if !quote.has_sum {
        return Some(header.plus(ports));
    }
    let is_udp = quote.transport.is_udp();
    let sums = TransportChange { addresses, ports, zero_means_none: is_udp, has_header_sum: F::HAS_HEADER_SUM };
    let sum_at = F::QUOTED_TRANSPORT_AT + quote.transport.checksum_offset();
    let old_sum = packet.load::<2>(sum_at)?;
    let new_sum = sums.applied_to(old_sum).unwrap_or(old_sum);
    packet.store(sum_at, new_sum)?;
    Some(header.plus(ports).plus(Difference::of_word(old_sum, new_sum)))
}
