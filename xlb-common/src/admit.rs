//! When a flow is remembered, and how a reply finds it: the rules 3, 8 and 9 of flow admission.
//!
//! | rule | event | what is written | what is read |
//! |---|---|---|---|
//! | 3 | SYN, or a UDP datagram of an unknown flow | PENDING | PENDING |
//! | 3 | SYN while the pod's kernel has the client's port connected to another frontend | nothing: it is dropped | PENDING |
//! | 3 | segment inside a connection that no flow map knows, to a frontend with [`STRAYS`](crate::abi::frontend_flags::STRAYS) | PENDING, for the pod's RST | FLOWS, else PENDING |
//! | 3 | UDP datagram of a port that has a flow with another frontend | nothing here ([`crate::twin`]) | PENDING, else FLOWS |
//! | 15 | the pod's first answer to a UDP flow that is pending | PENDING is marked as answered | PENDING, FLOWS |
//! | 15 | the client's second datagram, or the pod's second answer | PENDING is copied to FLOWS | PENDING, FLOWS |
//! | 8 | the pod's SYN-ACK | FLOWS is marked, if it is of another frontend, or unseen | PENDING (it is newer), else FLOWS |
//! | 8 | the pod's RST | - | FLOWS, else PENDING |
//! | 9 | the pod's other packets | PENDING moves to FLOWS if the pod's kernel owns the connection and its SYN-ACK passed; by the strict rule, if the kernel has neither that nor a request | FLOWS, else PENDING |
//! | 9 | the client acknowledges the SYN-ACK of a pod whose sockets cannot be seen | PENDING is copied to FLOWS | PENDING, FLOWS |
//! | 10 | a packet of the pod in an unseen flow | FLOWS has the time, FIN and RST | FLOWS |
//! | - | an ICMP error about the client's packet | - | FLOWS, else PENDING; of UDP the newer one |
//! | - | the pod's kernel accepts (sock_ops) | PENDING moves to FLOWS | PENDING |
//! | 10 | the pod's socket closes (sock_ops) | FLOWS moves to PENDING, marked | FLOWS |
//!
//! SCTP's rules are in [`crate::sctp`].
//!
//! The strict rule (kernel-experiments chapter 3): payload or FIN, or an acknowledgement beyond the SYN-ACK's. A pod's
//! "first packet that is not a SYN-ACK" is no proof: two spoofed SYNs make a half-open socket send a pure ACK.
//!
//! Rule 10 is in [`crate::ageing`]. Rules 8 and 9 end with the unique frontend, for which there is a
//! [`Kind`](crate::hook::Kind) of its own ([`crate::sole`]).

use crate::abi::{Backend, FlowEntry, SCTP, UDP, flow_flags};
use crate::ageing::heard_unseen;
use crate::family::Family;
use crate::parse::{Endpoint, Parsed, TcpView};
use crate::reason::Reason;
use crate::sctp;
use crate::stats::count_flow;
use crate::tables::{FlowTable, Proof, Tables};
use crate::twin::is_idle;

pub use self::acknowledged::acknowledged;
use self::acknowledged::folded;
use self::datagrams::udp_reply;
pub use self::datagrams::{newest_udp, note_datagram};

mod acknowledged;
mod datagrams;

/// Rule 3: a flow that may become a connection, by a SYN or a datagram. Packets of a connection, which are most, do
/// without the entry. True if the flow is new, or a SYN is repeated.
#[inline(always)]
pub fn note_client<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    key: &F::FlowKey,
    entry: &FlowEntry,
    port: ClientPort,
) -> Result<bool, Reason> {
    if parsed.transport.is_udp() {
        return note_datagram(tables, key, entry);
    }
    let table = if parsed.transport.is_sctp() { FlowTable::SctpPending } else { FlowTable::TcpPending };
    // To write over what is there takes no other flow's place, and is much cheaper.
    if port != ClientPort::Known || !tables.change(table, key, |known| *known = *entry) {
        tables.remember(table, key, entry);
    }
    Ok(true)
}

/// What is known of a client's port at a pod, when it sends a SYN or an INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPort {
    /// Nothing that would be in the way.
    Free,
    /// PENDING has the flow, with the same frontend.
    Known,
    /// The pod would take it for one of a connection to another frontend.
    InUse,
}

