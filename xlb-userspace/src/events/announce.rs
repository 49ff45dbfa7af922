//! Which notices are due: each once an hour, and not more of all together than the API server should bear.

use std::collections::{BTreeMap, VecDeque};

use super::notice::Notice;

/// After this time what still holds is told again: the API server forgets events after an hour.
pub const REPEAT_MS: u64 = 3_600_000;
/// Most events in [`WINDOW_MS`]; what is beyond waits for a later round.
pub const EVENTS_MAX: usize = 20;
/// The time in which not more than [`EVENTS_MAX`] are told.
pub const WINDOW_MS: u64 = 60_000;

/// Remembers what was told, and when. At most an hour's worth: [`EVENTS_MAX`] for each [`WINDOW_MS`].
#[derive(Debug, Default)]
pub struct Announcer {
    told: BTreeMap<Notice, u64>,
    recent: VecDeque<u64>,
}

impl Announcer {
    /// Of these notices, those that are to be told now.
    pub fn due(&mut self, notices: impl IntoIterator<Item = Notice>, now_ms: u64) -> Vec<Notice> {
        self.told.retain(|_, told_ms| now_ms < *told_ms + REPEAT_MS);
        while self.recent.front().is_some_and(|told_ms| now_ms >= told_ms + WINDOW_MS) {
            self.recent.pop_front();
        }
        let mut due = Vec::new();
        for notice in notices {
            if self.recent.len() >= EVENTS_MAX {
                break;
            }
            if !self.told.contains_key(&notice) {
                self.told.insert(notice.clone(), now_ms);
                self.recent.push_back(now_ms);
                due.push(notice);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::desired::Refusal;

    fn notice(number: usize) -> Notice {
        let why = "it is not served".to_owned();
        Notice::of(&Refusal { object: format!("Service default/web-{number}"), why }, "node-a").unwrap()
    }

    #[test]
    fn the_same_is_told_once_an_hour_also_if_it_comes_and_goes() {
        let mut announcer = Announcer::default();
        assert_eq!(announcer.due([notice(1)], 0), [notice(1)]);
        assert_eq!(announcer.due([notice(1), notice(2)], 5_000), [notice(2)]);
        assert_eq!(announcer.due([], 10_000), []);
        assert_eq!(announcer.due([notice(1)], REPEAT_MS - 1), []);
        assert_eq!(announcer.due([notice(1)], REPEAT_MS), [notice(1)]);
    }

    #[test]
    fn a_flood_of_notices_is_told_little_by_little_and_none_is_lost() {
        let mut announcer = Announcer::default();
        let all = || (0..3 * EVENTS_MAX).map(notice);
        let mut told = Vec::new();
        for minute in 0..3 {
            for _ in 0..3 {
                told.extend(announcer.due(all(), minute * WINDOW_MS));
            }
            assert_eq!(told.len(), (minute as usize + 1) * EVENTS_MAX);
        }
        told.sort();
        let mut expected: Vec<_> = all().collect();
        expected.sort();
        assert_eq!(told, expected);
    }
}
