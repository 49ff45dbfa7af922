//! Checksums of packets that are written as a whole.

/// The sum of the bytes' words of 16 bits.
#[inline(always)]
pub fn words<const N: usize>(bytes: [u8; N]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at + 1 < N {
        sum += u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
    }
    sum
}

/// The sum of a word's halves.
#[inline(always)]
pub fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// The checksum of that sum (RFC 1071).
#[inline(always)]
pub fn folded(sum: u32) -> [u8; 2] {
    (!(halves(halves(sum)) as u16)).to_be_bytes()
}
