//! Each row's packet, cut to each length and with each byte of its headers bent: what a row says of one packet is looked
//! at around it.

/// Bytes of a frame that are headers at most: Ethernet, two tags, IPv6, ICMP, a quoted IPv6 and TCP header.
pub const HEADERS_MAX: usize = 14 + 8 + 40 + 8 + 40 + 20;
/// No hook gets a shorter frame.
pub const FRAME_MIN: usize = 14;

/// The frame, cut to each length that ends in its headers, and once in its data.
pub fn cut(frame: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let lengths = FRAME_MIN..frame.len().min(HEADERS_MAX);
    let in_data = frame.len().checked_sub(1).filter(|length| *length > HEADERS_MAX);
    lengths.chain(in_data).map(|length| frame[..length].to_vec())
}

/// The frame with one byte of its headers bent, each one in each of these ways: the least and the greatest value, one more, one
/// less, and the other value of its lowest and highest bit.
pub fn with_each_byte_bent(frame: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..frame.len().min(HEADERS_MAX)).flat_map(move |at| {
        let byte = frame[at];
        let mut values = [0, 0xff, byte.wrapping_add(1), byte.wrapping_sub(1), byte ^ 1, byte ^ 0x80].to_vec();
        values.sort_unstable();
        values.dedup();
        values.into_iter().filter(move |value| *value != byte).map(move |value| {
            let mut bent = frame.to_vec();
            bent[at] = value;
            bent
        })
    })
}
