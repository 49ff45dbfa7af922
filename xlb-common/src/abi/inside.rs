//! What the maps for clients inside hold: processes of this node and of its pods that send to a VIP.

use bytemuck::{Pod, Zeroable};

/// Most endpoints, of the whole cluster, of one family: 2 MiB for IPv4.
pub const ENDPOINTS_MAX: u32 = 1 << 18;
/// Clients inside whose last endpoint is remembered.
pub const INSIDE_AFFINITY_MAX: u32 = 65_536;
/// TCP sockets inside whose peer is remembered.
pub const INSIDE_FLOWS_MAX: u32 = 65_536;
/// The same of UDP: a connected socket has one entry, another one two for each VIP that it sends to.
pub const INSIDE_UDP_FLOWS_MAX: u32 = 65_536;
/// Network namespaces of this node whose address is known, one entry for each family.
pub const NETNS_ADDRESSES_MAX: u32 = 16_384;

/// Value of `INSIDE_V4` and `INSIDE_V6`: a service as clients inside see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Inside {
    /// Id of the Service port, key of `SERVICES`.
    pub service: u32,
    /// First of its entries in `ENDPOINTS_V4` or `ENDPOINTS_V6`.
    pub endpoints_base: u32,
    /// How many there are, in order of address and port; zero: none is usable in the whole cluster.
    pub endpoints: u32,
    /// How many follow them, in order again, that take nothing new but still serve: a socket's datagrams go on to them.
    pub lingering: u32,
    /// How long after its last new connection a client's next one goes to the same endpoint, in seconds; zero: no
    /// affinity.
    pub affinity_s: u32,
    /// [`inside_flags`].
    pub flags: u32,
    /// With [`inside_flags::LOCAL_FOR_PODS`]: how many follow those that linger, in order again, for clients in pods.
    pub local: u32,
}
const _: () = assert!(size_of::<Inside>() == 28);

/// Bits of [`Inside::flags`].
pub mod inside_flags {
    /// Only clients that `SOURCE_RANGES_V4` or `SOURCE_RANGES_V6` lists.
    pub const SOURCE_RANGES: u32 = 1;
    /// Clients in pods get the local set instead of the cluster's, also if it is empty.
    pub const LOCAL_FOR_PODS: u32 = 2;
}

/// Key of `INSIDE_AFFINITY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct InsideAffinityKey {
    /// Cookie of the client's network namespace.
    pub client: u64,
    /// Id of the Service port, which is of one family.
    pub service: u32,
    /// Always zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<InsideAffinityKey>() == 16);

/// Value of `INSIDE_AFFINITY`: where the client's last connection went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct InsideAffinity {
    /// The endpoint's address; an IPv4 address is in the first four bytes.
    pub address: [u8; 16],
    /// Its port, network byte order.
    pub port: [u8; 2],
    /// Always zero.
    pub zero: [u8; 6],
    /// When, in nanoseconds of the kernel's monotonic clock.
    pub last_new_ns: u64,
}
const _: () = assert!(size_of::<InsideAffinity>() == 32);

/// Key of `INSIDE_FLOWS` (TCP) and `INSIDE_UDP_FLOWS`: a socket, and its peer as one side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct InsideFlowKey {
    /// The socket's cookie.
    pub socket: u64,
    /// The peer's address; an IPv4 address is in the first four bytes.
    pub address: [u8; 16],
    /// Its port, network byte order.
    pub port: [u8; 2],
    /// 1: the peer is an endpoint that answers; 0: the peer is a VIP that is sent to.
    pub is_answer: u8,
    /// 4 or 6.
    pub family: u8,
    /// IP protocol number, which also says in which map.
    pub protocol: u8,
    /// Always zero.
    pub zero: [u8; 3],
}
const _: () = assert!(size_of::<InsideFlowKey>() == 32);

/// Value of `INSIDE_FLOWS` and `INSIDE_UDP_FLOWS`: the peer as the other side sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct InsideFlow {
    /// Its address; an IPv4 address is in the first four bytes.
    pub address: [u8; 16],
    /// Its port, network byte order.
    pub port: [u8; 2],
    /// Always zero.
    pub zero: [u8; 2],
}
const _: () = assert!(size_of::<InsideFlow>() == 20);

/// Key of `NETNS_ADDRESSES`, whose values are addresses as `Backend` keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct NetnsAddressKey {
    /// The namespace's cookie, which no other one gets until the node starts anew (SO_NETNS_COOKIE).
    pub netns: u64,
    /// 4 or 6.
    pub family: u8,
    /// Always zero.
    pub zero: [u8; 7],
}
const _: () = assert!(size_of::<NetnsAddressKey>() == 16);
