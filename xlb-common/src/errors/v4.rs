//! ICMP (RFC 792).

use bytemuck::{Pod, Zeroable};

use super::{ICMP_LENGTH, QuotedHeader, Quoting};
use crate::checksum::Difference;
use crate::family::{End, Family as _, V4};
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LENGTH, Endpoint, Parsed, Transport};
use crate::reason::Reason;

/// Destination unreachable, to which "fragmentation needed" belongs (RFC 1191).
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

const HEADER_LENGTH: usize = size_of::<Header>();
const QUOTE_AT: usize = V4::TRANSPORT_AT + ICMP_LENGTH;
const CHECKSUM_AT: usize = QUOTE_AT + 10;
const SOURCE_AT: usize = QUOTE_AT + 12;
const DESTINATION_AT: usize = QUOTE_AT + 16;
/// Fragment offset.
const OFFSET_MASK: u16 = 0x1fff;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4))]
struct Header {
    version_and_length: u8,
    type_of_service: u8,
    total_length: [u8; 2],
    identification: [u8; 2],
    fragment: [u8; 2],
    ttl: u8,
    protocol: u8,
    sum: [u8; 2],
    source: [u8; 4],
    destination: [u8; 4],
}

impl Quoting for V4 {
    const QUOTED_TRANSPORT_AT: usize = QUOTE_AT + HEADER_LENGTH;

    /// Source quench is not one any more (RFC 6633).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    #[inline(always)]
    fn outer<P: Packet>(packet: &P) -> Option<(Parsed<Self>, u32)> {
        let macs = parse::macs(packet).ok()?;
        let header: Header = bytemuck::cast(packet.load::<HEADER_LENGTH>(ETHERNET_LENGTH)?);
        let [source, destination] = [header.source, header.destination].map(|address| Endpoint(address, [0, 0]));
        let payload = u32::from(u16::from_be_bytes(header.total_length)).saturating_sub(HEADER_LENGTH as u32);
        Some((Parsed { source, destination, transport: Transport::UDP, hops: header.ttl, macs }, payload))
    }

    #[inline(always)]
    fn quoted_header<P: Packet>(packet: &P) -> Result<QuotedHeader<Self>, Reason> {
        let header: Header = bytemuck::cast(packet.load::<HEADER_LENGTH>(QUOTE_AT).ok_or(Reason::ErrorCutShort)?);
        if header.version_and_length >> 4 != Self::VERSION {
            return Err(Reason::Malformed);
        }
        if header.version_and_length != 0x45 {
            return Err(Reason::ErrorOfOptions);
        }
        if u16::from_be_bytes(header.fragment) & OFFSET_MASK != 0 {
            return Err(Reason::ErrorOfFragment);
        }
        Ok(QuotedHeader { source: header.source, destination: header.destination, protocol: header.protocol })
    }

    /// Address and header sum change by as much, one against the other.
    #[inline(always)]
    fn store_quoted<P: Packet>(packet: &mut P, end: End, old: [u8; 4], new: [u8; 4]) -> Option<Difference> {
        let at = match end {
            End::Source => SOURCE_AT,
            End::Destination => DESTINATION_AT,
        };
        let address = Difference::of_address(old, new);
        let old_sum = packet.load::<2>(CHECKSUM_AT)?;
        let new_sum = address.applied_to(old_sum);
        packet.store(at, new)?;
        packet.store(CHECKSUM_AT, new_sum)?;
        Some(address.plus(Difference::of_word(old_sum, new_sum)))
    }
}
