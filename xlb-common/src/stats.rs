//! What is counted of each service, and when.
//!
//! | what | when it counts |
//! |---|---|
//! | packets and bytes to pods | a packet of a client is delivered, by whatever rule; never at two hooks |
//! | packets and bytes to clients | a reply leaves as the VIP's |
//! | a new flow | TCP: a pod accepts the connection, so that a SYN that is repeated, refused or spoofed is none. UDP: a datagram of a flow that nobody knows |
//! | a flow of a client inside | its socket is directed to an endpoint: by connect, or by the first datagram to the VIP |
//!
//! Packets are those of the wire: one that GRO or TSO made of several counts as several. Bytes are those of IP packets, as
//! their headers say; the headers of one that was made of several count once.

use crate::abi::{FlowEntry, ServiceStats, stats_index};
use crate::family::Family;
use crate::packet::Packet;
use crate::tables::Tables;

/// A packet goes to a pod of the service.
#[inline(always)]
pub fn count_forward<F: Family, P: Packet, T: Tables<F>>(tables: &T, packet: &P, service: u32) {
    tables.count_service(stats_index(service), |stats: &mut ServiceStats| {
        stats.packets_to_pods += u64::from(packet.segments());
        stats.bytes_to_pods += u64::from(F::ip_length(packet));
    });
}

/// A packet of this flow went back to its client.
#[inline(always)]
pub fn count_reply<F: Family, P: Packet, T: Tables<F>>(tables: &T, packet: &P, flow: &FlowEntry) {
    tables.count_service(stats_index(flow.service), |stats: &mut ServiceStats| {
        if stats.are_of(flow) {
            stats.packets_to_clients += u64::from(packet.segments());
            stats.bytes_to_clients += u64::from(F::ip_length(packet));
        }
    });
}

/// This flow began.
#[inline(always)]
pub fn count_flow<F: Family, T: Tables<F>>(tables: &T, flow: &FlowEntry) {
    tables.count_service(stats_index(flow.service), |stats: &mut ServiceStats| {
        if stats.are_of(flow) {
            stats.new_flows += 1;
        }
    });
}

/// A socket of a client inside was directed to an endpoint of the service.
#[inline(always)]
pub fn count_inside<F: Family, T: Tables<F>>(tables: &T, service: u32) {
    tables.count_service(stats_index(service), |stats: &mut ServiceStats| stats.inside_flows += 1);
}

/// What [`FlowEntry::generation`] of a new flow of the service has to be.
#[inline(always)]
pub fn generation_of<F: Family, T: Tables<F>>(tables: &T, service: u32) -> u16 {
    let mut generation = 0;
    tables.count_service(stats_index(service), |stats: &mut ServiceStats| generation = stats.generation);
    generation
}
