//! When a flow is remembered, and how a reply finds it: the rules 3, 8 and 9 of flow admission.
//!
//! | rule | event | what is written | what is read |
//! |---|---|---|---|
//! | 3 | SYN, or a UDP datagram of an unknown flow | PENDING | - |
//! | 8 | the pod's SYN-ACK | - | PENDING (it is newer), else FLOWS |
//! | 8 | the pod's RST | - | FLOWS, else PENDING |
//! | 9 | the pod's other packets | PENDING moves to FLOWS if the pod's kernel owns the connection; for a pod whose sockets cannot be seen, by the strict rule | FLOWS, else PENDING |
//! | - | an ICMP error about the client's packet | - | FLOWS, else PENDING; of UDP the newer one |
//! | - | the pod's kernel accepts (sock_ops) | PENDING moves to FLOWS | PENDING |
//! | - | the pod's socket closes (sock_ops) | FLOWS is marked | FLOWS |
//!
//! SCTP's rules are in [`crate::sctp`].
//!
//! The strict rule (kernel-experiments chapter 3): payload or FIN, or an acknowledgement beyond the SYN-ACK's. A pod's
//! "first packet that is not a SYN-ACK" is no proof: two spoofed SYNs make a half-open socket send a pure ACK.
//!
//! Their places for later: the unique frontend (rules 3 and 9) and the hint (rule 9) at the end of [`find_reply`], UDP's
//! second datagram (rule 15) in [`udp_reply`], ageing (rule 10) where [`closed`] marks.

use crate::abi::{FlowEntry, SCTP, UDP, flow_flags};
use crate::family::Family;
use crate::parse::{Parsed, TcpView};
use crate::reason::Reason;
use crate::sctp;
use crate::stats::count_flow;
use crate::tables::{FlowTable, Proof, Tables};

/// Rule 3: a flow that may become a connection, by a SYN or a datagram. Packets of a connection, which are most, do
/// without the entry. True if the flow is new, or a SYN is repeated.
#[inline(always)]
pub fn note_client<F: Family, T: Tables<F>>(
    tables: &T,
    parsed: &Parsed<F>,
    key: &F::FlowKey,
    entry: &FlowEntry,
) -> bool {
    if !parsed.transport.is_udp() {
        let table = if parsed.transport.is_sctp() { FlowTable::SctpPending } else { FlowTable::TcpPending };
        tables.remember(table, key, entry);
        return true;
    }
    let (is_same_flow, is_same_way) = compared_udp(tables, key, entry);
    if !is_same_way {
        tables.remember(FlowTable::UdpPending, key, entry);
    }
    !is_same_flow
}

/// Whether what is known is the same flow, and whether it would go the same way. Each of the two entries is compared by
/// itself, rather than the newer one of both: a SYN takes 97 ns so and 105 otherwise, although it does not come here.
#[inline(always)]
fn compared_udp<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, entry: &FlowEntry) -> (bool, bool) {
    let compared = |known: FlowEntry| {
        let is_same_flow = is_of_same_service(&known, entry) && known.backend == entry.backend;
        (is_same_flow, is_same_way(&known, entry))
    };
    match tables.flow(FlowTable::UdpPending, key) {
        Some(known) => compared(known),
        None => tables.flow(FlowTable::Udp, key).map_or((false, false), compared),
    }
}

/// Whether both are flows of one service, and not of one and of another that has its id now.
#[inline(always)]
fn is_of_same_service(known: &FlowEntry, new: &FlowEntry) -> bool {
    known.service == new.service && known.generation == new.generation
}

/// Whether a reply by either entry would take the same way, and count alike.
#[inline(always)]
fn is_same_way(known: &FlowEntry, new: &FlowEntry) -> bool {
    known.vip == new.vip
        && known.vip_port == new.vip_port
        && is_of_same_service(known, new)
        && known.backend == new.backend
        && known.ingress_ifindex == new.ingress_ifindex
        && known.is_stack() == new.is_stack()
        && known.next_hop_mac == new.next_hop_mac
        && known.uplink_mac == new.uplink_mac
        && known.tags == new.tags
}

/// The entry by which a packet of a pod becomes a reply of its VIP; a way out if it is none.
#[inline(always)]
pub fn find_reply<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>) -> Result<(FlowEntry, Reason), Reason> {
    let key = F::flow_key(parsed.destination.pair(), parsed.source.pair());
    let found = match parsed.transport.tcp() {
        Some(tcp) if tcp.is_syn() => None,
        Some(tcp) if tcp.is_syn_ack() => syn_ack(tables, &key, &tcp),
        Some(tcp) => tcp_reply(tables, &key, &tcp),
        None => match parsed.transport.sctp() {
            Some(view) => sctp_reply(tables, &key, view.chunk),
            None => udp_reply(tables, &key),
        },
    };
    // Without an entry it has a value nevertheless: the verifier refuses to copy what one of two cases leaves open.
    match found.unwrap_or((FlowEntry::default(), Reason::NotAReply)) {
        (entry, reason) if reason != Reason::NotAReply => Ok((entry, reason)),
        _ if tables.is_backend(&F::endpoint_key(parsed.source.0, parsed.source.1, parsed.transport.number())) => {
            Err(Reason::ReplyUnknown)
        }
        _ => Err(Reason::NotAReply),
    }
}

