//! Replies without an entry: the end of rules 8 and 9 of flow admission ("unique frontend").
//!
//! Where one frontend alone has ever led to a pod port, each connection that the port has with the outside is one to that
//! frontend: its VIP and port need not be remembered. What else an entry says comes from elsewhere.
//!
//! | an entry's | comes from |
//! |---|---|
//! | VIP, port, service | `SOLE_FRONTENDS` |
//! | delivery mode | the backend: its mode never changes while it is in use |
//! | uplink, MACs | the host's route by its only uplink; in mode stack the host has routed the reply already |
//! | VLAN tags | nowhere: it leaves without |
//!
//! It holds only if clients outside never address pods themselves, by routes to them or through node ports: the operator says
//! so (`--pod-ips cluster-only`), and which networks are not outside. Of TCP alone: a UDP socket sends to whom it likes. Fragments,
//! and packets with tags, options or extension headers, are not worth it.
//! Entries are written as ever and come first. So a port that gains a second frontend needs no care: it loses this way out, and
//! its connections keep their entries.

use crate::abi::{CLUSTER_NETWORKS, FlowEntry, TCP, Way, flow_flags};
use crate::family::Family;
use crate::packet::Packet;
use crate::parse::{Endpoint, Parsed, wanted};
use crate::path::Delivery;
use crate::reason::Reason;
use crate::reply::send;
use crate::select::live;
use crate::stats::generation_of;
use crate::tables::Tables;

/// A packet of which no entry is known, though it comes from a backend's port.
#[inline(never)]
pub fn reply<F: Family, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    let parsed = F::parse::<P, { wanted::TCP_AND_UDP }>(packet)?;
    let entry = entry_of(tables, &parsed).ok_or(Reason::ReplyUnknown)?;
    send::<F, P, T, IS_DIRECT>(packet, tables, &parsed, &entry, Reason::RepliedAlone)
}

/// What an entry would say of the reply.
#[inline(always)]
fn entry_of<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>) -> Option<FlowEntry> {
    let (Endpoint(pod, port), Endpoint(client, _)) = (parsed.source, parsed.destination);
    let is_of_connection = parsed.transport.tcp().is_some_and(|tcp| !tcp.is_syn());
    if !is_of_connection || !tables.settings().pods_are_clusters() || tables.is_allowed_source(CLUSTER_NETWORKS, client)
    {
        return None;
    }
    let sole = tables.sole_frontend(&F::endpoint_key(pod, port, TCP))?;
    let is_direct = live::<F, T>(tables, sole.backend.id(), sole.backend.generation)?.is_direct();
    let way = if is_direct { tables.route(F::from_stored(sole.vip), client)? } else { Way::default() };
    Some(FlowEntry {
        vip: sole.vip,
        vip_port: sole.vip_port,
        flags: if is_direct { 0 } else { flow_flags::STACK },
        service: sole.service,
        backend: sole.backend.backend,
        generation: generation_of(tables, sole.service),
        ingress_ifindex: way.ifindex,
        next_hop_mac: way.next_hop_mac,
        uplink_mac: way.uplink_mac,
        ..FlowEntry::default()
    })
}
