//! Keys of the maps. A family's have the same fields, and differ in the width of an address.

use bytemuck::{Pod, Zeroable};

/// Key of `FRONTENDS_V4` and `BACKEND_IDS_V4`: an address, a protocol and a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct EndpointKeyV4 {
    /// IPv4 address.
    pub address: [u8; 4],
    /// Port, network byte order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
const _: () = assert!(size_of::<EndpointKeyV4>() == 8);

/// Key of the flow maps: the two ends as the pod sees them. Each protocol has maps of its own, so no protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct FlowKeyV4 {
    /// The client's address.
    pub client: [u8; 4],
    /// The pod's address.
    pub pod: [u8; 4],
    /// The client's port, network byte order.
    pub client_port: [u8; 2],
    /// The pod's port, network byte order.
    pub pod_port: [u8; 2],
}
const _: () = assert!(size_of::<FlowKeyV4>() == 12);

/// Key of `FRONTENDS_V6` and `BACKEND_IDS_V6`: an address, a protocol and a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct EndpointKeyV6 {
    /// IPv6 address.
    pub address: [u8; 16],
    /// Port, network byte order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
const _: () = assert!(size_of::<EndpointKeyV6>() == 20);

/// Key of the IPv6 flow maps: the two ends as the pod sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct FlowKeyV6 {
    /// The client's address.
    pub client: [u8; 16],
    /// The pod's address.
    pub pod: [u8; 16],
    /// The client's port, network byte order.
    pub client_port: [u8; 2],
    /// The pod's port, network byte order.
    pub pod_port: [u8; 2],
}
const _: () = assert!(size_of::<FlowKeyV6>() == 36);

/// What `SOURCE_RANGES_V4` matches, behind the prefix length that every LPM trie key begins with. The service counts in
/// full, so an entry's prefix is 32 bits longer than its range's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct SourceKeyV4 {
    /// Id of the Service port.
    pub service: u32,
    /// The client's address.
    pub client: [u8; 4],
}
const _: () = assert!(size_of::<SourceKeyV4>() == 8);

/// What `SOURCE_RANGES_V6` matches: see [`SourceKeyV4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct SourceKeyV6 {
    /// Id of the Service port.
    pub service: u32,
    /// The client's address.
    pub client: [u8; 16],
}
const _: () = assert!(size_of::<SourceKeyV6>() == 20);
