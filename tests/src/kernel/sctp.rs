//! SCTP in test packets (RFC 9260): chunks by name, and sums computed by a table, independently of `xlb_common::crc32c`.

use std::sync::LazyLock;

use xlb_common::sctp::chunk;

use super::frame::Spec;

/// Names of chunk types in text.
pub const CHUNKS: [(&str, u8); 13] = [
    ("DATA", chunk::DATA),
    ("INIT", chunk::INIT),
    ("INIT-ACK", chunk::INIT_ACK),
    ("SACK", 3),
    ("HEARTBEAT", 4),
    ("HEARTBEAT-ACK", 5),
    ("ABORT", chunk::ABORT),
    ("SHUTDOWN", chunk::SHUTDOWN),
    ("SHUTDOWN-ACK", chunk::SHUTDOWN_ACK),
    ("ERROR", chunk::ERROR),
    ("COOKIE-ECHO", chunk::COOKIE_ECHO),
    ("COOKIE-ACK", chunk::COOKIE_ACK),
    ("SHUTDOWN-COMPLETE", chunk::SHUTDOWN_COMPLETE),
];

/// Where the sum is in a packet.
pub const SUM_AT: usize = 8;
/// Where the type of the first chunk is.
pub const CHUNK_AT: usize = 12;
/// Bytes up to the end of the first chunk's header.
pub const HEADERS: usize = 16;
/// The same for every association: whoever needs it told apart makes its own packets.
const VERIFICATION_TAG: u32 = 0xc0ff_ee11;
/// CRC32c's polynomial, lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The remainder of each byte.
static TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| {
    std::array::from_fn(|byte| {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
        (0..8).fold(byte as u32, step)
    })
});

/// The sum of a packet, whatever its field of the sum holds.
#[must_use]
pub fn sum(packet: &[u8]) -> [u8; 4] {
    let without = packet[..SUM_AT].iter().chain(&[0; 4]).chain(&packet[SUM_AT + 4..]);
    let crc = without.fold(u32::MAX, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8);
    (!crc).to_le_bytes()
}

/// Whether a packet has its sum, or none.
#[must_use]
pub fn is_right(packet: &[u8]) -> bool {
    let field = &packet[SUM_AT..SUM_AT + 4];
    field == [0; 4] || field == sum(packet)
}

/// The name of a chunk's type.
#[must_use]
pub fn name(kind: u8) -> String {
    let known = CHUNKS.iter().find(|(_, known)| *known == kind);
    known.map_or_else(|| format!("chunk {kind}"), |(name, _)| (*name).to_owned())
}

/// A packet of one chunk, padded as chunks are, with the sum that the text asks for.
pub(super) fn packet(spec: &Spec) -> Vec<u8> {
    let mut bytes = [spec.source.port().to_be_bytes(), spec.destination.port().to_be_bytes()].concat();
    bytes.extend(VERIFICATION_TAG.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([spec.chunk, 0]);
    bytes.extend(spec.lies.chunk_length.unwrap_or((4 + spec.data) as u16).to_be_bytes());
    bytes.extend((0..spec.data).map(|index| index as u8));
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    if !spec.no_sum {
        let sum = sum(&bytes);
        bytes[SUM_AT..SUM_AT + 4].copy_from_slice(&sum);
    }
    bytes
}
