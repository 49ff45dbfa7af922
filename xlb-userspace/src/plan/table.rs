//! A service's members and slots as they are, and what changes in them for other backends.

use std::collections::BTreeMap;

use xlb_common::abi::{Member, member_flags};
use xlb_common::slot::{MEMBERS_PER_SERVICE_MAX, SlotWord};

use super::layout::{Layout, Share, active, capacity, forgotten, put_members, slots_for};
use super::observed::Region;
use super::op::Op;
use super::refuse::Limit;
use super::space::Space;
use super::sticky::moved;

/// The members and slots that a service has.
pub(super) struct Table<'a> {
    region: Region,
    /// The words as they are.
    words: &'a [SlotWord],
    /// The words without backends that are gone, if there are any such.
    cleaned: Option<Vec<SlotWord>>,
    members: &'a BTreeMap<u32, Member>,
    /// Local index of each share.
    locals: Vec<Option<u8>>,
    /// Which local indexes a word mentions.
    is_mentioned: [bool; 256],
    /// Which local indexes stand for a share.
    is_kept: [bool; 256],
    /// Which local indexes a slot had no room for.
    is_forgotten: [bool; 256],
}

impl<'a> Table<'a> {
    pub(super) fn new(
        region: Region,
        words: &'a [SlotWord],
        shares: &[Share],
        members: &'a BTreeMap<u32, Member>,
    ) -> Self {
        let is_mentioned = mentioned(words);
        let (locals, is_kept, is_forgotten) = known_locals(region, shares, members);
        let is_gone: Vec<bool> =
            is_mentioned.iter().zip(&is_kept).map(|(&mentioned, &kept)| mentioned && !kept).collect();
        let are_all_remembered = !is_forgotten.contains(&true);
        let changes = |word: &SlotWord| are_all_remembered && word.has_forgotten();
        let is_to_clean = is_gone.contains(&true) || words.iter().any(changes);
        let clean = |&word: &SlotWord| clean(if changes(&word) { word.without_forgotten() } else { word }, &is_gone);
        let cleaned = is_to_clean.then(|| words.iter().map(clean).collect());
        Self { region, words, cleaned, members, locals, is_mentioned, is_kept, is_forgotten }
    }

    /// The words without backends that are gone.
    fn current(&self) -> &[SlotWord] {
        self.cleaned.as_deref().unwrap_or(self.words)
    }

    /// Whether another number of slots suits the backends better, and nobody owns or owned one: nothing would be lost.
    pub(super) fn should_move(&self, shares: &[Share]) -> bool {
        let has_owner = self.region.members > 0 && shares.iter().any(Share::may_own_any);
        let will_have_owner = shares.iter().any(|share| share.may_own_any() || share.takes_new);
        let suits = self.region.slots == slots_for(shares.len());
        will_have_owner && !has_owner && !suits && self.current().iter().all(|&word| word == SlotWord::EMPTY)
    }

    /// The same region for these backends. If a frontend still names one itself, an update did not come to its end, and
    /// every slot is that one's, too; as it is of those that have the VIPs as another service's backends.
    pub(super) fn updated(mut self, shares: &[Share], space: &mut Space) -> Layout {
        self.admit(shares);
        let (region, mut short) = self.grown(space);
        if short.is_some() {
            self.locals.iter_mut().for_each(|local| *local = local.filter(|&local| u32::from(local) < region.members));
        }
        let lacks_a_place = |(share, local): (&Share, &Option<u8>)| share.takes_new && local.is_none();
        if short.is_none() && shares.iter().zip(&self.locals).any(lacks_a_place) {
            let is_final = shares.iter().filter(|share| share.takes_new).count() > MEMBERS_PER_SERVICE_MAX;
            short = Some(if is_final { Limit::BackendsOfService } else { Limit::LocalIndexes });
        }
        let mut named: Vec<(&Share, Option<u8>)> = shares.iter().zip(self.locals.iter().copied()).collect();
        named.retain(|(share, _)| share.may_own_any());
        named.sort_by_key(|(share, _)| share.seniority());
        for (_, local) in &named {
            self.cleaned = Some(self.current().iter().map(|&word| owned_before(word, *local)).collect());
        }
        let table = moved(self.current(), &active(shares, &self.locals)).or(self.cleaned.take());
        if let Some(table) = &table {
            let named = || named.iter().filter_map(|(_, local)| *local);
            let forgotten = forgotten(table, |slot| self.words[slot].owners().chain(named()));
            self.is_forgotten.iter_mut().zip(forgotten).for_each(|(is_forgotten, also)| *is_forgotten |= also);
        }
        let moves = region.members_base != self.region.members_base;
        let members = if moves { self.all_members(region, shares) } else { self.changed_members(shares) };
        let slots = table.map_or(vec![], |table| put_changed(region.slots_base, self.words, &table));
        Layout { region, members, slots, slots_come_last: moves, short, ..Layout::default() }
    }

    /// Gives each backend that needs one a local index that no word mentions.
    fn admit(&mut self, shares: &[Share]) {
        let is_free = |local: &u8| !self.is_mentioned[usize::from(*local)] && !self.is_kept[usize::from(*local)];
        let free = (0..MEMBERS_PER_SERVICE_MAX as u8).filter(is_free);
        let needs_one = |at: &usize| self.locals[*at].is_none() && (shares[*at].takes_new || shares[*at].may_own_any());
        let newcomers = (0..shares.len()).filter(needs_one);
        let admitted: Vec<(usize, u8)> = newcomers.zip(free).collect();
        for (at, local) in admitted {
            self.locals[at] = Some(local);
        }
    }

