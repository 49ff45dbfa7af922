//! What a CPU may spend on packets that anybody can send: the kernel limits its own errors in the same way (RFC 1812 chapter
//! 4.3.2.8).

use bytemuck::{Pod, Zeroable};

/// Answers of a kind that a CPU may send in a second, in the long run.
pub const ANSWERS_PER_S: u64 = 1_000;
/// Answers of a kind that a CPU may send at once after a silence.
pub const ANSWERS_BURST: u64 = 50;
/// Flows for whose owner a CPU may search all members of a service in a second, and at once after a silence. A member costs a
/// question to its kernel, which is some 120 ns: with the most that a service can have, it is a tenth of the CPU.
pub const SEARCHES_PER_S: u64 = 4_096;

/// What is limited, each with a bucket of its own: its index in `BUDGETS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// An ICMP error, or a TCP reset.
    Refusal,
    /// An echo reply.
    Echo,
    /// A search for a flow's owner among all members of its service.
    Search,
    /// The same for a packet that asks for a connection: a flood of them leaves the others' searches alone.
    SearchBySyn,
}

impl Spending {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// How long a token takes to come back, and how many there are at most.
    #[inline(always)]
    const fn limits(self) -> (u64, u64) {
        match self {
            Self::Refusal | Self::Echo => (NS_PER_S / ANSWERS_PER_S, ANSWERS_BURST),
            Self::Search | Self::SearchBySyn => (NS_PER_S / SEARCHES_PER_S, SEARCHES_PER_S),
        }
    }
}

const NS_PER_S: u64 = 1_000_000_000;

/// Value of `BUDGETS`: a bucket that fills by one token after the other, kept as one number.
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
    pub const fn take(&mut self, spending: Spending, now_ns: u64) -> bool {
        let (token_ns, burst) = spending.limits();
        let full_at_ns = if self.full_at_ns > now_ns { self.full_at_ns } else { now_ns };
        if full_at_ns - now_ns > (burst - 1) * token_ns {
            return false;
        }
        self.full_at_ns = full_at_ns + token_ns;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Spending; Spending::COUNT] =
        [Spending::Refusal, Spending::Echo, Spending::Search, Spending::SearchBySyn];

    fn taken(budget: &mut Budget, spending: Spending, now_ns: u64, attempts: usize) -> usize {
        (0..attempts).filter(|_| budget.take(spending, now_ns)).count()
    }

    #[test]
    fn after_a_silence_a_burst_is_spent_and_no_more() {
        for spending in KINDS {
            let ((token_ns, burst), mut budget) = (spending.limits(), Budget::default());
            assert_eq!(taken(&mut budget, spending, 5 * NS_PER_S, 10_000), burst as usize);
            assert_eq!(taken(&mut budget, spending, 5 * NS_PER_S + token_ns, 10_000), 1);
            assert_eq!(taken(&mut budget, spending, 60 * NS_PER_S, 10_000), burst as usize);
        }
    }

    #[test]
    fn a_flood_is_answered_at_the_rate_whatever_the_clock_s_grain() {
        for (spending, grain_ns) in
            KINDS.into_iter().flat_map(|kind| [100_000, 1_000_000, 4_000_000, 10_000_000].map(|grain| (kind, grain)))
        {
            let ((token_ns, burst), mut budget) = (spending.limits(), Budget::default());
            let ticks = 1..=10 * NS_PER_S / grain_ns;
            let spent: usize = ticks.map(|tick| taken(&mut budget, spending, tick * grain_ns, 200)).sum();
            let least = (10 * NS_PER_S / token_ns) as usize;
            assert!((least..=least + burst as usize).contains(&spent), "{spent} at {grain_ns} ns");
        }
    }
}