/// Rule 8, SYN-ACK. Its acknowledgement number is kept for the strict rule.
#[inline(always)]
fn syn_ack<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, tcp: &TcpView) -> Option<(FlowEntry, Reason)> {
    if let Some(mut entry) = tables.flow(FlowTable::TcpPending, key) {
        entry.flags |= flow_flags::SYN_ACK_SEEN;
        entry.syn_ack_acknowledged = tcp.acknowledged;
        tables.remember(FlowTable::TcpPending, key, &entry);
        return Some((entry, Reason::RepliedHalfOpen));
    }
    tables.flow(FlowTable::Tcp, key).map(|entry| (entry, Reason::Replied))
}

/// Rules 8 (RST) and 9.
#[inline(always)]
fn tcp_reply<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, tcp: &TcpView) -> Option<(FlowEntry, Reason)> {
    if let Some(entry) = tables.flow(FlowTable::Tcp, key) {
        return Some((entry, Reason::Replied));
    }
    let entry = tables.flow(FlowTable::TcpPending, key)?;
    if tcp.is_reset() || !is_accepted(tables, key, tcp, &entry) {
        return Some((entry, Reason::RepliedHalfOpen));
    }
    tables.remember(FlowTable::Tcp, key, &entry);
    count_flow(tables, &entry);
    Some((entry, Reason::RepliedAdmitted))
}

/// Whether a packet of the pod shows that it accepted the connection.
#[inline(always)]
fn is_accepted<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, tcp: &TcpView, entry: &FlowEntry) -> bool {
    let Some(backend) = tables.backend(entry.backend.into()) else { return false };
    let proof = if backend.is_hidden() { Proof::Absent } else { tables.prove(&backend, key) };
    match proof {
        Proof::Owned | Proof::TimeWait => true,
        Proof::Listening | Proof::HalfOpen => false,
        Proof::Absent => is_strict_proof(tcp, entry),
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
fn sctp_reply<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, first_chunk: u32) -> Option<(FlowEntry, Reason)> {
    let reason = sctp::heard(tables, key, first_chunk);
    let table = match reason {
        Reason::NotAReply => return None,
        Reason::RepliedHalfOpen => FlowTable::SctpPending,
        _ => FlowTable::Sctp,
    };
    tables.flow(table, key).map(|entry| (entry, reason))
}

/// UDP: the first answer moves the flow, and so does the first after the client has come by another way: its newest
/// datagram decides.
#[inline(always)]
fn udp_reply<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey) -> Option<(FlowEntry, Reason)> {
    let newest = newest_udp(tables, key)?;
    let known = tables.flow(FlowTable::Udp, key);
    if !known.is_some_and(|known| is_same_way(&known, &newest)) {
        tables.remember(FlowTable::Udp, key, &newest);
    }
    Some((newest, if known.is_some() { Reason::Replied } else { Reason::RepliedAdmitted }))
}

/// The entry written last: an answered flow's is a copy of a pending one, so what is pending is never older.
#[inline(always)]
fn newest_udp<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey) -> Option<FlowEntry> {
    tables.flow(FlowTable::UdpPending, key).or_else(|| tables.flow(FlowTable::Udp, key))
}

/// What an error about a packet of the flow needs, or a later fragment, whether a pod accepted it or not. Nothing is learnt.
/// Of all zeros without an entry, which [`FlowEntry::is_known`] tells: the verifier refuses to copy what one of two cases
/// leaves open.
#[inline(always)]
pub fn known_flow<F: Family, T: Tables<F>>(tables: &T, protocol: u8, key: &F::FlowKey) -> FlowEntry {
    let accepted_first = |accepted, pending| tables.flow(accepted, key).or_else(|| tables.flow(pending, key));
    let found = match protocol {
        UDP => newest_udp(tables, key),
        SCTP => accepted_first(FlowTable::Sctp, FlowTable::SctpPending),
        _ => accepted_first(FlowTable::Tcp, FlowTable::TcpPending),
    };
    found.unwrap_or_default()
}

/// The pod's kernel accepted a connection. With TCP Fast Open its reply may have shown that before.
#[inline(always)]
pub fn accepted<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, pod: &F::EndpointKey) -> Option<Reason> {
    if let Some(entry) = tables.flow(FlowTable::TcpPending, key) {
        if tables.flow(FlowTable::Tcp, key) != Some(entry) {
            count_flow(tables, &entry);
        }
        tables.remember(FlowTable::Tcp, key, &entry);
        return Some(Reason::Accepted);
    }
    tables.is_backend(pod).then_some(Reason::AcceptedUnknown)
}

/// The pod's socket closed. The entry stays: late packets of the flow still need it.
#[inline(always)]
pub fn closed<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey) -> Option<Reason> {
    let mut entry = tables.flow(FlowTable::Tcp, key)?;
    entry.flags |= flow_flags::CLOSED;
    tables.remember(FlowTable::Tcp, key, &entry);
    Some(Reason::Closed)
}
