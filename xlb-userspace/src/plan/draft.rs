//! A table that is being changed: its words as they shall be, what they say, and which slots were touched.

use std::borrow::Cow;

use xlb_common::slot::SlotWord;

use super::slots::{Counts, SlotTable};

/// The table of a plan. Words are copied when the first one changes.
pub(super) struct Draft<'a> {
    was: &'a [SlotWord],
    words: Cow<'a, [SlotWord]>,
    counts: Cow<'a, Counts>,
    /// May name a slot twice, or one that is again as it was.
    touched: Vec<usize>,
}

impl<'a> Draft<'a> {
    /// Nothing is changed yet.
    pub(super) fn of(table: &'a SlotTable) -> Self {
        let (words, counts) = (Cow::Borrowed(&table[..]), Cow::Borrowed(table.counts()));
        Self { was: table, words, counts, touched: Vec::new() }
    }

    /// The same for words of which nobody knows what they say.
    pub(super) fn of_words(words: &'a [SlotWord]) -> Self {
        let counts = Cow::Owned(Counts::of(words));
        Self { was: words, words: Cow::Borrowed(words), counts, touched: Vec::new() }
    }

    pub(super) fn words(&self) -> &[SlotWord] {
        &self.words
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn into_words(self) -> Vec<SlotWord> {
        self.words.into_owned()
    }

    /// The slots whose words differ from those that were there, in order.
    pub(super) fn changed(&self) -> Vec<usize> {
        let mut changed = self.touched.clone();
        changed.sort_unstable();
        changed.dedup();
        changed.retain(|&slot| self.words[slot] != self.was[slot]);
        changed
    }

    /// Slots that were changed: each word that differs is among them.
    pub(super) fn touched(&self) -> &[usize] {
        &self.touched
    }

    /// Changes a word.
    pub(super) fn set(&mut self, slot: usize, word: SlotWord) {
        self.counts.to_mut().replace(self.words[slot], word);
        self.set_uncounted(slot, word);
    }

    /// Changes a word when nobody asks any more what the words say.
    pub(super) fn set_uncounted(&mut self, slot: usize, word: SlotWord) {
        self.words.to_mut()[slot] = word;
        self.touched.push(slot);
    }

    /// Changes each word to what `changed` makes of it.
    pub(super) fn set_all(&mut self, changed: impl Fn(SlotWord) -> SlotWord) {
        for slot in 0..self.words.len() {
            let (was, word) = (self.words[slot], changed(self.words[slot]));
            if was != word {
                self.set(slot, word);
            }
        }
    }

    /// Removes every mention of a member.
    pub(super) fn remove(&mut self, member: u8) {
        for slot in naming(&self.words, member, self.counts.mentions(member)) {
            self.set(slot, self.words[slot].without(member));
        }
    }
}

/// The slots whose words name a member, which are so many.
fn naming(words: &[SlotWord], member: u8, count: u32) -> Vec<usize> {
    const CHUNK: usize = 8;
    let mut slots = Vec::with_capacity(count as usize);
    for (base, chunk) in (0..).step_by(CHUNK).zip(words.chunks(CHUNK)) {
        if slots.len() == count as usize {
            break;
        }
        if chunk.iter().fold(0, |found, &word| found | naming_bytes(word, member)) != 0 {
            slots.extend(
                (base..).zip(chunk).filter(|(_, word)| naming_bytes(**word, member) != 0).map(|(slot, _)| slot),
            );
        }
    }
    slots
}

/// Not zero if a byte of the word is the member's. Of the bytes that name nobody none is.
fn naming_bytes(word: SlotWord, member: u8) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    let differences = word.0 ^ (EACH * u64::from(member));
    differences.wrapping_sub(EACH) & !differences & (EACH << 7)
}
