//! IPv6 (RFC 8200), with the transport header right behind the fixed one.
//!
//! Extension headers are measured beforehand ([`shape`](crate::shape)), and then seem not to be there.

use bytemuck::{Pod, Zeroable};

use crate::abi::{EndpointKeyV6, FlowKeyV6, FragmentKeyV6, SCTP, SourceKeyV6};
use crate::checksum::Difference;
use crate::family::{End, Family, HeaderChange};
use crate::fragments::Piece;
use crate::hash::fold_address;
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LENGTH, Endpoint, Parsed, wanted};
use crate::reason::Reason;
use crate::refusal::report_v6;
use crate::refusal::reset::reset_v6;

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6;

const HEADER_LENGTH: usize = 40;
/// Bytes of the header before the addresses.
const FIRST_LENGTH: usize = 8;
const LENGTH_AT: usize = ETHERNET_LENGTH + 4;
const NEXT_HEADER_AT: usize = ETHERNET_LENGTH + 6;
const HOP_LIMIT_AT: usize = ETHERNET_LENGTH + 7;
const SOURCE_AT: usize = ETHERNET_LENGTH + FIRST_LENGTH;
const DESTINATION_AT: usize = SOURCE_AT + 16;
/// Where a fragment header is that is served.
const FRAGMENT_AT: usize = ETHERNET_LENGTH + HEADER_LENGTH;
const FRAGMENT_LENGTH: u32 = V6::FRAGMENT_HEADER as u32;
/// Bytes of the ports, the first of a transport header.
const PORTS_LENGTH: usize = 4;
const FRAGMENT_OFFSET_MASK: u16 = 0xfff8;
const MORE_FRAGMENTS: u16 = 1;

/// Next headers that stand between the fixed header and the transport's (RFC 8200 chapter 4, RFC 4302).
pub(crate) mod extension {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const DESTINATION: u8 = 60;
}

/// What is read at once: the addresses, and the ports behind them.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4))]
struct Rest {
    source: [u8; 16],
    destination: [u8; 16],
    ports: [[u8; 2]; 2],
}

impl Family for V6 {
    type Address = [u8; 16];
    type EndpointKey = EndpointKeyV6;
    type FlowKey = FlowKeyV6;
    type SourceKey = SourceKeyV6;
    type FragmentKey = FragmentKeyV6;
    const VERSION: u8 = 6;
    const TRANSPORT_AT: usize = ETHERNET_LENGTH + HEADER_LENGTH;
    const FRAGMENT_HEADER: usize = 8;
    const UDP_SUM_IS_OPTIONAL: bool = false;
    const ICMP: u8 = 58;
    const ECHO_REQUEST: u8 = 128;
    const ECHO_REPLY: u8 = 129;
    const HAS_HEADER_SUM: bool = false;

    #[inline(always)]
    fn endpoint_key(address: [u8; 16], port: [u8; 2], protocol: u8) -> EndpointKeyV6 {
        EndpointKeyV6 { address, port, protocol, zero: 0 }
    }

    #[inline(always)]
    fn peer(key: EndpointKeyV6) -> ([u8; 16], [u8; 2]) {
        (key.address, key.port)
    }

    #[inline(always)]
    fn flow_key(client: ([u8; 16], [u8; 2]), pod: ([u8; 16], [u8; 2])) -> FlowKeyV6 {
        FlowKeyV6 { client: client.0, pod: pod.0, client_port: client.1, pod_port: pod.1 }
    }

    #[inline(always)]
    fn source_key(service: u32, client: [u8; 16]) -> SourceKeyV6 {
        SourceKeyV6 { service, client }
    }

    #[inline(always)]
    fn fragment_key(source: [u8; 16], destination: [u8; 16], identification: [u8; 4], _protocol: u8) -> FragmentKeyV6 {
        FragmentKeyV6 { source, destination, identification }
    }

    #[inline(always)]
    fn to_stored(address: [u8; 16]) -> [u8; 16] {
        address
    }

    #[inline(always)]
    fn from_stored(stored: [u8; 16]) -> [u8; 16] {
        stored
    }

    #[inline(always)]
    fn to_hash(address: [u8; 16]) -> u64 {
        fold_address(address)
    }

    #[inline(always)]
    fn parse<P: Packet, const WANTED: u8>(packet: &P) -> Result<Parsed<Self>, Reason> {
        let macs = parse::macs(packet)?;
        let first = packet.load::<FIRST_LENGTH>(ETHERNET_LENGTH).ok_or(Reason::Truncated)?;
        if first[0] >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        let between = packet.between(first[6]);
        let [next_header, hops] = [between.protocol, first[7]];
        if !wanted::has::<WANTED>(next_header) {
            return Err(refusal(next_header));
        }
        let rest = packet.load_with_ports::<{ size_of::<Rest>() }>(SOURCE_AT).ok_or(Reason::Truncated)?;
        let Rest { source, destination, ports } = bytemuck::cast(rest);
        let payload = payload_length(u16::from_be_bytes([first[4], first[5]]), between.length)?;
        let transport = parse::transport::<Self, P, WANTED>(packet, next_header, payload)?;
        Ok(Parsed {
            source: Endpoint(source, ports[0]),
            destination: Endpoint(destination, ports[1]),
            transport,
            hops,
            macs,
        })
    }

    #[inline(always)]
    fn destination<P: Packet>(packet: &P) -> Option<[u8; 16]> {
        packet.load(DESTINATION_AT)
    }

