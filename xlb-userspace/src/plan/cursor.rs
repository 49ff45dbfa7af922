//! Looks for keys that come in order: most are a few steps from the one before, which is less than a search.

use std::collections::{BTreeMap, btree_map};
use std::iter::from_fn;

/// So many steps cost what a search costs.
const STEPS_MAX: usize = 8;

/// Where the last key was.
pub(super) struct Cursor<'a, K, V> {
    map: &'a BTreeMap<K, V>,
    next: Option<(&'a K, &'a V)>,
    rest: btree_map::Range<'a, K, V>,
}

impl<'a, K: Ord, V> Cursor<'a, K, V> {
    /// Before the first key.
    pub(super) fn new(map: &'a BTreeMap<K, V>) -> Self {
        let mut rest = map.range(..);
        Self { map, next: rest.next(), rest }
    }

    /// The entries between two keys, which are above all that were looked for before.
    pub(super) fn between(&mut self, first: &K, last: &K) -> impl Iterator<Item = (&'a K, &'a V)> {
        self.seek(first);
        from_fn(move || {
            let next = self.next.filter(|(key, _)| *key <= last)?;
            self.next = self.rest.next();
            Some(next)
        })
    }

    fn seek(&mut self, first: &K) {
        for _ in 0..STEPS_MAX {
            if self.next.is_none_or(|(key, _)| key >= first) {
                return;
            }
            self.next = self.rest.next();
        }
        self.rest = self.map.range(first..);
        self.next = self.rest.next();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_finds_what_searches_find(
            known in prop::collection::btree_map(0u16..400, any::<u8>(), 0..120),
            keys in prop::collection::btree_set(0u16..400, 0..40),
        ) {
            let mut cursor = Cursor::new(&known);
            let tens: BTreeSet<u16> = keys.iter().map(|key| key / 10 * 10).collect();
            for ten in tens {
                let last = ten + 9;
                prop_assert!(cursor.between(&ten, &last).eq(known.range(ten..=last)));
            }
        }
    }
}
