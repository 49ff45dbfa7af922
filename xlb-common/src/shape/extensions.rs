//! IPv6 extension headers (RFC 8200 chapter 4).

use super::{BETWEEN_MAX, Between};
use crate::abi::{SCTP, TCP, UDP};
use crate::family::v6::extension::{AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
use crate::family::{Family as _, V6};
use crate::packet::Packet;
use crate::parse::ETHERNET_LENGTH;
use crate::reason::Reason;

const NEXT_HEADER_AT: usize = ETHERNET_LENGTH + 6;
const EXTENSIONS_AT: usize = ETHERNET_LENGTH + 40;
/// Most extension headers: each kind that RFC 8200 chapter 4.1 orders comes once, destination options twice.
const EXTENSIONS_MAX: u32 = 6;

/// The routing type that nobody may follow (RFC 5095).
const SOURCE_ROUTE: u8 = 0;

/// Bytes of extension headers behind `tags` bytes of tags.
#[inline(always)]
pub fn measure<P: Packet>(packet: &P, tags: u32) -> Result<Between, Reason> {
    let [first] = packet.load_moved::<1>(ETHERNET_LENGTH, tags).ok_or(Reason::Truncated)?;
    if first >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let [mut next] = packet.load_moved::<1>(NEXT_HEADER_AT, tags).ok_or(Reason::Truncated)?;
    let mut length = 0;
    for _ in 0..=EXTENSIONS_MAX {
        if matches!(next, TCP | UDP | V6::ICMP) {
            return Ok(Between { length, protocol: next });
        }
        may_follow(next, length)?;
        length = packet.any(length);
        let header = packet.load_moved::<4>(EXTENSIONS_AT, tags + length).ok_or(Reason::Truncated)?;
        length += length_of(next, header)?;
        if length > BETWEEN_MAX as u32 {
            break;
        }
        next = header[0];
    }
    Err(Reason::ExtensionHeaders)
}

/// Whether the header is one to be walked over, behind `length` bytes of others.
#[inline(always)]
const fn may_follow(next: u8, length: u32) -> Result<(), Reason> {
    match next {
        FRAGMENT => Err(Reason::Fragment),
        HOP_BY_HOP if length != 0 => Err(Reason::ExtensionHeaders),
        HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION => Ok(()),
        SCTP => Err(Reason::Sctp),
        _ => Err(Reason::OtherProtocol),
    }
}

/// Bytes of an extension header that begins so. Lengths do not count the first eight bytes (RFC 8200), and in an
/// authentication header they are of four bytes (RFC 4302 chapter 2.2).
#[inline(always)]
fn length_of(kind: u8, [_, units, routing_type, segments_left]: [u8; 4]) -> Result<u32, Reason> {
    match kind {
        // Its destination is not its last one.
        ROUTING if segments_left != 0 || routing_type == SOURCE_ROUTE => Err(Reason::ExtensionHeaders),
        AUTHENTICATION => Ok((u32::from(units) + 2) * 4),
        _ => Ok((u32::from(units) + 1) * 8),
    }
}
