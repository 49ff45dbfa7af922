//! IPv4 options (RFC 791 chapter 3.1).

use super::Between;
use crate::packet::Packet;
use crate::parse::ETHERNET_LENGTH;
use crate::reason::Reason;

const HEADER_LENGTH: u32 = 20;
const PROTOCOL_AT: usize = ETHERNET_LENGTH + 9;
const OPTIONS_AT: usize = ETHERNET_LENGTH + HEADER_LENGTH as usize;
/// Most options: one-byte ones, in the longest header.
const OPTIONS_MAX: u32 = 40;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// Bytes of options behind `tags` bytes of tags. They stay as they are, but a source route makes the destination one that
/// is not the packet's last: such a packet is the stack's, and so is one whose options contradict each other.
#[inline(always)]
pub fn measure<P: Packet>(packet: &P, tags: u32) -> Result<Between, Reason> {
    let [first] = packet.load_moved::<1>(ETHERNET_LENGTH, tags).ok_or(Reason::Truncated)?;
    let [protocol] = packet.load_moved::<1>(PROTOCOL_AT, tags).ok_or(Reason::Truncated)?;
    let header = u32::from(first & 0xf) * 4;
    if first >> 4 != 4 || header < HEADER_LENGTH {
        return Err(Reason::Malformed);
    }
    let length = header - HEADER_LENGTH;
    check(packet, tags, length)?;
    Ok(Between { length, protocol })
}

#[inline(always)]
fn check<P: Packet>(packet: &P, tags: u32, length: u32) -> Result<(), Reason> {
    let mut at = 0;
    for _ in 0..OPTIONS_MAX {
        if at >= length {
            return Ok(());
        }
        at = packet.any(at);
        let [kind] = packet.load_moved::<1>(OPTIONS_AT, tags + at).ok_or(Reason::Truncated)?;
        match kind {
            END => return Ok(()),
            NO_OPERATION => at += 1,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(Reason::IpOptions),
            _ => {
                let [step] = packet.load_moved::<1>(OPTIONS_AT + 1, tags + at).ok_or(Reason::Truncated)?;
                at += u32::from(step);
                if step < 2 || at > length {
                    return Err(Reason::IpOptions);
                }
            }
        }
    }
    Ok(())
}
