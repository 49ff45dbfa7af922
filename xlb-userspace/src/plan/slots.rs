//! The words of `SLOTS` as the agent knows them: a table for each region, with counts of what its words say.
//!
//! The counts follow each word that changes. They say what reading all words would say, so that a plan need not.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Deref, Index};

use xlb_common::slot::{MEMBERS_PER_SERVICE_MAX, OWNERS, SlotWord};

/// The tables by their first index in `SLOTS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots(BTreeMap<u32, SlotTable>);

/// The words of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotTable {
    words: Vec<SlotWord>,
    counts: Counts,
}

/// How often the words of a table name each member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// By local index, up to the highest that a word names.
    members: Vec<Named>,
    unowned: u32,
    marked: u32,
}

/// How often one member is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Named {
    /// The slots that it owns and that 0, 1, … 7 others owned before.
    owned: [u32; OWNERS],
    /// The slots that it owned before.
    owned_before: u32,
}

impl Slots {
    /// Adds the words of a region.
    pub fn insert(&mut self, base: u32, words: Vec<SlotWord>) {
        self.0.insert(base, SlotTable::new(words));
    }

    /// Changes a word. False: the slot is in no region.
    #[must_use]
    pub(super) fn set(&mut self, index: u32, word: SlotWord) -> bool {
        let region = self.0.range_mut(..=index).next_back();
        region.is_some_and(|(base, table)| table.set((index - base) as usize, word))
    }

    pub(super) fn remove(&mut self, base: u32) {
        self.0.remove(&base);
    }

    /// The words of the region that begins there.
    #[must_use]
    pub fn get(&self, base: &u32) -> Option<&SlotTable> {
        self.0.get(base)
    }

    /// Every region with its first index.
    pub fn iter(&self) -> btree_map::Iter<'_, u32, SlotTable> {
        self.0.iter()
    }

    /// Every region.
    pub fn values(&self) -> btree_map::Values<'_, u32, SlotTable> {
        self.0.values()
    }

    /// Whether there is no region.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(u32, Vec<SlotWord>)> for Slots {
    fn from_iter<I: IntoIterator<Item = (u32, Vec<SlotWord>)>>(regions: I) -> Self {
        Self(regions.into_iter().map(|(base, words)| (base, SlotTable::new(words))).collect())
    }
}

impl Index<&u32> for Slots {
    type Output = SlotTable;

    fn index(&self, base: &u32) -> &SlotTable {
        &self.0[base]
    }
}

impl SlotTable {
    fn new(words: Vec<SlotWord>) -> Self {
        let counts = Counts::of(&words);
        Self { words, counts }
    }

    /// What its words say.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    fn set(&mut self, slot: usize, word: SlotWord) -> bool {
        let Some(was) = self.words.get_mut(slot) else { return false };
        self.counts.replace(*was, word);
        *was = word;
        true
    }
}

impl Deref for SlotTable {
    type Target = [SlotWord];

    fn deref(&self) -> &[SlotWord] {
        &self.words
    }
}

impl<'a> IntoIterator for &'a SlotTable {
    type Item = &'a SlotWord;
    type IntoIter = std::slice::Iter<'a, SlotWord>;

    fn into_iter(self) -> Self::IntoIter {
        self.words.iter()
    }
}

impl Counts {
    pub(super) fn of(words: &[SlotWord]) -> Self {
        let mut counts = Self::default();
        for &word in words {
            match word {
                SlotWord::EMPTY => counts.unowned += 1,
                word => counts.add(word),
            }
        }
        counts
    }

    /// Follows a word that changes.
    pub(super) fn replace(&mut self, was: SlotWord, word: SlotWord) {
        self.subtract(was);
        self.add(word);
    }

    /// Whether all words are empty.
    pub(super) fn are_all_empty(&self) -> bool {
        self.members.is_empty() && self.marked == 0
    }

    /// Slots that nobody owns.
    pub(super) fn unowned(&self) -> u32 {
        self.unowned
    }

    /// Words that say that they forgot somebody.
    pub(super) fn marked(&self) -> u32 {
        self.marked
    }

    /// Slots that a member owns.
    pub(super) fn owned(&self, member: u8) -> u32 {
        self.owned_after(member).iter().sum()
    }

    /// Slots that a member owns, by how many others owned them before.
    pub(super) fn owned_after(&self, member: u8) -> [u32; OWNERS] {
        self.members.get(usize::from(member)).map_or([0; OWNERS], |named| named.owned)
    }

    /// Slots that a member owned before.
    pub(super) fn owned_before(&self, member: u8) -> u32 {
        self.members.get(usize::from(member)).map_or(0, |named| named.owned_before)
    }

    /// Words that name a member.
    pub(super) fn mentions(&self, member: u8) -> u32 {
        self.owned(member) + self.owned_before(member)
    }

    /// Every local index from zero to the highest that a word names.
    pub(super) fn members(&self) -> impl Iterator<Item = u8> + use<> {
        (0..MEMBERS_PER_SERVICE_MAX as u8).take(self.members.len())
    }

    fn add(&mut self, word: SlotWord) {
        self.marked += u32::from(word.has_forgotten());
        let mut previous = 0;
        for owner in word.previous() {
            self.named(owner).owned_before += 1;
            previous += 1;
        }
        match word.current() {
            Some(owner) => self.named(owner).owned[previous] += 1,
            None => self.unowned += 1,
        }
    }

    fn subtract(&mut self, word: SlotWord) {
        self.marked -= u32::from(word.has_forgotten());
        let mut previous = 0;
        for owner in word.previous() {
            self.named(owner).owned_before -= 1;
            previous += 1;
        }
        match word.current() {
            Some(owner) => self.named(owner).owned[previous] -= 1,
            None => self.unowned -= 1,
        }
        while self.members.pop_if(|last| *last == Named::default()).is_some() {}
    }

    fn named(&mut self, member: u8) -> &mut Named {
        let at = usize::from(member);
        if at >= self.members.len() {
            self.members.resize(at + 1, Named::default());
        }
        &mut self.members[at]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_that_follow_changes_are_those_of_the_words(
            changes in prop::collection::vec((0usize..7, prop::option::of(0u8..12), prop::option::of(0u8..12)), 0..60),
        ) {
            let mut table = SlotTable::new(vec![SlotWord::EMPTY; 7]);
            for (slot, taker, gone) in changes {
                let word = gone.map_or(table[slot], |gone| table[slot].without(gone)).handed_to(taker);
                prop_assert!(table.set(slot, word));
                prop_assert_eq!(table.counts(), &Counts::of(&table));
                let named = |member: u8| table.iter().filter(|word| word.mentions(member)).count() as u32;
                prop_assert!((0..12).all(|member| table.counts().mentions(member) == named(member)));
            }
        }
    }
}