/// Whether the pod would take a SYN or an INIT for one of a connection of the client's port to another frontend. Asked
/// before the entry is made: the verifier walks through it once for each way to make one.
#[inline(always)]
pub fn client_port<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    key: &F::FlowKey,
    backend: &Backend,
) -> ClientPort {
    match (parsed.transport.is_udp(), parsed.transport.is_sctp()) {
        (true, _) => ClientPort::Free,
        (_, true) if is_associated(tables, parsed, key) => ClientPort::InUse,
        (_, true) => ClientPort::Free,
        _ => tcp_port(tables, parsed, key, backend),
    }
}

/// Whether the pod's kernel has a connection of the client's port to another frontend, or a handshake, as far as PENDING
/// tells: an accepted flow stays there until it is evicted. Of an older one the pod's kernel answers by an acknowledgement,
/// which leaves as that one's VIP: the SYN is refused all the same, and not counted. A look into FLOWS would cost every SYN
/// two cache misses. A kernel that cannot be asked decides for itself.
#[inline(never)]
fn tcp_port<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    key: &F::FlowKey,
    backend: &Backend,
) -> ClientPort {
    let Some(known) = tables.flow_at(FlowTable::TcpPending, key) else { return ClientPort::Free };
    if is_to(&known, parsed) {
        return ClientPort::Known;
    }
    let is_connected = !backend.is_hidden() && matches!(tables.prove(backend, key), Proof::Owned | Proof::HalfOpen);
    if is_connected { ClientPort::InUse } else { ClientPort::Free }
}

/// Whether the pod has an association of the client's port to another frontend, as far as its packets say: it would take
/// the INIT for a restart of that (RFC 9260 chapter 5.2.2).
#[inline(always)]
fn is_associated<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, key: &F::FlowKey) -> bool {
    tables
        .flow_at(FlowTable::Sctp, key)
        .is_some_and(|known| !known.is_closed() && !is_to(&known, parsed) && !is_idle(&known, tables.now()))
}

/// Whether both are flows to one frontend, from the same port.
#[inline(always)]
fn is_same_frontend(known: &FlowEntry, new: &FlowEntry) -> bool {
    is_between(known, new.vip, new.vip_port, new.client_port)
}

/// Whether the entry's flow is the packet's, from the port that it has.
#[inline(always)]
pub fn is_to<F: Family>(entry: &FlowEntry, parsed: &Parsed<F>) -> bool {
    let Endpoint(vip, port) = parsed.destination;
    is_between(entry, F::to_stored(vip), port, [0; 2])
}

/// Whether the entry's flow goes to this frontend, from a client whose own port is this one, or the one that the pod sees.
/// One comparison, as all others of entries: the verifier walks through what follows for each of several.
#[inline(always)]
pub fn is_between(entry: &FlowEntry, vip: [u8; 16], vip_port: [u8; 2], client_port: [u8; 2]) -> bool {
    let port = |bytes: [u8; 2]| u64::from(u16::from_ne_bytes(bytes));
    let vips = u128::from_ne_bytes(entry.vip) ^ u128::from_ne_bytes(vip);
    let ports = (port(entry.vip_port) ^ port(vip_port)) | (port(entry.client_port) ^ port(client_port));
    vips as u64 | (vips >> 64) as u64 | ports == 0
}

/// The entry by which a packet of a pod becomes a reply of its VIP; a way out if it is none.
#[inline(always)]
pub fn find_reply<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>) -> Result<(FlowEntry, Reason), Reason> {
    let key = F::flow_key(parsed.destination.pair(), parsed.source.pair());
    let found = match parsed.transport.tcp() {
        Some(tcp) if tcp.is_syn() => None,
        Some(tcp) => tcp_reply(tables, &key, &tcp),
        None => match parsed.transport.sctp() {
            Some(view) => sctp_reply(tables, &key, view.chunk),
            None => udp_reply(tables, &key),
        },
    };
    match found {
        // Copied once, where all ways meet: for each of them there is no room on the stack.
        Some((entry, reason)) => Ok((*entry, reason)),
        _ if tables.is_backend(&F::endpoint_key(parsed.source.0, parsed.source.1, parsed.transport.number())) => {
            Err(Reason::ReplyUnknown)
        }
        _ => Err(Reason::NotAReply),
    }
}

