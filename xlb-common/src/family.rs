//! What differs between IP versions: addresses, keys, the header. IPv6 is to be a second `impl` of [`Family`].

use crate::abi::{EndpointKeyV4, FlowKeyV4};
use crate::checksum::Difference;
use crate::packet::Packet;
use crate::parse::{self, Parsed};
use crate::reason::Reason;

/// An IP version.
pub trait Family: Copy + Sized {
    /// An address, network byte order.
    type Address: Copy + PartialEq;
    /// Key of an address, port and protocol.
    type EndpointKey: Copy;
    /// Key of the flow maps.
    type FlowKey: Copy;

    /// 4 or 6.
    const VERSION: u8;

    /// Key of an endpoint.
    fn endpoint_key(address: Self::Address, port: [u8; 2], protocol: u8) -> Self::EndpointKey;
    /// Key of a flow as the pod sees it.
    fn flow_key(client: (Self::Address, [u8; 2]), pod: (Self::Address, [u8; 2])) -> Self::FlowKey;
    /// An address as `Backend` and `FlowEntry` keep it.
    fn to_stored(address: Self::Address) -> [u8; 16];
    /// An address from `Backend` or `FlowEntry`.
    fn from_stored(stored: [u8; 16]) -> Self::Address;
    /// An address folded for the flow's hash.
    fn to_hash(address: Self::Address) -> u64;
    /// The headers of a packet whose Ethernet type is this family's.
    fn parse<P: Packet>(packet: &P) -> Result<Parsed<Self>, Reason>;
    /// What a change of address does to a checksum that covers it.
    fn difference(old: Self::Address, new: Self::Address) -> Difference;
    /// Writes the new destination (or source) and, if asked, one hop less, into the IP header; its checksum follows.
    fn store_header<P: Packet>(packet: &mut P, parsed: &Parsed<Self>, change: HeaderChange<Self>) -> Option<()>;
}

/// Which end of the packet is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The source: a reply.
    Source,
    /// The destination: on the way to the pod.
    Destination,
}

/// A change of the IP header.
#[derive(Clone, Copy, Debug)]
pub struct HeaderChange<F: Family> {
    /// Which address changes.
    pub end: End,
    /// To what.
    pub address: F::Address,
    /// Whether the hop is counted, as a router does (RFC 1812 chapter 5.3.1).
    pub counts_hop: bool,
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4;

impl Family for V4 {
    type Address = [u8; 4];
    type EndpointKey = EndpointKeyV4;
    type FlowKey = FlowKeyV4;
    const VERSION: u8 = 4;

    #[inline(always)]
    fn endpoint_key(address: [u8; 4], port: [u8; 2], protocol: u8) -> EndpointKeyV4 {
        EndpointKeyV4 { address, port, protocol, zero: 0 }
    }

    #[inline(always)]
    fn flow_key(client: ([u8; 4], [u8; 2]), pod: ([u8; 4], [u8; 2])) -> FlowKeyV4 {
        FlowKeyV4 { client: client.0, pod: pod.0, client_port: client.1, pod_port: pod.1 }
    }

    #[inline(always)]
    fn to_stored(address: [u8; 4]) -> [u8; 16] {
        let mut stored = [0; 16];
        [stored[0], stored[1], stored[2], stored[3]] = address;
        stored
    }

    #[inline(always)]
    fn from_stored(stored: [u8; 16]) -> [u8; 4] {
        [stored[0], stored[1], stored[2], stored[3]]
    }

    #[inline(always)]
    fn to_hash(address: [u8; 4]) -> u64 {
        u64::from(u32::from_be_bytes(address))
    }

    #[inline(always)]
    fn parse<P: Packet>(packet: &P) -> Result<Parsed<Self>, Reason> {
        parse::ipv4(packet)
    }

    #[inline(always)]
    fn difference(old: [u8; 4], new: [u8; 4]) -> Difference {
        Difference::of_address(old, new)
    }

    #[inline(always)]
    fn store_header<P: Packet>(packet: &mut P, parsed: &Parsed<Self>, change: HeaderChange<Self>) -> Option<()> {
        let (old, at) = match change.end {
            End::Source => (parsed.source.0, parse::IPV4_SOURCE_AT),
            End::Destination => (parsed.destination.0, parse::IPV4_DESTINATION_AT),
        };
        let mut difference = Difference::of_address(old, change.address);
        if change.counts_hop {
            let [hops, protocol] = packet.load::<2>(parse::IPV4_TTL_AT)?;
            let fewer = [hops.wrapping_sub(1), protocol];
            difference = difference.plus(Difference::of_word([hops, protocol], fewer));
            packet.store(parse::IPV4_TTL_AT, fewer)?;
        }
        packet.store(at, change.address)?;
        let checksum = packet.load::<2>(parse::IPV4_CHECKSUM_AT)?;
        packet.store(parse::IPV4_CHECKSUM_AT, difference.applied_to(checksum))
    }
}