    /// The region with room for every local index, if there is any.
    fn grown(&self, space: &mut Space) -> (Region, Option<Limit>) {
        let members = capacity(self.highest_local());
        if self.highest_local() as u32 <= self.region.members {
            return (self.region, None);
        }
        match space.take_members(members) {
            Some(members_base) => (Region { members_base, members, ..self.region }, None),
            None => (self.region, Some(Limit::Members)),
        }
    }

    /// One more than the highest local index.
    fn highest_local(&self) -> usize {
        self.locals.iter().flatten().max().map_or(0, |&local| usize::from(local) + 1)
    }

    /// Who is new, who takes new connections now or no longer, and who is forgotten now; one that is gone is it no longer,
    /// as it may be a backend of others.
    fn changed_members(&self, shares: &[Share]) -> Vec<Op> {
        let put = |(share, local): (&Share, &Option<u8>)| {
            let local = (*local)?;
            let index = self.region.members_base + u32::from(local);
            let member = share.entry(self.is_forgotten[usize::from(local)]);
            (self.members.get(&index) != Some(&member)).then_some(Op::PutMember { index, member })
        };
        let gone = (0..MEMBERS_PER_SERVICE_MAX).zip(self.region.members_base..).take(self.region.members as usize);
        let gone = gone.filter(|(local, _)| !self.is_kept[*local]).filter_map(|(local, index)| {
            let member = self.members.get(&index).filter(|member| member.is_forgotten())?;
            let is_taken = self.locals.contains(&Some(local as u8));
            (!is_taken).then_some(Op::PutMember { index, member: remembered(*member) })
        });
        shares.iter().zip(&self.locals).filter_map(put).chain(gone).collect()
    }

    /// The members of the region to move to, former ones included: until the slots follow, words mention them.
    fn all_members(&self, region: Region, shares: &[Share]) -> Vec<Op> {
        let was = |index: u32| self.members.get(&index).copied().map_or(Member::default(), remembered);
        let mut members: Vec<_> = (self.region.members_base..).take(self.region.members as usize).map(was).collect();
        members.resize(region.members as usize, Member::default());
        for (share, local) in shares.iter().zip(&self.locals) {
            let Some(local) = local.map(usize::from) else { continue };
            if let Some(member) = members.get_mut(local) {
                *member = share.entry(self.is_forgotten[local]);
            }
        }
        put_members(region, &members)
    }
}

/// Every local index that a word mentions.
fn mentioned(words: &[SlotWord]) -> [bool; 256] {
    let mut is_mentioned = [false; 256];
    for word in words {
        if let Some(owner) = word.current() {
            is_mentioned[usize::from(owner)] = true;
        }
        if word.has_history() {
            word.previous().for_each(|owner| is_mentioned[usize::from(owner)] = true);
        }
    }
    is_mentioned
}

/// The local index that each share has already; which they are; and which of them a slot had no room for.
fn known_locals(
    region: Region,
    shares: &[Share],
    members: &BTreeMap<u32, Member>,
) -> (Vec<Option<u8>>, [bool; 256], [bool; 256]) {
    let place = |(at, share): (usize, &Share)| ((share.member.backend, share.member.generation), at);
    let places: BTreeMap<(u16, u32), usize> = shares.iter().enumerate().map(place).collect();
    let (mut locals, mut is_kept, mut is_forgotten) = (vec![None; shares.len()], [false; 256], [false; 256]);
    for (local, index) in (0..MEMBERS_PER_SERVICE_MAX as u8).zip(region.members_base..).take(region.members as usize) {
        let member = members.get(&index).copied().unwrap_or_default();
        if let Some(&at) = places.get(&(member.backend, member.generation)) {
            locals[at] = Some(local);
            is_kept[usize::from(local)] = true;
            is_forgotten[usize::from(local)] = member.is_forgotten();
        }
    }
    (locals, is_kept, is_forgotten)
}

/// The entry of one that no slot had to forget.
fn remembered(member: Member) -> Member {
    Member { flags: member.flags & !member_flags::FORGOTTEN, ..member }
}

/// The word without the owners that are gone.
fn clean(word: SlotWord, is_gone: &[bool]) -> SlotWord {
    let owners = word.owners();
    owners.filter(|&owner| is_gone[usize::from(owner)]).fold(word, SlotWord::without)
}

/// The word as if `member` had owned the slot before its current owner did.
fn owned_before(word: SlotWord, member: Option<u8>) -> SlotWord {
    match word.current() {
        _ if member.is_none_or(|member| word.mentions(member)) => word,
        None => word.handed_to(member),
        current => word.handed_to(member).handed_to(current),
    }
}

/// The words that differ from those that are there.
fn put_changed(base: u32, was: &[SlotWord], words: &[SlotWord]) -> Vec<Op> {
    let changed = was.iter().zip(words).enumerate().filter(|(_, (was, word))| was != word);
    changed.map(|(slot, (_, &word))| Op::PutSlot { index: base + slot as u32, word }).collect()
}