/// TCP: by the table that [`heard_tcp`] names, of an accepted flow at once.
#[inline(always)]
fn tcp_reply<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, tcp: &TcpView) -> Option<(T::Flow, Reason)> {
    if !tcp.is_syn_ack()
        && let Some(entry) = tables.flow_at(FlowTable::Tcp, key)
        && entry.is_plain()
    {
        return Some((entry, Reason::Replied));
    }
    let reason = heard_tcp(tables, key, tcp);
    let table = match reason {
        Reason::NotAReply => return None,
        Reason::RepliedHalfOpen => FlowTable::TcpPending,
        _ => FlowTable::Tcp,
    };
    tables.flow_at(table, key).map(|entry| (entry, reason))
}

/// What a packet of the pod does to a flow that is not accepted, and by which table it is a reply: FLOWS for
/// [`Reason::Replied`] and [`Reason::RepliedAdmitted`], PENDING for [`Reason::RepliedHalfOpen`], else none. In one register,
/// as [`sctp::heard`].
#[inline(never)]
fn heard_tcp<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, tcp: &TcpView) -> Reason {
    if tcp.is_syn_ack() {
        return heard_syn_ack(tables, key, tcp);
    }
    if heard_unseen(tables, key, tcp) {
        return Reason::Replied;
    }
    let Some(entry) = tables.flow_at(FlowTable::TcpPending, key) else { return Reason::NotAReply };
    match shown(tables, key, tcp, &entry) {
        Shown::Handshake => Reason::RepliedHalfOpen,
        Shown::OtherConnection => Reason::NotAReply,
        Shown::Connection => {
            admit(tables, key, &entry);
            Reason::RepliedAdmitted
        }
        Shown::ByPackets => {
            admit_unseen(tables, key, &entry);
            heard_unseen(tables, key, tcp);
            Reason::RepliedAdmitted
        }
    }
}

#[inline(always)]
fn admit<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, entry: &FlowEntry) {
    tables.remember(FlowTable::Tcp, key, entry);
    count_flow(tables, entry);
}

/// The same, of a flow whose packets are all that tells of it.
#[inline(always)]
fn admit_unseen<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, entry: &FlowEntry) {
    admit(tables, key, entry);
    tables.change(FlowTable::Tcp, key, |entry| entry.flags |= flow_flags::UNSEEN);
}

/// Rule 8, SYN-ACK. Its acknowledgement number is kept for the strict rule, and its own for the client's acknowledgement. A pod
/// that answers a SYN has no connection of this client's port any more: an accepted flow is over. Of one with the same frontend
/// the entry does as well, unless its packets would tell of both.
#[inline(always)]
fn heard_syn_ack<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, tcp: &TcpView) -> Reason {
    let known = tables.flow_at(FlowTable::Tcp, key);
    let Some(entry) = tables.flow_at(FlowTable::TcpPending, key) else {
        return if known.is_some() { Reason::Replied } else { Reason::NotAReply };
    };
    if known.is_some_and(|known| known.is_unseen() || !is_same_frontend(&known, &entry)) {
        tables.change(FlowTable::Tcp, key, |known| known.flags |= flow_flags::SUPERSEDED);
    }
    tables.change(FlowTable::TcpPending, key, |entry| {
        entry.flags |= flow_flags::SYN_ACK_SEEN;
        entry.syn_ack_acknowledged = tcp.acknowledged;
        entry.syn_ack_number = folded(tcp.sequence.wrapping_add(1));
    });
    Reason::RepliedHalfOpen
}

/// What a packet of the pod shows of a pending entry: rules 8 (RST) and 9. One of a connection whose SYN-ACK the entry has
/// not seen is nobody's reply: the entry may be of a SYN to another frontend.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// Nothing more.
    Handshake,
    /// The pod accepted the connection.
    Connection,
    /// The same, and its packets are all that tells.
    ByPackets,
    /// The pod has a connection from before the SYN.
    OtherConnection,
}

