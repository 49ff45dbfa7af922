//! What was counted lately, so that the command line can tell the last minute from all that came before.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use xlb_common::Reason;

/// How long ago the counters that are compared with were read, at least, once the agent has run for so long.
const SPAN_S: u64 = 60;
/// Shortest time between two looks at the counters.
const PAUSE_S: u64 = 5;

/// The counters of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// When, in seconds since 1970.
    pub at_s: u64,
    /// Packets and events by reason, those that had occurred.
    pub counts: BTreeMap<String, u64>,
}

impl Counted {
    /// The counters as they are at this moment.
    #[must_use]
    pub fn of(at_s: u64, counters: Vec<(Reason, u64)>) -> Self {
        let happened = counters.into_iter().filter(|(_, count)| *count > 0);
        Self { at_s, counts: happened.map(|(reason, count)| (reason.label().to_owned(), count)).collect() }
    }
}

/// The last looks at the counters, oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Counted>);

impl History {
    /// Whether it is time for another look.
    #[must_use]
    pub fn is_due(&self, now_s: u64) -> bool {
        self.0.back().is_none_or(|last| last.at_s.abs_diff(now_s) >= PAUSE_S)
    }

    /// Takes in a look, and forgets those that are older than anybody asks for.
    pub fn add(&mut self, counted: Counted) {
        let now_s = counted.at_s;
        self.0.push_back(counted);
        while self.0.get(1).is_some_and(|second| second.at_s + SPAN_S <= now_s) {
            self.0.pop_front();
        }
    }

    /// The look that the last minute is counted from.
    #[must_use]
    pub fn before(&self) -> Option<&Counted> {
        self.0.front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_look_of_a_minute_ago_is_kept_and_older_ones_are_not() {
        let mut history = History::default();
        assert!(history.is_due(1000) && history.before().is_none());
        let mut kept = Vec::new();
        for now_s in (1000..1200).step_by(5) {
            history.add(Counted { at_s: now_s, counts: BTreeMap::new() });
            kept.push((now_s, history.before().map(|counted| counted.at_s)));
        }
        assert_eq!(kept[0], (1000, Some(1000)));
        assert_eq!(kept[11], (1055, Some(1000)), "the first minute begins with the agent");
        assert_eq!(kept[12], (1060, Some(1000)));
        assert_eq!(kept[13], (1065, Some(1005)));
        assert_eq!(kept[39], (1195, Some(1135)));
        assert!(!history.is_due(1199) && history.is_due(1200));
        assert!(history.is_due(500), "the clock was set back");
    }
}
