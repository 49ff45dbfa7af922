//! Packets in the format of Wireshark (draft-ietf-opsawg-pcapng): blocks of bytes, written by whoever has the file.
//!
//! A file has two interfaces: the packets before translation, and those after it. Wireshark tells them apart by
//! `frame.interface_name`, and shows each packet's comment above it.

use std::time::{SystemTime, UNIX_EPOCH};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Says in which order the machine that wrote the file has its bytes.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// The section's length is not told.
const UNKNOWN_LENGTH: u64 = u64::MAX;
const LINK_TYPE_ETHERNET: u16 = 1;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_APPLICATION: u16 = 4;
const OPTION_NAME: u16 = 2;
const OPTION_DESCRIPTION: u16 = 3;
const OPTION_RESOLUTION: u16 = 9;
/// Times are in 10^-9 s.
const NANOSECONDS: u8 = 9;

/// Number of the interface of packets as they came.
pub const BEFORE: u32 = 0;
/// Number of the interface of packets after translation.
pub const AFTER: u32 = 1;

/// What a file begins with.
#[must_use]
pub fn head(application: &str, snap_bytes: u32) -> Vec<u8> {
    let mut section = BYTE_ORDER.to_ne_bytes().to_vec();
    section.extend([1_u16, 0].map(u16::to_ne_bytes).concat());
    section.extend(UNKNOWN_LENGTH.to_ne_bytes());
    section.extend(options(&[(OPTION_APPLICATION, application.as_bytes())]));
    let before = interface("before xlb", "packets as they arrived, by whatever link", snap_bytes);
    let after = interface("after xlb", "the same packets as the packet path makes them", snap_bytes);
    [block(SECTION, &section), before, after].concat()
}

fn interface(name: &str, description: &str, snap_bytes: u32) -> Vec<u8> {
    let mut body = [LINK_TYPE_ETHERNET, 0].map(u16::to_ne_bytes).concat();
    body.extend(snap_bytes.to_ne_bytes());
    body.extend(options(&[
        (OPTION_NAME, name.as_bytes()),
        (OPTION_DESCRIPTION, description.as_bytes()),
        (OPTION_RESOLUTION, &[NANOSECONDS]),
    ]));
    block(INTERFACE, &body)
}

/// A packet, of which only the first `snap_bytes` are kept; and how many bytes at its end nobody has.
#[must_use]
pub fn packet(
    interface: u32,
    at: SystemTime,
    (bytes, missing): (&[u8], usize),
    snap_bytes: u32,
    comment: &str,
) -> Vec<u8> {
    let nanoseconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let kept = &bytes[..bytes.len().min(snap_bytes as usize)];
    let length = bytes.len() + missing;
    let numbers = [interface, (nanoseconds >> 32) as u32, nanoseconds as u32, kept.len() as u32, length as u32];
    let mut body = numbers.map(u32::to_ne_bytes).concat();
    body.extend(padded(kept));
    body.extend(options(&[(OPTION_COMMENT, comment.as_bytes())]));
    block(PACKET, &body)
}

fn options(options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (code, value) in options.iter().chain([&(OPTION_END, &[][..])]) {
        bytes.extend([*code, value.len() as u16].map(u16::to_ne_bytes).concat());
        bytes.extend(padded(value));
    }
    bytes
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A block says its length at both of its ends.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_ne_bytes();
    [&kind.to_ne_bytes()[..], &length, body, &length].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_long_as_they_say_at_both_ends() {
        let file = [head("xlb", 96), packet(AFTER, UNIX_EPOCH, (&[7; 101], 0), 96, "why")].concat();
        let mut rest = &file[..];
        let mut kinds = Vec::new();
        while let Some(kind) = rest.first_chunk::<4>() {
            let length = u32::from_ne_bytes(*rest[4..].first_chunk().unwrap()) as usize;
            assert_eq!(rest[length - 4..length], rest[4..8]);
            assert!(length.is_multiple_of(4));
            kinds.push(u32::from_ne_bytes(*kind));
            rest = &rest[length..];
        }
        assert_eq!(kinds, [SECTION, INTERFACE, INTERFACE, PACKET]);
    }
}
