//! How full a flow map is, and what follows from that: the fuller, the sooner what is over goes. What lives is not touched.

use std::time::Duration;

use crate::ageing::Timeouts;

/// How full a flow map is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is room.
    #[default]
    Calm,
    /// 80 % or more are in use.
    High,
    /// 95 % or more are: soon the kernel evicts for each new flow the one that was looked up least recently.
    Critical,
}

/// Percent in use from which a map is said to be filling up.
pub const HIGH_PERCENT: u64 = 80;
/// Percent in use from which it is said to be full: the kernel begins to evict a little before it is.
pub const CRITICAL_PERCENT: u64 = 95;

/// Entries of a map that the kernel keeps free for each CPU (kernel/bpf/bpf_lru_list.c, LOCAL_FREE_TARGET).
const FREE_PER_CPU: u64 = 128;

/// How many entries a map holds before the kernel evicts any.
#[must_use]
pub fn room(capacity: u64, cpus: u64) -> u64 {
    capacity - (capacity / 2).min(cpus * FREE_PER_CPU)
}

/// Longest pause between two sweeps of a map.
const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Shortest pause between two sweeps of a map with room.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

impl Pressure {
    /// By entries in use, of a map with so much [`room`].
    #[must_use]
    pub fn of(entries: u64, room: u64) -> Self {
        let is_beyond = |percent: u64| entries * 100 >= room * percent;
        match (is_beyond(HIGH_PERCENT), is_beyond(CRITICAL_PERCENT)) {
            (_, true) => Self::Critical,
            (true, _) => Self::High,
            _ => Self::Calm,
        }
    }

    /// Percent from which a map is said to be this full.
    #[must_use]
    pub fn percent(self) -> u64 {
        match self {
            Self::Calm => 0,
            Self::High => HIGH_PERCENT,
            Self::Critical => CRITICAL_PERCENT,
        }
    }

    /// For how long what is over stays for late packets.
    #[must_use]
    pub fn linger(self, timeouts: &Timeouts) -> Duration {
        match self {
            Self::Calm => timeouts.closed,
            Self::High => timeouts.closed / 4,
            Self::Critical => timeouts.closed / 16,
        }
    }

    /// For how long a connection stays that nobody sees, and of which the pod has sent its FIN. The client's FIN is not seen:
    /// of many such connections in a full map, hardly any goes on.
    #[must_use]
    pub fn close_wait(self, timeouts: &Timeouts) -> Duration {
        let is_shortened = self != Self::Calm && !timeouts.closed.is_zero();
        if is_shortened { timeouts.tcp_close_wait.min(timeouts.closed) } else { timeouts.tcp_close_wait }
    }

    /// The pause after a sweep that kept a CPU busy for so long: sweeping takes at most a 20th of a CPU, a fifth, or a half.
    #[must_use]
    pub fn pause(self, timeouts: &Timeouts, busy: Duration) -> Duration {
        let usual = timeouts.shortest().map_or(INTERVAL_MAX, |shortest| shortest / 2).clamp(INTERVAL_MIN, INTERVAL_MAX);
        match self {
            Self::Calm => usual.max(busy * 19),
            Self::High => (usual / 4).max(busy * 4),
            Self::Critical => INTERVAL_MIN.min(usual).max(busy),
        }
    }

    /// The rest after a part of a sweep that took so long.
    #[must_use]
    pub fn rest(self, took: Duration) -> Duration {
        match self {
            Self::Calm => took * 3,
            Self::High => took,
            Self::Critical => Duration::ZERO,
        }
    }

    /// Most flows of a map for which pods' kernels are asked in one sweep. The next one goes on where this one ended.
    #[must_use]
    pub fn asks_max(self) -> u64 {
        match self {
            Self::Calm => 16_384,
            Self::High => 131_072,
            Self::Critical => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuller_map_is_swept_sooner_and_what_is_over_lingers_less() {
        let timeouts = Timeouts::default();
        let levels = [Pressure::Calm, Pressure::High, Pressure::Critical];
        let seconds = |duration: Duration| duration.as_millis() as f64 / 1000.0;
        let pauses = |busy_s| levels.map(|level| seconds(level.pause(&timeouts, Duration::from_secs(busy_s))));
        assert_eq!(pauses(0), [15.0, 3.75, 1.0]);
        assert_eq!(pauses(2), [38.0, 8.0, 2.0], "a large map is not swept all the time");
        assert_eq!(levels.map(|level| seconds(level.linger(&timeouts))), [120.0, 30.0, 7.5]);
    }

    #[test]
    fn what_the_kernel_keeps_free_is_no_room() {
        assert_eq!(room(2_048, 2), 1_792);
        assert_eq!(room(65_536, 128), 49_152);
        assert_eq!(room(1_024, 128), 512, "of a small map half, since Linux 6.16");
    }

    #[test]
    fn pressure_begins_at_80_and_at_95_percent() {
        for (entries, expected) in [
            (0, Pressure::Calm),
            (7_999, Pressure::Calm),
            (8_000, Pressure::High),
            (9_499, Pressure::High),
            (9_500, Pressure::Critical),
            (10_000, Pressure::Critical),
        ] {
            assert_eq!(Pressure::of(entries, 10_000), expected, "{entries}");
        }
    }
}
