//! The first packet of a flow: what has to be known of it before its pod answers. It is asked of two others inside connections: in hot
//! times of one whose entry is lost ([`crate::hot`]), and of a stray, whose pod is gone: all that its new pod will say of it is a
//! reset, which has to reach the client.

use crate::abi::{Backend, FlowEntry, flow_flags};
use crate::admit::{ClientPort, client_port, note_client, tcp_flow};
use crate::family::Family;
use crate::hot::answered;
use crate::parse::Parsed;
use crate::path::Arrival;
use crate::reason::Reason;
use crate::select::{Pick, backend_of, opens_flow};
use crate::stats::{count_flow, generation_of};
use crate::tables::Tables;

/// A packet that may begin a flow, bring its entry back, or be a stray, and where it was picked to go.
pub struct Opening<'a, F: Family> {
    /// Id of the Service port.
    pub service: u32,
    /// The packet.
    pub parsed: &'a Parsed<F>,
    /// Its pod.
    pub pick: Pick,
    /// How it came.
    pub arrival: &'a Arrival,
}

impl<F: Family> Opening<'_, F> {
    /// What a reply of the flow needs.
    #[inline(always)]
    pub fn entry<T: Tables<F>>(&self, tables: &T, backend: &Backend) -> FlowEntry {
        let Self { service, parsed, pick, arrival } = *self;
        // Asked for before the rest is read: what a register holds then does not outlive a call of the kernel's.
        let (generation, last_seen) = (generation_of(tables, service), tables.now());
        FlowEntry {
            vip: F::to_stored(parsed.destination.0),
            vip_port: parsed.destination.1,
            flags: if backend.is_direct() { 0 } else { flow_flags::STACK },
            service,
            backend: pick.reference().0 as u16,
            generation,
            ingress_ifindex: arrival.ifindex,
            next_hop_mac: parsed.macs.source,
            uplink_mac: parsed.macs.destination,
            syn_ack_acknowledged: 0,
            last_seen,
            tags: arrival.tags,
            client_port: [0; 2],
            syn_ack_number: 0,
        }
    }
}

/// What has to be known of a flow before its pod answers. True if it is new, or a SYN is repeated. A segment inside a connection
/// counts only if no flow map knows it.
#[inline(always)]
pub fn note_opening<F: Family, T: Tables<F>>(tables: &T, opening: &Opening<F>) -> Result<bool, Reason> {
    let parsed = opening.parsed;
    let Ok(backend) = backend_of(tables, &opening.pick) else { return Ok(false) };
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let is_inside = !opens_flow(parsed);
    if is_inside && tcp_flow(tables, &key).is_some() {
        return Ok(false);
    }
    let port = if is_inside { ClientPort::Free } else { client_port(tables, parsed, &key, &backend) };
    if port == ClientPort::InUse {
        return Err(Reason::PortInUse);
    }
    let mut entry = opening.entry(tables, &backend);
    if is_inside {
        answered(&mut entry, parsed);
    }
    if parsed.transport.is_syn() && !parsed.transport.is_sctp() {
        tables.note_half_open(opening.arrival.ifindex);
    }
    let is_new = note_client(tables, parsed, &key, &entry, port)?;
    if is_new && parsed.transport.is_udp() {
        count_flow(tables, &entry);
    }
    Ok(is_new && !is_inside)
}
