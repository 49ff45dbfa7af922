//! Bytes that show their own position, so that lost, repeated or exchanged data is noticed.

use std::sync::LazyLock;

/// The pattern repeats after a prime number of bytes: no shift by segments, pages or buffers hides behind it.
const PERIOD: usize = 65_521;

/// Twice the period, so that from each position one period can be lent without a seam.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| (0..2 * PERIOD).map(|at| byte_at(at % PERIOD)).collect());

/// A position in the endless pattern.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pattern {
    position: u64,
}

impl Pattern {
    /// The next bytes, at most `limit` and at most one period of them. Advances by as many.
    pub fn next(&mut self, limit: u64) -> &'static [u8] {
        let start = self.offset();
        let length = usize::try_from(limit).unwrap_or(PERIOD).min(PERIOD);
        self.position += length as u64;
        &BYTES[start..start + length]
    }

    /// Compares the next bytes with `data` and advances. An error is the position of the first difference.
    pub fn check(&mut self, data: &[u8]) -> Result<(), u64> {
        for chunk in data.chunks(PERIOD) {
            let start = self.offset();
            let expected = &BYTES[start..start + chunk.len()];
            if let Some(at) = first_difference(expected, chunk) {
                return Err(self.position + at as u64);
            }
            self.position += chunk.len() as u64;
        }
        Ok(())
    }

    /// How many bytes went by.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn offset(&self) -> usize {
        usize::try_from(self.position % PERIOD as u64).expect("the remainder is below the period")
    }
}

fn first_difference(expected: &[u8], data: &[u8]) -> Option<usize> {
    if expected == data {
        return None;
    }
    expected.iter().zip(data).position(|(expected, byte)| expected != byte)
}

fn byte_at(position: usize) -> u8 {
    // Fibonacci hashing: neighbours differ, and the top byte depends on every bit of the position.
    ((position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 3 * PERIOD as u64 + 17;

    #[test]
    fn what_is_sent_is_what_is_expected() {
        let (mut sender, mut receiver) = (Pattern::default(), Pattern::default());
        while sender.position() < MANY {
            let bytes = sender.next((MANY - sender.position()).min(1460));
            assert_eq!(receiver.check(bytes), Ok(()));
        }
        assert_eq!(receiver.position(), MANY);
    }

    #[test]
    fn a_lost_repeated_or_changed_piece_is_noticed() {
        let mut sender = Pattern::default();
        let bytes = sender.next(8192).to_vec();
        let lost = [&bytes[..1460], &bytes[2920..]].concat();
        let repeated = [&bytes[..1460], &bytes[..1460]].concat();
        let changed = [&bytes[..1460], &[!bytes[1460]]].concat();
        for (wrong, at_least) in [(lost, 1460), (repeated, 1460), (changed, 1460)] {
            let position = Pattern::default().check(&wrong).expect_err("wrong bytes");
            assert!((at_least..at_least + 8).contains(&position), "{position}");
        }
    }
}
