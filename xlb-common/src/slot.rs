//! One word of `SLOTS`: who owns the slot now, and who owned it before.

/// Members a word can name.
pub const OWNERS: usize = 8;
/// Most backends of one service on one node: a local index is one byte, and two values of it mean no backend.
pub const MEMBERS_PER_SERVICE_MAX: usize = 254;
const NONE: u8 = 0xff;
/// In the last byte: owners before those that are named are forgotten here, and known by their members' flag alone.
const OTHERS: u8 = 0xfe;

/// A slot: byte 0 is the local index of the current owner, bytes 1 to 7 the previous owners, newest first; 0xff is none. The
/// last byte is 0xfe once a previous owner that lives had no room any more.
///
/// Invariant: one aligned 64-bit store changes it as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotWord(pub u64);

impl SlotWord {
    /// No slot's: it stands for all members of a service that slots had no room for. No word names a member twice.
    pub const FORGOTTEN: Self = Self(0);
    /// Nobody owns the slot, and nobody did.
    pub const EMPTY: Self = Self(u64::MAX);

    /// The slot has this owner and no history.
    #[must_use]
    pub const fn owned_by(member: u8) -> Self {
        Self(u64::MAX << 8 | member as u64)
    }

    /// The `index`-th owner: 0 is the current one, then the previous ones, newest first.
    #[inline(always)]
    #[must_use]
    pub const fn owner(self, index: usize) -> Option<u8> {
        let member = (self.0 >> ((index & 7) * 8)) as u8;
        if member >= OTHERS { None } else { Some(member) }
    }

    /// Whether it is [`Self::FORGOTTEN`].
    #[inline(always)]
    #[must_use]
    pub const fn is_forgotten(self) -> bool {
        self.0 == Self::FORGOTTEN.0
    }

    /// The current owner.
    #[inline(always)]
    #[must_use]
    pub const fn current(self) -> Option<u8> {
        self.owner(0)
    }

    /// Whether a previous owner may still hold connections.
    #[inline(always)]
    #[must_use]
    pub const fn has_history(self) -> bool {
        self.0 | 0xff != u64::MAX
    }

    /// The current owner and the previous ones, newest first.
    pub fn owners(self) -> impl Iterator<Item = u8> {
        self.current().into_iter().chain(self.previous())
    }

    /// Previous owners, newest first.
    pub fn previous(self) -> impl Iterator<Item = u8> {
        (1..OWNERS).map_while(move |index| self.owner(index))
    }

    /// Whether previous owners that live were forgotten: the word has no room for their names.
    #[inline(always)]
    #[must_use]
    pub const fn has_forgotten(self) -> bool {
        (self.0 >> (8 * (OWNERS - 1))) as u8 == OTHERS
    }

    /// The slot after `member` took it (none: nobody did): the owner it had becomes the newest previous one.
    /// Of more than seven previous ones the oldest are forgotten, and the word says so.
    #[must_use]
    pub fn handed_to(self, member: Option<u8>) -> Self {
        let former = self.owners().filter(|&owner| Some(owner) != member);
        Self::from_owners(member, former, self.has_forgotten())
    }

    /// The slot with every mention of `member` removed.
    #[must_use]
    pub fn without(self, member: u8) -> Self {
        let current = self.current().filter(|&owner| owner != member);
        Self::from_owners(current, self.previous().filter(|&owner| owner != member), self.has_forgotten())
    }

    /// The slot when nobody who was forgotten lives any more.
    #[must_use]
    pub fn without_forgotten(self) -> Self {
        Self::from_owners(self.current(), self.previous(), false)
    }

    /// Whether `member` owns or owned the slot.
    #[must_use]
    pub fn mentions(self, member: u8) -> bool {
        self.current() == Some(member) || self.previous().any(|owner| owner == member)
    }

    fn from_owners(current: Option<u8>, mut previous: impl Iterator<Item = u8>, has_forgotten: bool) -> Self {
        let mut bytes = [NONE; OWNERS];
        bytes[0] = current.unwrap_or(NONE);
        for (byte, owner) in bytes[1..].iter_mut().zip(previous.by_ref()) {
            *byte = owner;
        }
        if previous.next().is_some() || has_forgotten {
            bytes[OWNERS - 1] = OTHERS;
        }
        Self(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handed_over_slot_remembers_its_owners_newest_first() {
        let word = SlotWord::owned_by(3).handed_to(Some(7)).handed_to(Some(1));
        assert_eq!(word.current(), Some(1));
        assert!(word.previous().eq([7, 3]));
    }

    #[test]
    fn a_slot_given_back_names_its_owner_once() {
        let word = SlotWord::owned_by(3).handed_to(Some(7)).handed_to(Some(3));
        assert_eq!((word.current(), word.previous().collect::<Vec<_>>()), (Some(3), vec![7]));
    }

    #[test]
    fn a_word_says_when_it_has_no_room_for_an_owner() {
        let full = (1..=7).fold(SlotWord::owned_by(0), |word, member| word.handed_to(Some(member)));
        assert!(full.previous().eq((0..=6).rev()) && !full.has_forgotten());

        let word = full.handed_to(Some(8));
        assert!(word.previous().eq((2..=7).rev()), "the oldest two made room for the mark");
        assert!(word.has_forgotten() && !word.mentions(1) && !word.mentions(0));

        let left = (0..8).fold(word, SlotWord::without);
        assert!(left.has_history() && left.has_forgotten(), "the mark outlives the owners that are named");
        assert_eq!(left.without_forgotten(), SlotWord::owned_by(8));
    }

    #[test]
    fn a_slot_without_current_owner_still_has_a_history() {
        let word = SlotWord::owned_by(4).handed_to(None);
        assert_eq!(word.current(), None);
        assert!(word.has_history() && word.mentions(4));
        assert_eq!(word.without(4), SlotWord::EMPTY);
        assert!(!SlotWord::EMPTY.has_history() && !SlotWord::owned_by(9).has_history());
    }
}
