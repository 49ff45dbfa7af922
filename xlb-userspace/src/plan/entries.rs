//! What an array map holds, as far as it is known: entries by their index. What is in use begins at zero and has few gaps.

use std::ops::{Index, Range};

/// Entries by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries<T>(Vec<Option<T>>);

impl<T> Entries<T> {
    /// The entry at an index, if it is known.
    #[must_use]
    pub fn get(&self, index: &u32) -> Option<&T> {
        self.0.get(*index as usize)?.as_ref()
    }

    /// Notes an entry; answers what was known of it.
    pub fn insert(&mut self, index: u32, entry: T) -> Option<T> {
        let at = index as usize;
        if at >= self.0.len() {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at].replace(entry)
    }

    /// Every known entry with its index, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.0).filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
    }

    /// The known entries of a part, with their indexes.
    pub fn range(&self, indexes: Range<u32>) -> impl Iterator<Item = (u32, &T)> {
        let end = self.0.len().min(indexes.end as usize);
        let part = self.0.get(indexes.start as usize..end).unwrap_or_default();
        (indexes.start..).zip(part).filter_map(|(index, entry)| Some((index, entry.as_ref()?)))
    }

    /// Every known entry.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values().count()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Index<&u32> for Entries<T> {
    type Output = T;

    fn index(&self, index: &u32) -> &T {
        self.get(index).expect("the entry is known")
    }
}

impl<T> FromIterator<(u32, T)> for Entries<T> {
    fn from_iter<I: IntoIterator<Item = (u32, T)>>(entries: I) -> Self {
        let mut all = Self::default();
        entries.into_iter().for_each(|(index, entry)| drop(all.insert(index, entry)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_index_and_by_part() {
        let entries: Entries<char> = [(5, 'b'), (2, 'a'), (5, 'c')].into_iter().collect();
        assert_eq!((entries.get(&5), entries.get(&3), entries.get(&9)), (Some(&'c'), None, None));
        assert_eq!((entries.len(), entries.is_empty()), (2, false));
        assert!(entries.iter().eq([(2, &'a'), (5, &'c')]));
        for (part, found) in [(0..5, vec![(2, &'a')]), (3..9, vec![(5, &'c')]), (6..9, vec![])] {
            assert!(entries.range(part).eq(found));
        }
    }
}
