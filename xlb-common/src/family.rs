//! What differs between IP versions: addresses, keys, the header, and where the transport header is behind it.

use core::fmt::Debug;

use crate::checksum::Difference;
use crate::directory::Placed;
use crate::fragments::Piece;
use crate::packet::Packet;
use crate::parse::Parsed;
use crate::reason::Reason;

pub use self::v4::V4;
pub use self::v6::V6;

mod v4;
pub(crate) mod v6;

/// An IP version.
pub trait Family: Copy + Sized {
    /// An address, network byte order.
    type Address: Copy + PartialEq + Debug + 'static;
    /// Key of an address, port and protocol.
    type EndpointKey: Placed + Debug;
    /// Key of the flow maps.
    type FlowKey: Copy + Ord + Debug + 'static;
    /// Key of a Service port and a client's address.
    type SourceKey: Copy + Ord + Debug + 'static;
    /// Key of the fragments of a datagram.
    type FragmentKey: Copy + Ord + Debug + 'static;

    /// 4 or 6.
    const VERSION: u8;
    /// Where the transport header is. A constant, so that the verifier knows each offset.
    const TRANSPORT_AT: usize;
    /// Bytes of the fragment header before the transport header: IPv4's is part of the fixed one.
    const FRAGMENT_HEADER: usize;
    /// Whether UDP may go without a checksum: it may over IPv4 (RFC 768), and not over IPv6 (RFC 8200 chapter 8.1).
    const UDP_SUM_IS_OPTIONAL: bool;
    /// IP protocol number of its control messages: ICMP (RFC 792), or ICMPv6 (RFC 4443).
    const ICMP: u8;
    /// Types of echo messages.
    const ECHO_REQUEST: u8;
    /// The answer's.
    const ECHO_REPLY: u8;
    /// Whether the header has a sum of its own.
    const HAS_HEADER_SUM: bool;

    /// Key of an endpoint.
    fn endpoint_key(address: Self::Address, port: [u8; 2], protocol: u8) -> Self::EndpointKey;
    /// Address and port of an endpoint's key.
    fn peer(key: Self::EndpointKey) -> (Self::Address, [u8; 2]);
    /// Key of a flow as the pod sees it.
    fn flow_key(client: (Self::Address, [u8; 2]), pod: (Self::Address, [u8; 2])) -> Self::FlowKey;
    /// Key of a client of a Service port.
    fn source_key(service: u32, client: Self::Address) -> Self::SourceKey;
    /// Key of the fragments of a datagram.
    fn fragment_key(
        source: Self::Address,
        destination: Self::Address,
        identification: [u8; 4],
        protocol: u8,
    ) -> Self::FragmentKey;
    /// An address as `Backend` and `FlowEntry` keep it.
    fn to_stored(address: Self::Address) -> [u8; 16];
    /// An address from `Backend` or `FlowEntry`.
    fn from_stored(stored: [u8; 16]) -> Self::Address;
    /// An address folded for the flow's hash.
    fn to_hash(address: Self::Address) -> u64;
    /// The headers of a packet whose Ethernet type is this family's, if it is of the [`wanted`](crate::parse::wanted)
    /// transports.
    fn parse<P: Packet, const WANTED: u8>(packet: &P) -> Result<Parsed<Self>, Reason>;
    /// Where an IP packet goes, whatever it carries.
    fn destination<P: Packet>(packet: &P) -> Option<Self::Address>;
    /// Bytes of a packet that was parsed, from the IP header on, as that says: a short Ethernet frame is filled up. One beyond
    /// 64 kB says zero (Linux, "BIG TCP").
    fn ip_length<P: Packet>(packet: &P) -> u32;
    /// What a packet says that [`Family::parse`] has called a fragment.
    fn piece<P: Packet>(packet: &P) -> Result<Piece<Self>, Reason>;
    /// Of a first fragment, what the `bytes` at `at`, which begin before the transport header, would be if it were whole.
    fn as_whole<P: Packet, const N: usize>(packet: &P, at: usize, bytes: [u8; N]) -> Option<[u8; N]>;
    /// What a change of address does to a checksum that covers it.
    fn difference(old: Self::Address, new: Self::Address) -> Difference;
    /// Writes the new destination (or source) and, if asked, one hop less, into the IP header; its checksum, if it has
    /// one, follows.
    fn store_header<P: Packet>(packet: &mut P, parsed: &Parsed<Self>, change: HeaderChange<Self>) -> Option<()>;
    /// Sends the packet back: its addresses are exchanged, it has `hops` again, and a header sum follows. Answers what no sum
    /// in the packet takes up.
    fn exchange_ends<P: Packet>(packet: &mut P, hops: u8) -> Option<Difference>;
    /// Whether a router may cut the packet into fragments.
    fn may_be_cut<P: Packet>(packet: &P) -> bool;
    /// Whether an address may be one host's, and an answer to it reach that host.
    fn is_unicast(address: Self::Address) -> bool;
    /// Makes the packet the report that its port is unreachable, from `reporter` to its sender. It quotes `QUOTED` bytes
    /// behind the header.
    fn report_unreachable<P: Packet, const QUOTED: usize>(packet: &mut P, reporter: Self::Address) -> Option<()>;
    /// Makes a SYN the reset that refuses it.
    fn reset<P: Packet>(packet: &mut P) -> Option<()>;
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
    /// Whether the hop is counted, as a router does (RFC 1812 chapter 5.3.1, RFC 8200 chapter 3).
    pub counts_hop: bool,
}
