//! The last hour of the counters, in memory of a fixed size.

use std::collections::VecDeque;
use std::time::Duration;

use xlb_common::Reason;
use xlb_common::reason::{Direction, Disposition};

/// From one sample to the next.
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// One more than the steps between them: an hour.
pub const SAMPLES_MAX: usize = 361;

/// What the counters were.
struct Sample {
    at_s: u64,
    counts: [u64; Reason::COUNT],
}

const _: () =
    assert!(SAMPLES_MAX * size_of::<Sample>() <= 300 * 1024, "docs/PAGE.md says that it takes less than 300 KiB");

/// Samples, the oldest first.
pub struct History(VecDeque<Sample>);

/// What happened between two samples, for each pair of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// When each of them began, in seconds since 1970.
    pub begun_s: Vec<u64>,
    /// When the last of them ended.
    pub ended_s: u64,
    /// Packets from clients outside that went to pods.
    pub delivered: Vec<u64>,
    /// Packets of pods that were sent out as the VIP's.
    pub replied: Vec<u64>,
    /// Packets that were dropped, or refused, by reason; reasons for which none was are left out.
    pub drops: Vec<(Reason, Vec<u64>)>,
}

impl Default for History {
    fn default() -> Self {
        Self(VecDeque::with_capacity(SAMPLES_MAX))
    }
}

impl History {
    /// Takes in what the counters are; the oldest sample makes room.
    pub fn add(&mut self, at_s: u64, counters: &[(Reason, u64)]) {
        if self.0.len() >= SAMPLES_MAX {
            self.0.pop_front();
        }
        let mut counts = [0; Reason::COUNT];
        for (reason, count) in counters {
            counts[*reason as usize] = *count;
        }
        self.0.push_back(Sample { at_s, counts });
    }

    /// What happened from sample to sample.
    #[must_use]
    pub fn steps(&self) -> Steps {
        let pairs = || self.0.iter().zip(self.0.iter().skip(1));
        let of = |reason: Reason| {
            let at = reason as usize;
            // Maps that were made anew count from zero.
            pairs().map(move |(before, after)| after.counts[at].saturating_sub(before.counts[at]))
        };
        let sum = |is_meant: fn(Reason) -> bool| {
            let mut sums = vec![0; self.0.len().saturating_sub(1)];
            for &reason in Reason::ALL.iter().filter(|reason| is_meant(**reason)) {
                sums.iter_mut().zip(of(reason)).for_each(|(sum, count)| *sum += count);
            }
            sums
        };
        let drops = Reason::ALL.iter().filter(|reason| reason.is_drop()).map(|&reason| (reason, of(reason).collect()));
        Steps {
            begun_s: pairs().map(|(before, _)| before.at_s).collect(),
            ended_s: self.0.back().map_or(0, |last| last.at_s),
            delivered: sum(is_delivery),
            replied: sum(is_reply),
            drops: drops.filter(|(_, counts): &(Reason, Vec<u64>)| counts.iter().any(|count| *count > 0)).collect(),
        }
    }
}

fn is_delivery(reason: Reason) -> bool {
    (reason.direction(), reason.disposition()) == (Direction::Forward, Disposition::Forward)
}

fn is_reply(reason: Reason) -> bool {
    (reason.direction(), reason.disposition()) == (Direction::Return, Disposition::Forward)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_what_came_between_samples() {
        let mut history = History::default();
        assert_eq!(history.steps(), Steps::default());
        for (at_s, owner, dropped) in [(10, 100, 5), (20, 150, 5), (30, 150, 8), (40, 10, 8)] {
            history.add(at_s, &[(Reason::SlotOwner, owner), (Reason::Replied, 1), (Reason::EmptyDropped, dropped)]);
        }
        let expected = Steps {
            begun_s: vec![10, 20, 30],
            ended_s: 40,
            delivered: vec![50, 0, 0],
            replied: vec![0, 0, 0],
            drops: vec![(Reason::EmptyDropped, vec![0, 3, 0])],
        };
        assert_eq!(history.steps(), expected, "maps that were made anew count from zero");
    }

    #[test]
    fn more_than_an_hour_is_not_kept() {
        let mut history = History::default();
        let capacity = history.0.capacity();
        for at in 0..1000 {
            history.add(at * SAMPLE_INTERVAL.as_secs(), &[(Reason::NotOurs, at)]);
        }
        let steps = history.steps();
        assert_eq!((steps.begun_s.len(), steps.ended_s - steps.begun_s[0]), (360, 3600));
        assert_eq!(history.0.capacity(), capacity, "its memory does not grow");
    }
}
