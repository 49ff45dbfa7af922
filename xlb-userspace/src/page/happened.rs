//! What came up and what was settled: the last changes of what is refused.

use std::collections::{BTreeSet, VecDeque};

use crate::plan::desired::Refusal;

/// Most that is remembered; the oldest goes first.
pub const HAPPENED_MAX: usize = 100;

/// Something that came up, or was settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// In seconds since 1970.
    pub at_s: u64,
    /// Whether it came up then; else it was settled.
    pub has_come: bool,
    /// What it is about.
    pub refusal: Refusal,
}

/// The last of them, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    refused: Vec<Refusal>,
    entries: VecDeque<Happened>,
}

impl Log {
    /// Takes in what is refused now.
    pub fn follow(&mut self, refused: &[Refusal], at_s: u64) {
        if self.refused == refused {
            return;
        }
        let (before, now): (BTreeSet<_>, BTreeSet<_>) = (self.refused.iter().collect(), refused.iter().collect());
        let settled = before.difference(&now).map(|refusal| (false, *refusal));
        let come = now.difference(&before).map(|refusal| (true, *refusal));
        for (has_come, refusal) in settled.take(HAPPENED_MAX).chain(come.take(HAPPENED_MAX)) {
            self.entries.push_front(Happened { at_s, has_come, refusal: refusal.clone() });
        }
        self.entries.truncate(HAPPENED_MAX);
        self.refused = refused.to_vec();
    }

    /// What is refused now.
    #[must_use]
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// What happened, the newest first.
    pub fn entries(&self) -> impl Iterator<Item = &Happened> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(object: &str) -> Refusal {
        Refusal { object: object.into(), why: "because".into() }
    }

    #[test]
    fn what_comes_and_goes_is_told_newest_first() {
        let mut log = Log::default();
        log.follow(&[refusal("a")], 1);
        log.follow(&[refusal("a")], 2);
        log.follow(&[refusal("b")], 3);
        let told: Vec<_> = log.entries().map(|it| (it.at_s, it.has_come, it.refusal.object.as_str())).collect();
        assert_eq!(told, [(3, true, "b"), (3, false, "a"), (1, true, "a")]);
        assert_eq!(log.refused(), [refusal("b")]);
    }

    #[test]
    fn a_thousand_refusals_at_once_take_no_more_room_than_a_hundred() {
        let mut log = Log::default();
        let many: Vec<Refusal> = (0..1000).map(|index| refusal(&index.to_string())).collect();
        log.follow(&many, 1);
        log.follow(&[], 2);
        assert_eq!(log.entries().count(), HAPPENED_MAX);
        assert!(log.entries().all(|it| !it.has_come && it.at_s == 2));
    }
}
