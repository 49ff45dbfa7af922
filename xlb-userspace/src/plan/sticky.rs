//! The table of one node's own backends: as few slots as possible change their owner.

use std::iter::repeat_n;

use xlb_common::slot::{OWNERS, SlotWord};

use super::draft::Draft;
use super::slots::Counts;

/// A number for each member a word can name.
type PerMember = [u32; 256];

/// `words` after `active` (local index and weight of each backend that gets new connections) took their shares.
///
/// A share is M·w/W slots, rounded up for as many members as the sum needs. A member that is not active loses its slots,
/// a new one takes its share, nothing else moves: no table with these shares is nearer to `words`. A slot that moves
/// remembers its owner. It goes back to a previous owner if that one has slots to take; otherwise those slots move that
/// have the fewest previous owners (flow-admission chapter 7, rule 11).
#[must_use]
pub fn sticky(words: &[SlotWord], active: &[(u8, u16)]) -> Vec<SlotWord> {
    let mut draft = Draft::of_words(words);
    rebalance(&mut draft, active);
    draft.into_words()
}

/// Makes the table that [`sticky`] makes. What its words say is not counted afterwards.
pub(super) fn rebalance(draft: &mut Draft, active: &[(u8, u16)]) {
    if active.is_empty() {
        draft.set_all(|word| word.handed_to(None));
        return;
    }
    let held = slots_held(draft.counts());
    let quota = quotas(draft.words().len(), active, &held);
    let mut change = Change { missing: difference(&quota, &held), excess: difference(&held, &quota) };
    if change.missing == [0; 256] {
        return;
    }
    let all = 0..draft.words().len();
    let ownerless = changed_ownerless(draft, &quota);
    if change.is_owed(draft.counts()) {
        let first = ownerless.clone().unwrap_or_else(|| ownerless_among(draft, &quota, all.clone()));
        change.give_back(draft, first.into_iter());
        if change.takes_from(active) {
            change.give_back(draft, all.clone());
        }
    }
    match ownerless.filter(|_| !change.takes_from(active)) {
        Some(slots) => change.hand_over(draft, active, slots.into_iter()),
        None => change.hand_over(draft, active, all),
    }
}

/// The slots that must move, in order, if all of them were changed already: mostly they are those of a backend that has just
/// been removed.
fn changed_ownerless(draft: &Draft, quota: &PerMember) -> Option<Vec<usize>> {
    let counts = draft.counts();
    let inactive = counts.members().filter(|&member| quota[usize::from(member)] == 0);
    let count = counts.unowned() + inactive.map(|member| counts.owned(member)).sum::<u32>();
    if draft.touched().len() < count as usize {
        return None;
    }
    let slots = ownerless_among(draft, quota, draft.changed());
    (slots.len() == count as usize).then_some(slots)
}

/// Those of the slots that must move: nobody owns them, or one who is not active.
fn ownerless_among(draft: &Draft, quota: &PerMember, slots: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let must_move = |slot: &usize| draft.words()[*slot].current().is_none_or(|owner| quota[usize::from(owner)] == 0);
    slots.into_iter().filter(must_move).collect()
}

/// What is left to do: slots that members have yet to take and to give.
struct Change {
    missing: PerMember,
    excess: PerMember,
}

impl Change {
    /// Gives those of the slots back to previous owners that these have yet to take.
    fn give_back(&mut self, draft: &mut Draft, slots: impl Iterator<Item = usize>) {
        for slot in slots {
            let word = draft.words()[slot];
            if !word.has_history() || !self.may_move(word) {
                continue;
            }
            let Some(taker) = word.previous().find(|&owner| self.missing[usize::from(owner)] > 0) else { continue };
            if let Some(giver) = word.current() {
                self.excess[usize::from(giver)] -= 1;
            }
            self.missing[usize::from(taker)] -= 1;
            draft.set(slot, word.handed_to(Some(taker)));
        }
    }

    /// Whether one of these members has slots to give.
    fn takes_from(&self, members: &[(u8, u16)]) -> bool {
        members.iter().any(|&(member, _)| self.excess[usize::from(member)] > 0)
    }

    /// Whether somebody who has slots to take owned any before.
    fn is_owed(&self, counts: &Counts) -> bool {
        counts.members().any(|member| self.missing[usize::from(member)] > 0 && counts.owned_before(member) > 0)
    }

    /// Hands those of the slots that have the fewest previous owners to members that have slots to take, in the order of
    /// `active`.
    fn hand_over(&mut self, draft: &mut Draft, active: &[(u8, u16)], slots: impl Iterator<Item = usize>) {
        let mut allowed = self.by_previous_owners(draft.counts());
        let missing = |&(member, _): &(u8, u16)| repeat_n(member, self.missing[usize::from(member)] as usize);
        let mut takers = active.iter().flat_map(missing).peekable();
        for slot in slots {
            let Some(&taker) = takers.peek() else { return };
            let word = draft.words()[slot];
            if let Some(giver) = word.current().map(usize::from) {
                if self.excess[giver] == 0 {
                    continue;
                }
                let left = &mut allowed[giver][word.previous().count()];
                if *left == 0 {
                    continue;
                }
                (*left, self.excess[giver]) = (*left - 1, self.excess[giver] - 1);
            }
            takers.next();
            draft.set_uncounted(slot, word.handed_to(Some(taker)));
        }
    }

