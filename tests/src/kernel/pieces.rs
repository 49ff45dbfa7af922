//! Datagrams in fragments: taken apart as a router does it, and put together as a host does it.

use xlb_common::checksum::checksum;

use super::frame::FRAGMENT;
use super::headers::Layout;

/// Bytes of IPv6's fragment header (RFC 8200 chapter 4.5).
const FRAGMENT_HEADER: usize = 8;
const MORE_V4: u16 = 0x2000;
const MORE_V6: u16 = 1;

/// Whether the frame is a fragment, or has IPv6's header of one.
#[must_use]
pub fn is_fragment(frame: &[u8]) -> bool {
    match Layout::of(frame) {
        Some(layout) if layout.is_v4() => {
            u16::from_be_bytes([frame[layout.ip_at + 6], frame[layout.ip_at + 7]]) & 0x3fff != 0
        }
        Some(layout) => frame[layout.protocol_at] == FRAGMENT,
        None => false,
    }
}

/// A fragment without the fields that say so, which is what the path takes a first one for.
#[must_use]
pub fn as_whole(frame: &[u8]) -> Vec<u8> {
    let (mut whole, at) = (frame.to_vec(), transport_at(frame));
    if is_fragment(frame) && at == Layout::V4.transport_at {
        whole[20..22].fill(0);
    } else if is_fragment(frame) {
        let length = u16::from_be_bytes([frame[18], frame[19]]).wrapping_sub(FRAGMENT_HEADER as u16);
        whole[18..20].copy_from_slice(&length.to_be_bytes());
        whole[Layout::V6.protocol_at] = frame[at];
        whole.drain(at..at + FRAGMENT_HEADER);
    }
    whole
}

/// The fragments of a whole frame without options, extension headers or padding; each but the last has `size` bytes of IP
/// payload, a multiple of eight.
#[must_use]
pub fn split(frame: &[u8], size: usize, identification: u16) -> Vec<Vec<u8>> {
    let payload = &frame[transport_at(frame)..];
    let pieces = payload.chunks(size).enumerate();
    pieces
        .map(|(number, piece)| {
            let offset = number * size;
            fragment(frame, piece, offset, offset + piece.len() < payload.len(), identification)
        })
        .collect()
}

/// One fragment of a whole frame, whatever its place.
#[must_use]
pub fn fragment(frame: &[u8], piece: &[u8], offset: usize, has_more: bool, identification: u16) -> Vec<u8> {
    let header = &frame[..transport_at(frame)];
    if header.len() == Layout::V4.transport_at {
        let bits = (offset / 8) as u16 | if has_more { MORE_V4 } else { 0 };
        let mut header = header.to_vec();
        header[18..20].copy_from_slice(&identification.to_be_bytes());
        header[20..22].copy_from_slice(&bits.to_be_bytes());
        return [sized(&header, piece.len()), piece.to_vec()].concat();
    }
    let mut header = sized(header, FRAGMENT_HEADER + piece.len());
    let protocol = std::mem::replace(&mut header[Layout::V6.protocol_at], FRAGMENT);
    let bits = offset as u16 | if has_more { MORE_V6 } else { 0 };
    let ([b0, b1], [i0, i1]) = (bits.to_be_bytes(), identification.to_be_bytes());
    [&header[..], &[protocol, 0, b0, b1, 0, 0, i0, i1], piece].concat()
}

/// The whole frame of its fragments, which may be in any order but must be all. Its header is that of the first, with the
/// identification of [`Spec`](super::frame::Spec); the others' have to be the same.
#[must_use]
pub fn join(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut parts: Vec<(usize, &[u8], Vec<u8>)> = pieces.iter().map(|piece| part(piece)).collect();
    parts.sort();
    let payload = parts.iter().map(|(_, payload, _)| *payload).collect::<Vec<_>>().concat();
    let mut expected = 0;
    for (offset, payload, header) in &parts {
        assert_eq!(*offset, expected, "a fragment is missing");
        assert_eq!(header, &parts[0].2, "two fragments have different headers");
        expected += payload.len();
    }
    [sized(&parts[0].2, payload.len()), payload].concat()
}

/// Offset, payload, and the header as it was before the fragmentation, but for its length.
fn part(piece: &[u8]) -> (usize, &[u8], Vec<u8>) {
    let at = transport_at(piece);
    let mut header = piece[..at].to_vec();
    if at == Layout::V4.transport_at {
        assert_eq!(checksum(0, &header[14..]), [0, 0], "an IPv4 header has a wrong sum");
        let offset = usize::from(u16::from_be_bytes([piece[20], piece[21]]) & 0x1fff) * 8;
        header[18..20].copy_from_slice(&[0x1c, 0x46]);
        header[20..22].fill(0);
        return (offset, &piece[at..], sized(&header, 0));
    }
    header[Layout::V6.protocol_at] = piece[at];
    let offset = usize::from(u16::from_be_bytes([piece[at + 2], piece[at + 3]]) & 0xfff8);
    (offset, &piece[at + FRAGMENT_HEADER..], sized(&header, 0))
}

/// The headers of a frame with so many bytes behind them.
fn sized(header: &[u8], payload: usize) -> Vec<u8> {
    let mut header = header.to_vec();
    if header.len() == Layout::V4.transport_at {
        header[16..18].copy_from_slice(&((20 + payload) as u16).to_be_bytes());
        header[24..26].fill(0);
        let sum = checksum(0, &header[14..]);
        header[24..26].copy_from_slice(&sum);
    } else {
        header[18..20].copy_from_slice(&(payload as u16).to_be_bytes());
    }
    header
}

fn transport_at(frame: &[u8]) -> usize {
    Layout::of(frame).map_or(frame.len(), |layout| layout.transport_at)
}