#[inline(always)]
fn shown<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, tcp: &TcpView, entry: &FlowEntry) -> Shown {
    // Of a flow that is over only late packets come, for which the entry need not move.
    if tcp.is_reset() || entry.is_closed() {
        return Shown::Handshake;
    }
    let Some(backend) = tables.backend(entry.backend.into()) else { return Shown::Handshake };
    let proof = if backend.is_hidden() { Proof::Absent } else { tables.prove(&backend, key) };
    match proof {
        Proof::Owned | Proof::TimeWait if entry.flags & flow_flags::SYN_ACK_SEEN == 0 => Shown::OtherConnection,
        Proof::Owned | Proof::TimeWait => Shown::Connection,
        // A listener alone sends nothing but SYN-ACKs and resets: somebody else in the pod has the connection.
        Proof::Absent | Proof::Listening if is_strict_proof(tcp, entry) => Shown::ByPackets,
        Proof::Absent | Proof::Listening | Proof::HalfOpen => Shown::Handshake,
    }
}

/// The strict rule, for pods whose sockets cannot be seen.
#[inline(always)]
const fn is_strict_proof(tcp: &TcpView, entry: &FlowEntry) -> bool {
    let is_beyond_syn_ack =
        entry.flags & flow_flags::SYN_ACK_SEEN != 0 && tcp.acknowledged != entry.syn_ack_acknowledged;
    tcp.data_length != 0 || tcp.is_fin() || is_beyond_syn_ack
}

/// SCTP: by the table that the packet's first chunk leads to.
#[inline(always)]
fn sctp_reply<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, first_chunk: u32) -> Option<(T::Flow, Reason)> {
    let reason = sctp::heard(tables, key, first_chunk);
    let table = match reason {
        Reason::NotAReply => return None,
        Reason::RepliedHalfOpen => FlowTable::SctpPending,
        _ => FlowTable::Sctp,
    };
    let entry = tables.flow_at(table, key)?;
    refresh_at(tables, table, key, entry.last_seen);
    Some((entry, reason))
}

/// Writes that a flow was seen now, unless that is known.
#[inline(never)]
fn refresh_at<F: Family, T: Tables<F>>(tables: &T, table: FlowTable, key: &F::FlowKey, last_seen: u32) {
    let now = tables.now();
    if now != last_seen {
        tables.change(table, key, |entry| entry.last_seen = now);
    }
}

/// What an error about a packet of the flow needs, or a later fragment, whether a pod accepted it or not. Nothing is learnt.
/// Of all zeros without an entry, which [`FlowEntry::is_known`] tells: the verifier refuses to copy what one of two cases
/// leaves open.
#[inline(always)]
pub fn known_flow<F: Family, T: Tables<F>>(tables: &T, protocol: u8, key: &F::FlowKey) -> FlowEntry {
    let found = match protocol {
        UDP => newest_udp(tables, key),
        SCTP => tables.flow_at(FlowTable::Sctp, key).or_else(|| tables.flow_at(FlowTable::SctpPending, key)),
        _ => tcp_flow(tables, key),
    };
    found.map_or_else(FlowEntry::default, |entry| *entry)
}

/// The TCP flow that the pod has, if it has one: the accepted one, unless a handshake with another frontend came after it.
#[inline(always)]
pub fn tcp_flow<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey) -> Option<T::Flow> {
    let accepted = tables.flow_at(FlowTable::Tcp, key).filter(|entry| !entry.is_superseded());
    accepted.or_else(|| tables.flow_at(FlowTable::TcpPending, key))
}

/// The flow of which the pod's kernel said this.
#[inline(always)]
pub fn holder<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, proof: Proof) -> Option<T::Flow> {
    if proof == Proof::HalfOpen { tables.flow_at(FlowTable::TcpPending, key) } else { tcp_flow(tables, key) }
}

/// The pod's kernel accepted a connection. With TCP Fast Open its reply may have shown that before.
#[inline(always)]
pub fn accepted<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, pod: &F::EndpointKey) -> Option<Reason> {
    if let Some(entry) = tables.flow(FlowTable::TcpPending, key) {
        if !tables.flow(FlowTable::Tcp, key).is_some_and(|known| known.is_admitted_from(&entry)) {
            count_flow(tables, &entry);
        }
        tables.remember(FlowTable::Tcp, key, &entry);
        return Some(Reason::Accepted);
    }
    tables.is_backend(pod).then_some(Reason::AcceptedUnknown)
}
