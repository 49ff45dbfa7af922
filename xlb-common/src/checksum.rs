//! Internet checksums, changed rather than computed again (RFC 1624), in the kernel's own arithmetic.
//!
//! Sums are over 16-bit words as they lie in memory: one's complement addition does not care about byte order.

/// What a change of bytes does to a checksum over them: the sum of the new words less that of the old ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference(pub u32);

impl Difference {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// Two bytes became two others.
    #[inline(always)]
    #[must_use]
    pub fn of_word(old: [u8; 2], new: [u8; 2]) -> Self {
        Self(0).and(!u32::from(u16::from_ne_bytes(old))).and(u32::from(u16::from_ne_bytes(new)))
    }

    /// Four bytes became four others.
    #[inline(always)]
    #[must_use]
    pub fn of_address(old: [u8; 4], new: [u8; 4]) -> Self {
        Self(0).and(!u32::from_ne_bytes(old)).and(u32::from_ne_bytes(new))
    }

    /// Sixteen bytes became sixteen others.
    #[inline(always)]
    #[must_use]
    pub fn of_long_address(old: [u8; 16], new: [u8; 16]) -> Self {
        let [a, b, c, d] = words(old);
        let [e, f, g, h] = words(new);
        Self(0).and(!a).and(!b).and(!c).and(!d).and(e).and(f).and(g).and(h)
    }

    /// Whether no sum changes: neither of the two zeros of one's complement.
    #[inline(always)]
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        fold(self.0) == 0 || fold(self.0) == 0xffff
    }

    /// This change and another one.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        self.and(other.0)
    }

    /// The checksum after the change; the kernel's `csum_replace_by_diff`.
    #[inline(always)]
    #[must_use]
    pub fn applied_to(self, checksum: [u8; 2]) -> [u8; 2] {
        let sum = self.and(!u32::from(u16::from_ne_bytes(checksum))).0;
        (!fold(sum)).to_ne_bytes()
    }

    #[inline(always)]
    const fn and(self, sum: u32) -> Self {
        let (total, carried) = self.0.overflowing_add(sum);
        Self(total + carried as u32)
    }
}

/// The sum of words, for packets that the path makes itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of an even number of bytes.
    #[inline(always)]
    #[must_use]
    pub fn of<const N: usize>(bytes: [u8; N]) -> Self {
        Self(0).and(bytes)
    }

    /// This and an even number of bytes. They are taken in words as large as possible: each needs a place on the stack.
    #[inline(always)]
    #[must_use]
    pub fn and<const N: usize>(self, bytes: [u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2)) };
        let (eights, rest) = bytes.as_chunks::<8>();
        let (fours, rest) = rest.as_chunks::<4>();
        let (twos, _) = rest.as_chunks::<2>();
        let sum = eights.iter().map(|&word| u64::from_ne_bytes(word));
        let sum = sum.fold(self.0, |sum, word| sum.wrapping_add(word & 0xffff_ffff).wrapping_add(word >> 32));
        let sum = fours.iter().fold(sum, |sum, &word| sum.wrapping_add(u64::from(u32::from_ne_bytes(word))));
        Self(twos.iter().fold(sum, |sum, &word| sum.wrapping_add(u64::from(u16::from_ne_bytes(word)))))
    }

    /// Both sums.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// The checksum field that makes the sum right.
    #[inline(always)]
    #[must_use]
    pub const fn checksum(self) -> [u8; 2] {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        (!fold(sum as u32)).to_ne_bytes()
    }
}

/// How a transport checksum has to follow. Addresses and ports apart: for a packet whose sum is left to the device only
/// the pseudo-header (RFC 9293 chapter 3.1) is in the field yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportChange {
    /// Change of the addresses in the pseudo-header.
    pub addresses: Difference,
    /// Change of the ports.
    pub ports: Difference,
    /// UDP: a checksum of zero means that there is none, and stays (RFC 768).
    pub zero_means_none: bool,
    /// IPv4: the header's own sum takes the change of the addresses up; an IPv6 header has none.
    pub has_header_sum: bool,
}

impl TransportChange {
    /// The checksum after the change, or none if there is nothing to write.
    #[inline(always)]
    #[must_use]
    pub fn applied_to(self, checksum: [u8; 2]) -> Option<[u8; 2]> {
        if self.zero_means_none && checksum == [0, 0] {
            return None;
        }
        let changed = self.addresses.plus(self.ports).applied_to(checksum);
        if self.zero_means_none && changed == [0, 0] { Some([0xff, 0xff]) } else { Some(changed) }
    }
}

#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[inline(always)]
fn words(address: [u8; 16]) -> [u32; 4] {
    let address = u128::from_ne_bytes(address);
    [address as u32, (address >> 32) as u32, (address >> 64) as u32, (address >> 96) as u32]
}

/// The checksum of `bytes` from scratch (RFC 1071), beginning with `sum`: for tests and for packets made by userspace.
#[must_use]
pub fn checksum(sum: u32, bytes: &[u8]) -> [u8; 2] {
    let mut sum = u64::from(sum);
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_checksum_equals_one_from_scratch() {
        let mut header = [0x45, 0, 0, 40, 1, 2, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 203, 0, 113, 10];
        for round in 0..1000u32 {
            header[10..12].fill(0);
            let before = checksum(0, &header);
            let (old, new) =
                ([header[16], header[17], header[18], header[19]], (round.wrapping_mul(7_919_777)).to_be_bytes());
            header[16..].copy_from_slice(&new);
            assert_eq!(Difference::of_address(old, new).applied_to(before), checksum(0, &header), "{new:?}");
        }
    }

    #[test]
    fn a_sum_over_long_addresses_equals_one_from_scratch() {
        let mut bytes = [0x20, 1, 0xd, 0xb8, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 9, 0x1f, 0x90];
        for round in 0..1000_u128 {
            let before = checksum(0, &bytes);
            let old: [u8; 16] = std::array::from_fn(|index| bytes[index]);
            let new = round.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
            bytes[..16].copy_from_slice(&new);
            assert_eq!(Difference::of_long_address(old, new).applied_to(before), checksum(0, &bytes), "{new:?}");
        }
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_zero_and_is_never_made() {
        let change = TransportChange { zero_means_none: true, ..TransportChange::default() };
        assert_eq!(change.applied_to([0, 0]), None);
        let to_zero = Difference::of_word([0, 0], [0x12, 0x34]);
        let change = TransportChange { ports: to_zero, ..change };
        assert_eq!(change.applied_to([0x12, 0x34]), Some([0xff, 0xff]));
    }
}
