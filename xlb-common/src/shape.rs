//! Where a packet's headers are when they are not where they usually are: VLAN tags in front of them, IPv4 options or
//! IPv6 extension headers between them.
//!
//! The path knows one shape, with constant offsets. Whatever has another is measured here, and then seen through
//! [`Shifted`](crate::shifted::Shifted), which gives it the usual one.

use crate::abi::Tags;
use crate::packet::Packet;
use crate::parse::{ETHER_TYPE_AT, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_LENGTH};
use crate::reason::Reason;

mod extensions;
mod options;

/// Bytes of a tag.
pub const TAG_LENGTH: usize = 4;
/// Most bytes of tags: an outer and an inner one.
pub const TAGS_MAX: usize = 2 * TAG_LENGTH;
/// Most bytes of options or extension headers.
pub const BETWEEN_MAX: usize = 256;
/// Bytes that the path may read of a packet of any shape: Ethernet, tags, IPv6, what is between, TCP.
pub const HEADERS_MAX: usize = ETHERNET_LENGTH + TAGS_MAX + 40 + BETWEEN_MAX + 20;

/// The type of a customer's tag (IEEE 802.1Q).
pub const ETHER_TYPE_VLAN: [u8; 2] = [0x81, 0x00];
/// The type of a provider's tag (IEEE 802.1ad), in front of a customer's.
pub const ETHER_TYPE_PROVIDER_VLAN: [u8; 2] = [0x88, 0xa8];

/// What has been measured. It fits a register, and all of it has a value: the verifier refuses to copy what one of two
/// cases leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Shape {
    /// Why the packet has no shape that can be served, if [`Shape::version`] is zero.
    reason: Reason,
    between: u16,
    tags: u8,
    version: u8,
    protocol: u8,
    zero: u8,
}
const _: () = assert!(size_of::<Shape>() == 8);

/// What is between the fixed IP header and the transport's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// Bytes of options or extension headers.
    pub length: u32,
    /// IP protocol number of what follows them.
    pub protocol: u8,
}

/// Measures a packet. A function of its own, so that its place on the stack is free when the packet is served.
#[inline(never)]
pub fn measure<P: Packet>(packet: &mut P) -> Shape {
    packet.gather(HEADERS_MAX);
    match shape_of(packet) {
        Ok(shape) => shape,
        Err(reason) => Shape { reason, between: 0, tags: 0, version: 0, protocol: 0, zero: 0 },
    }
}

#[inline(always)]
fn shape_of<P: Packet>(packet: &P) -> Result<Shape, Reason> {
    let (tags, ether_type) = in_line(packet)?;
    let tags = packet.any(tags);
    let (version, between) = match ether_type {
        ETHER_TYPE_IPV4 => (4, options::measure(packet, tags)?),
        ETHER_TYPE_IPV6 => (6, extensions::measure(packet, tags)?),
        _ => return Err(Reason::NotIp),
    };
    let Between { length, protocol } = between;
    Ok(Shape {
        reason: Reason::NotIp,
        between: packet.any(length) as u16,
        tags: packet.any(tags) as u8,
        version,
        protocol: packet.any(protocol.into()) as u8,
        zero: 0,
    })
}

/// Bytes of tags in front of the Ethernet type, and that type. With the tag that the kernel keeps beside the packet they
/// are two at most.
#[inline(always)]
fn in_line<P: Packet>(packet: &P) -> Result<(u32, [u8; 2]), Reason> {
    let ether_type = |at: usize| packet.load_moved::<2>(at, 0).ok_or(Reason::Truncated);
    let first = ether_type(ETHER_TYPE_AT)?;
    if !is_tag(first) {
        return Ok((0, first));
    }
    let second = ether_type(ETHER_TYPE_AT + TAG_LENGTH)?;
    if !is_tag(second) || packet.has_tag_beside() {
        return Ok((TAG_LENGTH as u32, second));
    }
    Ok((TAGS_MAX as u32, ether_type(ETHER_TYPE_AT + TAGS_MAX)?))
}

/// Whether there is a tag in line.
#[inline(always)]
pub fn is_tagged<P: Packet>(packet: &P) -> bool {
    packet.load::<2>(ETHER_TYPE_AT).is_some_and(is_tag)
}

#[inline(always)]
const fn is_tag(ether_type: [u8; 2]) -> bool {
    matches!(ether_type, ETHER_TYPE_VLAN | ETHER_TYPE_PROVIDER_VLAN)
}

/// The tags of a packet that was measured, in line and beside it.
#[inline(never)]
pub fn tags_of<P: Packet>(packet: &P, shape: Shape) -> Tags {
    let tag = |is_there: bool, at: usize| {
        if is_there { packet.load_moved::<TAG_LENGTH>(at, 0).unwrap_or([0; 4]) } else { [0; 4] }
    };
    let first = tag(shape.tags != 0, ETHER_TYPE_AT);
    if packet.has_tag_beside() {
        return Tags { outer: packet.tag_beside(), inner: first };
    }
    Tags { outer: first, inner: tag(usize::from(shape.tags) == TAGS_MAX, ETHER_TYPE_AT + TAG_LENGTH) }
}

impl Shape {
    /// The shape, or why there is none that can be served.
    #[inline(always)]
    pub const fn known(self) -> Result<Self, Reason> {
        if self.version == 0 { Err(self.reason) } else { Ok(self) }
    }

    /// Whether it is an IPv4 packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.version == 4
    }

    /// Bytes of tags in line.
    #[inline(always)]
    #[must_use]
    pub const fn tags(self) -> u32 {
        self.tags as u32
    }

    /// What is between the headers.
    #[inline(always)]
    #[must_use]
    pub const fn between(self) -> Between {
        Between { length: self.between as u32, protocol: self.protocol }
    }
}
