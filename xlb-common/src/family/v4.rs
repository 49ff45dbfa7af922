//! IPv4 (RFC 791). Options are measured beforehand ([`shape`](crate::shape)), and make it longer.

use bytemuck::{Pod, Zeroable};

use crate::abi::{EndpointKeyV4, FlowKeyV4, FragmentKeyV4, SourceKeyV4};
use crate::checksum::Difference;
use crate::family::{End, Family, HeaderChange};
use crate::fragments::Piece;
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LENGTH, Endpoint, Parsed};
use crate::reason::Reason;
use crate::refusal::report_v4;
use crate::refusal::reset::reset_v4;

/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4;

const HEADER_LENGTH: usize = 20;
/// Where the flags and the fragment offset are.
const FLAGS_AT: usize = ETHERNET_LENGTH + 6;
const DONT_FRAGMENT: u8 = 0x40;
const LENGTH_AT: usize = ETHERNET_LENGTH + 2;
/// The protocol follows it in the same checksum word.
const TTL_AT: usize = ETHERNET_LENGTH + 8;
const CHECKSUM_AT: usize = ETHERNET_LENGTH + 10;
/// Bytes of the header before the addresses.
const ADDRESSES_AT: usize = 12;
const SOURCE_AT: usize = ETHERNET_LENGTH + ADDRESSES_AT;
const DESTINATION_AT: usize = SOURCE_AT + 4;
/// Flags and fragment offset.
const FRAGMENT_AT: usize = ETHERNET_LENGTH + 6;
/// More-fragments flag and fragment offset.
const FRAGMENT_MASK: u16 = 0x3fff;
const MORE_FRAGMENTS: u16 = 0x2000;

/// What is read at once: the header, and the ports behind it.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4))]
struct Headers {
    first: [u8; ADDRESSES_AT],
    source: [u8; 4],
    destination: [u8; 4],
    ports: [[u8; 2]; 2],
}

impl Family for V4 {
    type Address = [u8; 4];
    type EndpointKey = EndpointKeyV4;
    type FlowKey = FlowKeyV4;
    type SourceKey = SourceKeyV4;
    type FragmentKey = FragmentKeyV4;
    const VERSION: u8 = 4;
    const TRANSPORT_AT: usize = ETHERNET_LENGTH + HEADER_LENGTH;
    const FRAGMENT_HEADER: usize = 0;
    const UDP_SUM_IS_OPTIONAL: bool = true;
    const ICMP: u8 = 1;
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    const HAS_HEADER_SUM: bool = true;

    #[inline(always)]
    fn endpoint_key(address: [u8; 4], port: [u8; 2], protocol: u8) -> EndpointKeyV4 {
        EndpointKeyV4 { address, port, protocol, zero: 0 }
    }

    #[inline(always)]
    fn peer(key: EndpointKeyV4) -> ([u8; 4], [u8; 2]) {
        (key.address, key.port)
    }

    #[inline(always)]
    fn flow_key(client: ([u8; 4], [u8; 2]), pod: ([u8; 4], [u8; 2])) -> FlowKeyV4 {
        FlowKeyV4 { client: client.0, pod: pod.0, client_port: client.1, pod_port: pod.1 }
    }

    #[inline(always)]
    fn source_key(service: u32, client: [u8; 4]) -> SourceKeyV4 {
        SourceKeyV4 { service, client }
    }

    #[inline(always)]
    fn fragment_key(source: [u8; 4], destination: [u8; 4], [i0, i1, ..]: [u8; 4], protocol: u8) -> FragmentKeyV4 {
        FragmentKeyV4 { source, destination, identification: [i0, i1], protocol, zero: 0 }
    }

    #[inline(always)]
    fn to_stored(address: [u8; 4]) -> [u8; 16] {
        (u128::from(u32::from_be_bytes(address)) << 96).to_be_bytes()
    }

    #[inline(always)]
    fn from_stored(stored: [u8; 16]) -> [u8; 4] {
        ((u128::from_be_bytes(stored) >> 96) as u32).to_be_bytes()
    }

    #[inline(always)]
    fn to_hash(address: [u8; 4]) -> u64 {
        u64::from(u32::from_be_bytes(address))
    }

    #[inline(always)]
    fn parse<P: Packet, const WANTED: u8>(packet: &P) -> Result<Parsed<Self>, Reason> {
        let macs = parse::macs(packet)?;
        let headers = packet.load_with_ports::<{ size_of::<Headers>() }>(ETHERNET_LENGTH).ok_or(Reason::Truncated)?;
        let Headers { first: header, source, destination, ports } = bytemuck::cast(headers);
        if header[0] >> 4 != 4 {
            return Err(Reason::Malformed);
        }
        let between = packet.between(header[9]);
        if u32::from(header[0]) != 0x45 + between.length / 4 {
            return Err(Reason::IpOptions);
        }
        if u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_MASK != 0 {
            return Err(Reason::Fragment);
        }
        let header_length = HEADER_LENGTH as u32 + between.length;
        let payload = payload_length(u16::from_be_bytes([header[2], header[3]]), header_length)?;
        let transport = parse::transport::<Self, P, WANTED>(packet, between.protocol, payload)?;
        Ok(Parsed {
            source: Endpoint(source, ports[0]),
            destination: Endpoint(destination, ports[1]),
            transport,
            hops: header[8],
            macs,
        })
    }