    /// For each member, how many slots with 0, 1, … 7 previous owners it gives.
    fn by_previous_owners(&self, counts: &Counts) -> Vec<[u32; OWNERS]> {
        if self.excess == [0; 256] {
            return Vec::new();
        }
        let given = |member: u8| {
            let mut left = self.excess[usize::from(member)];
            let mut given = counts.owned_after(member);
            for count in &mut given {
                *count = left.min(*count);
                left -= *count;
            }
            given
        };
        counts.members().map(given).collect()
    }

    fn may_move(&self, word: SlotWord) -> bool {
        word.current().is_none_or(|owner| self.excess[usize::from(owner)] > 0)
    }
}

/// How many slots each member owns.
fn slots_held(counts: &Counts) -> PerMember {
    let mut held = [0; 256];
    for member in counts.members() {
        held[usize::from(member)] = counts.owned(member);
    }
    held
}

/// How many slots each member shall own. Of the slots that even division leaves over, those who hold one keep it.
fn quotas(slots: usize, active: &[(u8, u16)], held: &PerMember) -> PerMember {
    let total: u64 = active.iter().map(|&(_, weight)| u64::from(weight)).sum::<u64>().max(1);
    let mut quota = [0; 256];
    let mut claims = Vec::with_capacity(active.len());
    let mut left = slots as u64;
    for &(member, weight) in active {
        let (floor, rest) = (slots as u64 * u64::from(weight) / total, slots as u64 * u64::from(weight) % total);
        quota[usize::from(member)] = floor as u32;
        left -= floor.min(left);
        let keeps_one = u64::from(held[usize::from(member)]) > floor;
        claims.extend((rest > 0).then_some((!keeps_one, u64::MAX - rest, member)));
    }
    let left = claims.len().min(left as usize);
    if left < claims.len() {
        claims.select_nth_unstable(left);
    }
    for (_, _, member) in claims.into_iter().take(left) {
        quota[usize::from(member)] += 1;
    }
    quota
}

