//! What the maps for clients at a pod's link hold: those whose sockets nobody saw choose an endpoint.

use bytemuck::{Pod, Zeroable};

/// Entries for TCP connections of clients at links, two for each: 12 MiB.
pub const LINK_FLOWS_MAX: u32 = 65_536;
/// The same of UDP.
pub const LINK_UDP_FLOWS_MAX: u32 = 65_536;
/// Clients at links whose last endpoint is remembered.
pub const LINK_AFFINITY_MAX: u32 = 16_384;
/// Entries of `CLIENT_LINKS`, by the low bits of the link's index. Where two links share one, both are looked at.
pub const CLIENT_LINKS_MAX: u32 = 4_096;

/// Key of `LINK_FLOWS` (TCP) and `LINK_UDP_FLOWS`: the client, and its peer as one side sees it. The values are as those of
/// `INSIDE_FLOWS`: the peer as the other side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct LinkFlowKey {
    /// The client's address; an IPv4 address is in the first four bytes.
    pub client: [u8; 16],
    /// The peer's.
    pub peer: [u8; 16],
    /// The client's port, network byte order.
    pub client_port: [u8; 2],
    /// The peer's.
    pub peer_port: [u8; 2],
    /// 1: the peer is an endpoint that answers; 0: the peer is a VIP that is sent to.
    pub is_answer: u8,
    /// 4 or 6.
    pub family: u8,
    /// IP protocol number, which also says in which map.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
const _: () = assert!(size_of::<LinkFlowKey>() == 40);
