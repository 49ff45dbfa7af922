//! What the maps for IP fragments hold: where the first one of a datagram went, which alone has the ports.

use bytemuck::{Pod, Zeroable};

/// Datagrams of one family whose fragments are followed: 2 MiB.
pub const FRAGMENTS_MAX: u32 = 16_384;

/// Key of `FRAGMENTS_V4`: by what a host puts a datagram together (RFC 791 chapter 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct FragmentKeyV4 {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Identification, network byte order.
    pub identification: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
const _: () = assert!(size_of::<FragmentKeyV4>() == 12);

/// Key of `FRAGMENTS_V6`. The next header is no part of it: only the first fragment's counts (RFC 8200 chapter 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct FragmentKeyV6 {
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Identification, network byte order.
    pub identification: [u8; 4],
}
const _: () = assert!(size_of::<FragmentKeyV6>() == 36);

/// Value of `FRAGMENTS_V4` and `FRAGMENTS_V6`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentEntry {
    /// When it was written, in nanoseconds of the kernel's monotonic clock.
    pub begun_ns: u64,
    /// [`fragment_kind::TO_POD`]: id of the backend.
    pub backend: u32,
    /// The backend's generation then.
    pub generation: u32,
    /// [`fragment_kind::TO_POD`]: id of the Service port.
    pub service: u32,
    /// Always zero.
    pub zero: u32,
    /// [`fragment_kind::REPLY`] and [`fragment_kind::OF_LINK`]: source port, network byte order.
    pub source_port: [u8; 2],
    /// [`fragment_kind::REPLY`] and [`fragment_kind::OF_LINK`]: destination port, network byte order.
    pub destination_port: [u8; 2],
    /// One of [`fragment_kind`].
    pub kind: u16,
    /// IP protocol number.
    pub protocol: u16,
}
const _: () = assert!(size_of::<FragmentEntry>() == 32);

/// Values of [`FragmentEntry::kind`]; zero: nothing is known.
pub mod fragment_kind {
    /// A later fragment came before the first one: all are left to the stack, which puts them together.
    pub const LEFT: u16 = 1;
    /// The first fragment went to a pod.
    pub const TO_POD: u16 = 2;
    /// The first fragment came from a backend.
    pub const REPLY: u16 = 3;
    /// The first fragment was of a flow of a client at a pod's link.
    pub const OF_LINK: u16 = 4;
}
