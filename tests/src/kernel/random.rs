//! Random numbers from a seed: the same seed makes the same packets on every machine. Or choices that are somebody's: the
//! fuzzer's.

use std::collections::VecDeque;

/// Where the next number comes from.
pub enum Random {
    /// xorshift64* (Vigna 2016): even enough for tests.
    Seeded(u64),
    /// Two bytes for each number.
    Chosen(VecDeque<u8>),
}

/// Two bytes, four times.
const REPEATED: u64 = 0x0001_0001_0001_0001;

impl Random {
    /// From the seed of a run.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self::Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// By these bytes; behind their end nothing comes true that is one of several chances.
    #[must_use]
    pub fn chosen(bytes: &[u8]) -> Self {
        Self::Chosen(bytes.iter().copied().collect())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        match self {
            Self::Seeded(state) => {
                *state ^= *state >> 12;
                *state ^= *state << 25;
                *state ^= *state >> 27;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d)
            }
            Self::Chosen(bytes) => {
                let mut next = || bytes.pop_front().unwrap_or(0xff);
                u64::from(u16::from_le_bytes([next(), next()])) * REPEATED
            }
        }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// Whether one of `of` chances came true.
    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The seed of this run: `XLB_SEED`, or the clock's. It is printed, so that a failure can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("XLB_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    println!("XLB_SEED={seed}");
    seed
}