/// What each member has in `more` beyond `less`.
fn difference(more: &PerMember, less: &PerMember) -> PerMember {
    let mut difference = *more;
    for (more, less) in difference.iter_mut().zip(less) {
        *more = more.saturating_sub(*less);
    }
    difference
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn removing_a_backend_moves_only_its_slots() {
        let before = fresh(251, &[(0, 1), (1, 1), (2, 1)]);
        let cleaned: Vec<_> = before.iter().map(|word| word.without(1)).collect();

        let after = sticky(&cleaned, &[(0, 1), (2, 1)]);

        for (old, new) in before.iter().zip(&after) {
            assert!(old.current() == Some(1) || old == new);
        }
        assert_eq!(shares(&after), [(0, 126), (2, 125)]);
    }

    #[test]
    fn a_new_backend_takes_exactly_its_share() {
        let before = fresh(251, &[(0, 1), (1, 1)]);
        let after = sticky(&before, &[(0, 1), (1, 1), (2, 1)]);
        assert_eq!((moves(&before, &after), shares(&after)[2]), (83, (2, 83)));
    }

    #[test]
    fn a_draining_backend_becomes_the_previous_owner_of_its_slots() {
        let before = fresh(251, &[(0, 1), (1, 1)]);
        let after = sticky(&before, &[(0, 1)]);
        for (old, new) in before.iter().zip(&after) {
            assert_eq!(new.current(), Some(0));
            assert!(new.previous().eq(old.current().filter(|&owner| owner == 1)));
        }
    }

    #[test]
    fn a_backend_that_is_ready_again_gets_its_former_slots_back() {
        let before = fresh(1021, &[(0, 1), (1, 1), (2, 1), (3, 1)]);
        let without_it = sticky(&before, &[(0, 1), (1, 1), (2, 1)]);
        let again = sticky(&without_it, &[(0, 1), (1, 1), (2, 1), (3, 1)]);
        assert!(
            before
                .iter()
                .zip(&again)
                .filter(|(_, word)| word.current() == Some(3))
                .all(|(old, _)| old.current() == Some(3))
        );
        assert!(again.iter().all(|word| word.previous().count() <= 1));
    }

    #[test]
    fn a_removed_owners_slot_goes_back_to_a_former_owner() {
        let before = vec![SlotWord::owned_by(0); 6];
        let grown = sticky(&before, &[(0, 1), (1, 1), (2, 1)]);
        let cleaned: Vec<_> = grown.iter().map(|word| word.without(2)).collect();
        let after = sticky(&cleaned, &[(0, 1), (1, 1)]);
        assert_eq!(shares(&after), [(0, 3), (1, 3)]);
        assert_eq!(after.iter().filter(|word| **word == SlotWord::owned_by(0)).count(), 3);
    }

    #[test]
    fn without_an_active_backend_slots_have_no_owner_but_keep_their_history() {
        let table = sticky(&fresh(251, &[(4, 1)]), &[]);
        assert!(table.iter().all(|word| word.current().is_none() && word.previous().eq([4])));
        assert_eq!(sticky(&table, &[]), table);
    }

    #[test]
    fn slots_with_the_fewest_previous_owners_move_first() {
        let mut words = vec![SlotWord::owned_by(0); 10];
        for word in &mut words[..5] {
            *word = SlotWord::owned_by(9).handed_to(Some(0));
        }
        let after = sticky(&words, &[(0, 1), (1, 1)]);
        assert_eq!(after[..5], words[..5]);
    }

    proptest! {
        #[test]
        fn tables_move_the_least_possible_and_are_balanced(steps in prop::collection::vec(step(), 1..12), slots in prop::sample::select(vec![1usize, 13, 251, 1021])) {
            let mut words = vec![SlotWord::EMPTY; slots];
            for (active, gone) in steps {
                words.iter_mut().for_each(|word| *word = gone.iter().fold(*word, |word, &member| word.without(member)));
                let after = sticky(&words, &active);
                prop_assert_eq!(moves(&words, &after), least_moves(&words, &active));
                check_balance(&after, &active)?;
                check_histories(&words, &after)?;
                prop_assert_eq!(&sticky(&after, &active), &after);
                words = after;
            }
        }
    }

    /// Active members with their weights, and members whose pods are gone.
    fn step() -> impl Strategy<Value = (Vec<(u8, u16)>, Vec<u8>)> {
        let weights = prop::collection::btree_map(0u8..12, prop_oneof![3 => Just(1u16), 1 => 1u16..50], 0..9);
        weights.prop_flat_map(|weights| {
            let gone: Vec<u8> = (0..12).filter(|member| !weights.contains_key(member)).collect();
            (Just(weights.into_iter().collect()), prop::sample::subsequence(gone.clone(), 0..=gone.len()))
        })
    }

    fn fresh(slots: usize, active: &[(u8, u16)]) -> Vec<SlotWord> {
        sticky(&vec![SlotWord::EMPTY; slots], active)
    }

    fn moves(before: &[SlotWord], after: &[SlotWord]) -> usize {
        before.iter().zip(after).filter(|(old, new)| old.current() != new.current()).count()
    }

    fn shares(words: &[SlotWord]) -> Vec<(u8, u32)> {
        let held = slots_held(&Counts::of(words));
        (0u8..255).map(|member| (member, held[usize::from(member)])).filter(|&(_, count)| count > 0).collect()
    }

    /// Whoever holds fewer slots than the floor of the share must get some, whoever holds more than the floor may keep
    /// one more, but only as many members as there are slots left over.
    fn least_moves(words: &[SlotWord], active: &[(u8, u16)]) -> usize {
        let held = slots_held(&Counts::of(words));
        let total: usize = active.iter().map(|&(_, weight)| usize::from(weight)).sum();
        if active.is_empty() {
            return held.iter().sum::<u32>() as usize;
        }
        let floor = |weight: u16| words.len() * usize::from(weight) / total;
        let left = words.len() - active.iter().map(|&(_, weight)| floor(weight)).sum::<usize>();
        let has_rest = |weight: u16| !(words.len() * usize::from(weight)).is_multiple_of(total);
        let keeps = |&(member, weight): &(u8, u16)| (held[usize::from(member)] as usize).min(floor(weight));
        let above =
            |&&(member, weight): &&(u8, u16)| has_rest(weight) && held[usize::from(member)] as usize > floor(weight);
        let kept = active.iter().map(keeps).sum::<usize>() + left.min(active.iter().filter(above).count());
        words.len() - kept
    }

    fn check_balance(words: &[SlotWord], active: &[(u8, u16)]) -> Result<(), TestCaseError> {
        let held = slots_held(&Counts::of(words));
        let total: usize = active.iter().map(|&(_, weight)| usize::from(weight)).sum();
        for &(member, weight) in active {
            let exact = words.len() * usize::from(weight);
            let count = held[usize::from(member)] as usize;
            prop_assert!(count >= exact / total && count <= exact.div_ceil(total));
        }
        Ok(())
    }

    fn check_histories(before: &[SlotWord], after: &[SlotWord]) -> Result<(), TestCaseError> {
        for (old, new) in before.iter().zip(after) {
            let former = old.current().into_iter().chain(old.previous());
            let lost = former.filter(|&owner| !new.mentions(owner)).count();
            prop_assert!(lost == 0 || new.has_forgotten());
        }
        Ok(())
    }
}
