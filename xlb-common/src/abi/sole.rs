//! Pod ports to which one frontend leads: what a reply needs that no flow entry knows.

use bytemuck::{Pod, Zeroable};

use super::Member;

/// Value of `SOLE_FRONTENDS_V4` and `SOLE_FRONTENDS_V6`, whose keys are a pod's address, port and protocol: the only frontend
/// that has led there since the port became a backend. Every connection that it has from outside came by that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct SoleFrontend {
    /// The backend, as it was then.
    pub backend: Member,
    /// The VIP; an IPv4 address is in the first four bytes.
    pub vip: [u8; 16],
    /// The VIP's port, network byte order.
    pub vip_port: [u8; 2],
    /// Always zero.
    pub zero: [u8; 2],
    /// Id of the Service port.
    pub service: u32,
}
const _: () = assert!(size_of::<SoleFrontend>() == 32);

/// Instead of a service's id in `SOURCE_RANGES_V4` and `SOURCE_RANGES_V6`: the networks of the cluster's nodes and pods, which
/// address pods directly. No service has this id ([`SERVICES_MAX`](super::SERVICES_MAX)).
pub const CLUSTER_NETWORKS: u32 = u32::MAX;