    #[inline(always)]
    fn destination<P: Packet>(packet: &P) -> Option<[u8; 4]> {
        packet.load(DESTINATION_AT)
    }

    #[inline(always)]
    fn ip_length<P: Packet>(packet: &P) -> u32 {
        match packet.load::<2>(LENGTH_AT).map(u16::from_be_bytes) {
            None | Some(0) => packet.length().wrapping_sub(ETHERNET_LENGTH as u32),
            Some(total) => total.into(),
        }
    }

    #[inline(always)]
    fn piece<P: Packet>(packet: &P) -> Result<Piece<Self>, Reason> {
        let macs = parse::macs(packet)?;
        let headers = packet.load::<{ size_of::<Headers>() }>(ETHERNET_LENGTH).ok_or(Reason::Truncated)?;
        let Headers { first: header, source, destination, .. } = bytemuck::cast(headers);
        let place = u16::from_be_bytes([header[6], header[7]]);
        let piece = Piece {
            source,
            destination,
            identification: [header[4], header[5], 0, 0],
            protocol: header[9],
            offset: u32::from(place << 3),
            has_more: place & MORE_FRAGMENTS != 0,
            hops: header[8],
            macs,
        };
        let fixed = HEADER_LENGTH as u32;
        piece.checked(payload_length(u16::from_be_bytes([header[2], header[3]]), fixed)?, fixed)
    }

    #[inline(always)]
    fn as_whole<P: Packet, const N: usize>(_packet: &P, at: usize, mut bytes: [u8; N]) -> Option<[u8; N]> {
        if at <= FRAGMENT_AT && at + N > FRAGMENT_AT + 1 {
            *bytes.get_mut(FRAGMENT_AT - at..)?.first_chunk_mut()? = [0; 2];
        }
        Some(bytes)
    }

    #[inline(always)]
    fn difference(old: [u8; 4], new: [u8; 4]) -> Difference {
        Difference::of_address(old, new)
    }

    #[inline(always)]
    fn store_header<P: Packet>(packet: &mut P, parsed: &Parsed<Self>, change: HeaderChange<Self>) -> Option<()> {
        let (old, at) = match change.end {
            End::Source => (parsed.source.0, SOURCE_AT),
            End::Destination => (parsed.destination.0, DESTINATION_AT),
        };
        let mut difference = Difference::of_address(old, change.address);
        if change.counts_hop {
            let [hops, protocol] = packet.load::<2>(TTL_AT)?;
            let fewer = [hops.wrapping_sub(1), protocol];
            difference = difference.plus(Difference::of_word([hops, protocol], fewer));
            packet.store(TTL_AT, fewer)?;
        }
        packet.store(at, change.address)?;
        let checksum = packet.load::<2>(CHECKSUM_AT)?;
        packet.store(CHECKSUM_AT, difference.applied_to(checksum))
    }

    #[inline(always)]
    fn exchange_ends<P: Packet>(packet: &mut P, hops: u8) -> Option<Difference> {
        let [source, destination]: [[u8; 4]; 2] = bytemuck::cast(packet.load::<8>(SOURCE_AT)?);
        let [was, protocol] = packet.load::<2>(TTL_AT)?;
        let sum = packet.load::<2>(CHECKSUM_AT)?;
        packet.store::<8>(SOURCE_AT, bytemuck::cast([destination, source]))?;
        packet.store(TTL_AT, [hops, protocol])?;
        packet.store(CHECKSUM_AT, Difference::of_word([was, protocol], [hops, protocol]).applied_to(sum))?;
        Some(Difference::NONE)
    }

    /// Unless its don't-fragment flag is set.
    #[inline(always)]
    fn may_be_cut<P: Packet>(packet: &P) -> bool {
        packet.load::<1>(FLAGS_AT).is_some_and(|[flags]| flags & DONT_FRAGMENT == 0)
    }

    /// Not "this network", loopback, multicast, reserved or broadcast (RFC 6890).
    #[inline(always)]
    fn is_unicast(address: [u8; 4]) -> bool {
        !matches!(address[0], 0 | 127 | 224..)
    }

    #[inline(always)]
    fn report_unreachable<P: Packet, const QUOTED: usize>(packet: &mut P, reporter: [u8; 4]) -> Option<()> {
        report_v4::<P, QUOTED>(packet, reporter)
    }

    #[inline(always)]
    fn reset<P: Packet>(packet: &mut P) -> Option<()> {
        reset_v4(packet)
    }
}

/// Bytes after `header` bytes. A total length of zero is a GSO packet beyond 64 kB (Linux, "BIG TCP").
#[inline(always)]
fn payload_length(total: u16, header: u32) -> Result<u32, Reason> {
    match u32::from(total) {
        0 => Ok(u32::MAX),
        total if total < header => Err(Reason::Malformed),
        total => Ok(total - header),
    }
}
