//! What `SERVICE_STATS` holds: how much each service has had to do.

use bytemuck::{Pod, Zeroable};

use super::FlowEntry;

/// Services with numbers of their own, at most: those whose ids are below it. An entry costs 56 bytes on each CPU.
pub const COUNTED_SERVICES_MAX: u32 = 4095;
/// Entries of `SERVICE_STATS`, by id of the Service port. The last one counts for all other services together.
pub const SERVICE_STATS_MAX: u32 = COUNTED_SERVICES_MAX + 1;
/// The index of that last one.
pub const OTHER_SERVICES: u16 = COUNTED_SERVICES_MAX as u16;

/// Value of `SERVICE_STATS`: the numbers of one Service port on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceStats {
    /// Grows each time the id is given to another service, which begins at zero. A flow of before, whose entry has the
    /// generation of before, counts no more.
    pub generation: u16,
    /// Always zero.
    pub zero: [u16; 3],
    /// Packets that went to the service's pods.
    pub packets_to_pods: u64,
    /// Bytes of these, from the IP header on.
    pub bytes_to_pods: u64,
    /// Packets that went back to clients.
    pub packets_to_clients: u64,
    /// Bytes of these, from the IP header on.
    pub bytes_to_clients: u64,
    /// TCP connections that pods accepted, and UDP flows that began.
    pub new_flows: u64,
    /// Sockets of clients inside that were directed to an endpoint.
    pub inside_flows: u64,
}
const _: () = assert!(size_of::<ServiceStats>() == 56);

impl ServiceStats {
    /// Whether the numbers are those of the service that a flow belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn are_of(&self, flow: &FlowEntry) -> bool {
        self.generation == flow.generation
    }

    /// These numbers and those of another CPU, which has the same generation.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            generation: other.generation,
            zero: [0; 3],
            packets_to_pods: self.packets_to_pods.wrapping_add(other.packets_to_pods),
            bytes_to_pods: self.bytes_to_pods.wrapping_add(other.bytes_to_pods),
            packets_to_clients: self.packets_to_clients.wrapping_add(other.packets_to_clients),
            bytes_to_clients: self.bytes_to_clients.wrapping_add(other.bytes_to_clients),
            new_flows: self.new_flows.wrapping_add(other.new_flows),
            inside_flows: self.inside_flows.wrapping_add(other.inside_flows),
        }
    }
}

/// Index of a service's numbers in `SERVICE_STATS`.
#[inline(always)]
#[must_use]
pub const fn stats_index(service: u32) -> u16 {
    if service < COUNTED_SERVICES_MAX { service as u16 } else { OTHER_SERVICES }
}
