//! When what led to a change of a slice happened, as its controller notes it: the beginning of the time that a change
//! takes (semantics 14.7).

use std::collections::BTreeMap;

use crate::model::ObjectName;

/// Most moments that wait to be taken; what comes beyond is not measured.
const WAITING_MAX: usize = 10_000;

/// The moments that each slice notes, and those that are new.
#[derive(Debug, Default)]
pub struct Triggers {
    noted: BTreeMap<ObjectName, i64>,
    waiting: Vec<i64>,
}

impl Triggers {
    /// A slice notes a moment. What it notes again, and what it noted before everything was told, measures nothing.
    pub fn note(&mut self, slice: &ObjectName, triggered_ms: Option<i64>, is_all_told: bool) {
        let Some(moment_ms) = triggered_ms else { return };
        let before = self.noted.insert(slice.clone(), moment_ms);
        if is_all_told && before != Some(moment_ms) && self.waiting.len() < WAITING_MAX {
            self.waiting.push(moment_ms);
        }
    }

    /// The slice is gone.
    pub fn forget(&mut self, slice: &ObjectName) {
        self.noted.remove(slice);
    }

    /// The moments noted since the last time.
    pub fn take(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_counts_once_and_not_before_everything_was_told() {
        let slice = ObjectName { namespace: "default".into(), name: "web-1".into() };
        let mut triggers = Triggers::default();
        triggers.note(&slice, Some(100), false);
        triggers.note(&slice, Some(100), true);
        triggers.note(&slice, None, true);
        assert!(triggers.take().is_empty());
        triggers.note(&slice, Some(200), true);
        triggers.note(&slice, Some(200), true);
        assert_eq!(triggers.take(), [200]);
        assert!(triggers.take().is_empty());
        triggers.forget(&slice);
        triggers.note(&slice, Some(200), true);
        assert_eq!(triggers.take(), [200], "a new slice of that name");
    }
}