    #[inline(always)]
    fn ip_length<P: Packet>(packet: &P) -> u32 {
        match packet.load::<2>(LENGTH_AT).map(u16::from_be_bytes) {
            None | Some(0) => packet.length().wrapping_sub(ETHERNET_LENGTH as u32),
            Some(payload) => u32::from(payload) + HEADER_LENGTH as u32,
        }
    }

    #[inline(always)]
    fn piece<P: Packet>(packet: &P) -> Result<Piece<Self>, Reason> {
        let macs = parse::macs(packet)?;
        let first = packet.load::<FIRST_LENGTH>(ETHERNET_LENGTH).ok_or(Reason::Truncated)?;
        let source = packet.load::<16>(SOURCE_AT).ok_or(Reason::Truncated)?;
        let destination = packet.load::<16>(DESTINATION_AT).ok_or(Reason::Truncated)?;
        let [protocol, _, p0, p1, i0, i1, i2, i3] = packet.load(FRAGMENT_AT).ok_or(Reason::Truncated)?;
        let place = u16::from_be_bytes([p0, p1]);
        let piece = Piece {
            source,
            destination,
            identification: [i0, i1, i2, i3],
            protocol,
            offset: u32::from(place & FRAGMENT_OFFSET_MASK),
            has_more: place & MORE_FRAGMENTS != 0,
            hops: first[7],
            macs,
        };
        let length = u16::from_be_bytes([first[4], first[5]]);
        piece.checked(u32::from(length).saturating_sub(FRAGMENT_LENGTH), 0)
    }

    /// Without the fragment header: shorter by it, and followed by what follows that. The path reads both fields at once, and
    /// of the transport header together with the fixed one only the ports.
    #[inline(always)]
    fn as_whole<P: Packet, const N: usize>(packet: &P, at: usize, mut bytes: [u8; N]) -> Option<[u8; N]> {
        if at <= LENGTH_AT && at + N > NEXT_HEADER_AT {
            let field = bytes.get_mut(LENGTH_AT - at..)?.first_chunk_mut::<3>()?;
            let [next_header] = packet.load(FRAGMENT_AT)?;
            let [l0, l1] = u16::from_be_bytes([field[0], field[1]]).wrapping_sub(FRAGMENT_LENGTH as u16).to_be_bytes();
            *field = [l0, l1, next_header];
        }
        if at + N == Self::TRANSPORT_AT + PORTS_LENGTH {
            *bytes.last_chunk_mut()? = packet.load::<PORTS_LENGTH>(FRAGMENT_AT + Self::FRAGMENT_HEADER)?;
        }
        Some(bytes)
    }

    #[inline(always)]
    fn difference(old: [u8; 16], new: [u8; 16]) -> Difference {
        Difference::of_long_address(old, new)
    }

    #[inline(always)]
    fn store_header<P: Packet>(packet: &mut P, parsed: &Parsed<Self>, change: HeaderChange<Self>) -> Option<()> {
        if change.counts_hop {
            packet.store(HOP_LIMIT_AT, [parsed.hops.wrapping_sub(1)])?;
        }
        match change.end {
            End::Source => packet.store(SOURCE_AT, change.address),
            End::Destination => packet.store(DESTINATION_AT, change.address),
        }
    }

    #[inline(always)]
    fn exchange_ends<P: Packet>(packet: &mut P, hops: u8) -> Option<Difference> {
        let [source, destination]: [[u8; 16]; 2] = bytemuck::cast(packet.load::<32>(SOURCE_AT)?);
        let [was] = packet.load::<1>(HOP_LIMIT_AT)?;
        packet.store::<32>(SOURCE_AT, bytemuck::cast([destination, source]))?;
        packet.store(HOP_LIMIT_AT, [hops])?;
        Some(Difference::of_word([0, was], [0, hops]))
    }

    /// Only its sender may (RFC 8200 chapter 4.5).
    #[inline(always)]
    fn may_be_cut<P: Packet>(_packet: &P) -> bool {
        false
    }

    /// Not unspecified, loopback or multicast (RFC 4291).
    #[inline(always)]
    fn is_unicast(address: [u8; 16]) -> bool {
        let is_beginning = u128::from_be_bytes(address) <= 1;
        address[0] != 0xff && !is_beginning
    }

    #[inline(always)]
    fn report_unreachable<P: Packet, const QUOTED: usize>(packet: &mut P, reporter: [u8; 16]) -> Option<()> {
        report_v6::<P, QUOTED>(packet, reporter)
    }

    #[inline(always)]
    fn reset<P: Packet>(packet: &mut P) -> Option<()> {
        reset_v6(packet)
    }
}

/// Why a packet is not served whose fixed header is not followed by TCP, UDP or SCTP. ICMPv6 may be an error about a flow.
#[inline(never)]
const fn refusal(next_header: u8) -> Reason {
    match next_header {
        extension::FRAGMENT => Reason::Fragment,
        extension::HOP_BY_HOP | extension::ROUTING | extension::AUTHENTICATION | extension::DESTINATION => {
            Reason::ExtensionHeaders
        }
        SCTP => Reason::Sctp,
        V6::ICMP => Reason::Icmp,
        _ => Reason::OtherProtocol,
    }
}

/// Bytes after the extension headers. A payload length of zero, with TCP or UDP behind it, is a GSO packet beyond 64 kB.
#[inline(always)]
fn payload_length(length: u16, extensions: u32) -> Result<u32, Reason> {
    match u32::from(length) {
        0 => Ok(u32::MAX),
        length if length < extensions => Err(Reason::Malformed),
        length => Ok(length - extensions),
    }
}
