//! One word of `SLOTS`: who owns the slot now, and who owned it before.

/// Members a word can name.
pub const OWNERS: usize = 8;
/// Most backends of one service on one node: a local index is one byte, and 255 means none.
pub const MEMBERS_PER_SERVICE_MAX: usize = 255;
const NONE: u8 = 0xff;

/// A slot: byte 0 is the local index of the current owner, bytes 1 to 7 the previous owners, newest first; 0xff is none.
///
/// Invariant: one aligned 64-bit store changes it as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotWord(pub u64);

impl SlotWord {
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
        if member == NONE { None } else { Some(member) }
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

    /// Previous owners, newest first.
    pub fn previous(self) -> impl Iterator<Item = u8> {
        (1..OWNERS).map_while(move |index| self.owner(index))
    }

    /// The slot after `member` took it (none: nobody did): the owner it had becomes the newest previous one.
    /// With eight names already there the oldest is forgotten.
    #[must_use]
    pub fn handed_to(self, member: Option<u8>) -> Self {
        let former = self.current().into_iter().chain(self.previous());
        let former = former.filter(|&owner| Some(owner) != member);
        Self::from_owners(member, former)
    }

    /// The slot with every mention of `member` removed.
    #[must_use]
    pub fn without(self, member: u8) -> Self {
        let current = self.current().filter(|&owner| owner != member);
        Self::from_owners(current, self.previous().filter(|&owner| owner != member))
    }

    /// Whether `member` owns or owned the slot.
    #[must_use]
    pub fn mentions(self, member: u8) -> bool {
        self.current() == Some(member) || self.previous().any(|owner| owner == member)
    }

    fn from_owners(current: Option<u8>, previous: impl Iterator<Item = u8>) -> Self {
        let mut bytes = [NONE; OWNERS];
        bytes[0] = current.unwrap_or(NONE);
        for (byte, owner) in bytes[1..].iter_mut().zip(previous) {
            *byte = owner;
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
    fn the_oldest_of_nine_owners_is_forgotten() {
        let word = (1..=8).fold(SlotWord::owned_by(0), |word, member| word.handed_to(Some(member)));
        assert!(word.previous().eq((1..=7).rev()));
        assert!(!word.mentions(0));
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
