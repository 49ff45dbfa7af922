//! How many answers a CPU may send: the kernel limits its own errors in the same way (RFC 1812 chapter 4.3.2.8).

use bytemuck::{Pod, Zeroable};

/// Answers of a kind that a CPU may send in a second, in the long run.
pub const ANSWERS_PER_S: u64 = 1_000;
/// Answers of a kind that a CPU may send at once after a silence.
pub const ANSWERS_BURST: u64 = 50;

const NS_PER_ANSWER: u64 = 1_000_000_000 / ANSWERS_PER_S;

/// Kinds of answers, each with a bucket of its own: its index in `ANSWER_BUDGETS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An ICMP error, or a TCP reset.
    Refusal,
    /// An echo reply.
    Echo,
}

impl Answer {
    /// How many there are.
    pub const COUNT: usize = 2;
}

/// Value of `ANSWER_BUDGETS`: a bucket that fills by one token per [`NS_PER_ANSWER`], kept as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Budget {
    /// When the bucket is full again, in nanoseconds of the kernel's monotonic clock.
    pub full_at_ns: u64,
}
const _: () = assert!(size_of::<Budget>() == 8);

impl Budget {
    /// Takes one token; false if there is none.
    #[inline(always)]
    #[must_use]
    pub const fn take(&mut self, now_ns: u64) -> bool {
        let full_at_ns = if self.full_at_ns > now_ns { self.full_at_ns } else { now_ns };
        if full_at_ns - now_ns > (ANSWERS_BURST - 1) * NS_PER_ANSWER {
            return false;
        }
        self.full_at_ns = full_at_ns + NS_PER_ANSWER;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn taken(budget: &mut Budget, now_ns: u64, attempts: usize) -> usize {
        (0..attempts).filter(|_| budget.take(now_ns)).count()
    }

    #[test]
    fn after_a_silence_a_burst_is_sent_and_no_more() {
        let mut budget = Budget::default();
        assert_eq!(taken(&mut budget, 5 * S, 1_000), ANSWERS_BURST as usize);
        assert_eq!(taken(&mut budget, 5 * S + NS_PER_ANSWER, 1_000), 1);
        assert_eq!(taken(&mut budget, 60 * S, 1_000), ANSWERS_BURST as usize);
    }

    #[test]
    fn a_flood_is_answered_at_the_rate_whatever_the_clock_s_grain() {
        for grain_ns in [100_000, 1_000_000, 4_000_000, 10_000_000] {
            let mut budget = Budget::default();
            let sent: usize = (1..=10 * S / grain_ns).map(|tick| taken(&mut budget, tick * grain_ns, 200)).sum();
            let least = 10 * ANSWERS_PER_S as usize;
            assert!((least..=least + ANSWERS_BURST as usize).contains(&sent), "{sent} at {grain_ns} ns");
        }
    }
}
