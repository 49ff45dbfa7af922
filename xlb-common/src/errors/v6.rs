//! ICMPv6 (RFC 4443).

use bytemuck::{Pod, Zeroable};

use super::{ICMP_LENGTH, QuotedHeader, Quoting};
use crate::checksum::Difference;
use crate::family::v6::extension;
use crate::family::{End, Family as _, V6};
use crate::packet::Packet;
use crate::parse::{self, ETHERNET_LENGTH, Endpoint, Parsed, Transport};
use crate::reason::Reason;

/// Destination unreachable, packet too big, time exceeded, parameter problem: all errors that are assigned.
const FIRST_ERROR: u8 = 1;
const LAST_ERROR: u8 = 4;

/// Bytes of the header before the addresses.
const FIRST_LENGTH: usize = size_of::<First>();
const HEADER_LENGTH: usize = FIRST_LENGTH + 32;
const QUOTE_AT: usize = V6::TRANSPORT_AT + ICMP_LENGTH;
const SOURCE_AT: usize = QUOTE_AT + FIRST_LENGTH;
const DESTINATION_AT: usize = SOURCE_AT + 16;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4))]
struct First {
    version: u8,
    class_and_label: [u8; 3],
    payload_length: [u8; 2],
    next_header: u8,
    hop_limit: u8,
}

impl Quoting for V6 {
    const QUOTED_TRANSPORT_AT: usize = QUOTE_AT + HEADER_LENGTH;

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, FIRST_ERROR..=LAST_ERROR)
    }

    #[inline(always)]
    fn outer<P: Packet>(packet: &P) -> Option<(Parsed<Self>, u32)> {
        let macs = parse::macs(packet).ok()?;
        let (first, [source, destination]) = header(packet, ETHERNET_LENGTH)?;
        let [source, destination] = [source, destination].map(|address| Endpoint(address, [0, 0]));
        let payload = u32::from(u16::from_be_bytes(first.payload_length));
        Some((Parsed { source, destination, transport: Transport::UDP, hops: first.hop_limit, macs }, payload))
    }

    #[inline(always)]
    fn quoted_header<P: Packet>(packet: &P) -> Result<QuotedHeader<Self>, Reason> {
        let (first, [source, destination]) = header(packet, QUOTE_AT).ok_or(Reason::ErrorCutShort)?;
        if first.version >> 4 != Self::VERSION {
            return Err(Reason::Malformed);
        }
        match first.next_header {
            extension::FRAGMENT => Err(Reason::ErrorOfFragment),
            extension::HOP_BY_HOP | extension::ROUTING | extension::AUTHENTICATION | extension::DESTINATION => {
                Err(Reason::ErrorOfOptions)
            }
            protocol => Ok(QuotedHeader { source, destination, protocol }),
        }
    }

    #[inline(always)]
    fn store_quoted<P: Packet>(packet: &mut P, end: End, old: [u8; 16], new: [u8; 16]) -> Option<Difference> {
        match end {
            End::Source => packet.store(SOURCE_AT, new)?,
            End::Destination => packet.store(DESTINATION_AT, new)?,
        }
        Some(Difference::of_long_address(old, new))
    }
}

#[inline(always)]
fn header<P: Packet>(packet: &P, at: usize) -> Option<(First, [[u8; 16]; 2])> {
    let first = bytemuck::cast(packet.load::<FIRST_LENGTH>(at)?);
    let addresses = bytemuck::cast(packet.load::<32>(at + FIRST_LENGTH)?);
    Some((first, addresses))
}
