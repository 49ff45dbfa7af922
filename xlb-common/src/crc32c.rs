//! CRC32c, the checksum of SCTP (RFC 9260 appendix A), changed rather than computed again.
//!
//! A CRC is linear: the sum of a packet in which bits were turned over is the sum before, XOR the remainder of those bits
//! alone, with all other bytes zero. So only where the change is and how long the packet is counts, not what is in it.
//!
//! Polynomials over GF(2) are numbers here: the highest bit is the factor of x^0, the lowest that of x^31. A product is
//! taken modulo the polynomial of the sum.

/// Castagnoli's polynomial, without x^32.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// x^0.
const ONE: u32 = 1 << 31;
/// x^8: one byte further to the front.
const BYTE: u32 = 1 << 23;

/// `POWERS[k][d]` is x^8 to the power of `d * 256^k`: what a byte of the length stands for. Two products are half the work
/// of four with tables for its digits, for the packet and for the verifier, which walks through them on many ways.
static POWERS: [[u32; 256]; 2] = powers();

/// What becomes of the sum over a packet of `length` bytes (at most 65 535) when its first four bytes, read as a
/// little-endian number, are changed by XOR with `change`: the sum, little-endian too, is changed by XOR with the answer.
///
/// Two ports of four bytes are shifted by the whole length: 32 bits by what a CRC appends to every packet, and the rest
/// by the bytes behind them. About 700 instructions, whatever the length.
#[inline(never)]
#[must_use]
pub fn change_by_beginning(change: u32, length: u32) -> u32 {
    let [low, high] = &POWERS;
    let power = product(low[(length & 0xff) as usize], high[(length >> 8 & 0xff) as usize]);
    product(change, power)
}

/// Without branches: the verifier would follow each.
#[inline(always)]
const fn product(one: u32, other: u32) -> u32 {
    let (mut product, mut shifted, mut bit) = (0, other, 0);
    while bit < u32::BITS {
        product ^= shifted & (one << bit >> 31).wrapping_neg();
        shifted = times_x(shifted);
        bit += 1;
    }
    product
}

#[inline(always)]
const fn times_x(factor: u32) -> u32 {
    factor >> 1 ^ (POLYNOMIAL & (factor & 1).wrapping_neg())
}

const fn powers() -> [[u32; 256]; 2] {
    let mut powers = [[ONE; 256]; 2];
    let (mut position, mut base) = (0, BYTE);
    while position < 2 {
        let mut value = 1;
        while value < 256 {
            powers[position][value] = product(powers[position][value - 1], base);
            value += 1;
        }
        base = product(powers[position][255], base);
        position += 1;
    }
    powers
}

/// The sum of `bytes` from scratch, as it stands in a packet: for packets made by userspace. The field of the sum has to
/// be zero.
#[cfg(feature = "std")]
#[must_use]
pub fn checksum(bytes: &[u8]) -> [u8; 4] {
    let of_byte = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| times_x(sum));
    (!bytes.iter().fold(u32::MAX, of_byte)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet of that many bytes, which differ from seed to seed.
    fn packet(length: usize, seed: u32) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    /// RFC 3720 appendix B.4.
    #[test]
    fn the_sum_is_the_one_of_the_standard() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        let rows: [(&[u8], u32); 5] = [
            (b"123456789", 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (&falling, 0x113f_db5c),
        ];
        for (bytes, sum) in rows {
            assert_eq!(u32::from_le_bytes(checksum(bytes)), sum, "{bytes:02x?}");
        }
    }

    fn check(length: usize, change: u32, seed: u32) {
        let mut bytes = packet(length, seed);
        let before = u32::from_le_bytes(checksum(&bytes));
        for (byte, by) in bytes.iter_mut().zip(change.to_le_bytes()) {
            *byte ^= by;
        }
        let changed = before ^ change_by_beginning(change, length as u32);
        assert_eq!(changed.to_le_bytes(), checksum(&bytes), "{length} bytes changed by {change:08x}");
    }

    #[test]
    fn a_changed_sum_equals_one_from_scratch_at_every_length() {
        for length in 16..2_100 {
            check(length, (length as u32).wrapping_mul(0x85eb_ca6b), length as u32);
        }
        for length in [4_095, 4_096, 4_097, 9_000, 32_768, 65_534, 65_535] {
            check(length, 0x0000_7a1f, 7);
            check(length, 0x91e3_0000, 8);
        }
    }

    #[test]
    fn each_bit_of_a_port_counts() {
        for bit in 0..u32::BITS {
            for length in [16, 17, 32, 255, 256, 1_500] {
                check(length, 1 << bit, bit);
            }
        }
    }

    #[test]
    fn no_change_changes_nothing() {
        assert!([16, 1_500, 65_535].iter().all(|&length| change_by_beginning(0, length) == 0));
    }
}
