//! A service's members and slots as they are, and what changes in them for other backends.

use xlb_common::abi::{Member, member_flags};
use xlb_common::slot::{MEMBERS_PER_SERVICE_MAX, SlotWord};

use super::draft::Draft;
use super::entries::Entries;
use super::layout::{Layout, Share, active, capacity, note_forgotten, put_members, slots_for};
use super::observed::Region;
use super::op::Op;
use super::refuse::Limit;
use super::slots::SlotTable;
use super::space::Space;
use super::sticky::rebalance;

/// The members and slots that a service has.
pub(super) struct Table<'a> {
    region: Region,
    /// The words as they are.
    was: &'a SlotTable,
    /// The words as they shall be; at first without the backends that are gone.
    draft: Draft<'a>,
    /// Its members as they are, by local index.
    members: Vec<Member>,
    /// Local index of each share.
    locals: Vec<Option<u8>>,
    /// Which local indexes stand for a share.
    is_kept: [bool; 256],
    /// Which local indexes a slot had no room for.
    is_forgotten: [bool; 256],
}

impl<'a> Table<'a> {
    pub(super) fn new(region: Region, was: &'a SlotTable, shares: &[Share], members: &'a Entries<Member>) -> Self {
        let members = members_of(region, members);
        let (locals, is_kept, is_forgotten) = known_locals(&members, shares);
        let mut draft = Draft::of(was);
        if was.counts().marked() > 0 && !is_forgotten.contains(&true) {
            draft.set_all(SlotWord::without_forgotten);
        }
        for member in was.counts().members().filter(|&member| !is_kept[usize::from(member)]) {
            draft.remove(member);
        }
        Self { region, was, draft, members, locals, is_kept, is_forgotten }
    }

    /// Whether another number of slots suits the backends better, and nobody owns or owned one: nothing would be lost.
    pub(super) fn should_move(&self, shares: &[Share]) -> bool {
        let has_owner = self.region.members > 0 && shares.iter().any(Share::may_own_any);
        let will_have_owner = shares.iter().any(|share| share.may_own_any() || share.takes_new);
        let suits = self.region.slots == slots_for(shares.len());
        will_have_owner && !has_owner && !suits && self.draft.counts().are_all_empty()
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
            self.draft.set_all(|word| owned_before(word, *local));
        }
        rebalance(&mut self.draft, &active(shares, &self.locals));
        let named: Vec<u8> = named.iter().filter_map(|(_, local)| *local).collect();
        self.note_forgotten(&named);
        let moves = region.members_base != self.region.members_base;
        let members = if moves { self.all_members(region, shares) } else { self.changed_members(shares) };
        let slots = put_changed(region.slots_base, &self.draft);
        Layout { region, members, slots, slots_come_last: moves, short, ..Layout::default() }
    }

    /// Gives each backend that needs one a local index that no word mentions.
    fn admit(&mut self, shares: &[Share]) {
        let is_free = |local: &u8| self.was.counts().mentions(*local) == 0 && !self.is_kept[usize::from(*local)];
        let free = (0..MEMBERS_PER_SERVICE_MAX as u8).filter(is_free);
        let needs_one = |at: &usize| self.locals[*at].is_none() && (shares[*at].takes_new || shares[*at].may_own_any());
        let newcomers = (0..shares.len()).filter(needs_one);
        let admitted: Vec<(usize, u8)> = newcomers.zip(free).collect();
        for (at, local) in admitted {
            self.locals[at] = Some(local);
        }
    }

    /// Notes who has lost a slot's word for want of room: one that it named, or that `named` says to own any slot.
    fn note_forgotten(&mut self, named: &[u8]) {
        for &slot in self.draft.touched() {
            let word = self.draft.words()[slot];
            if word.has_forgotten() {
                note_forgotten(word, self.was[slot].owners().chain(named.iter().copied()), &mut self.is_forgotten);
            }
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
        let put = |local: u8, member: Member| {
            let differs = self.members.get(usize::from(local)) != Some(&member);
            differs.then(|| Op::PutMember { index: self.region.members_base + u32::from(local), member })
        };
        let of_share = |(share, local): (&Share, &Option<u8>)| {
            let local = (*local)?;
            put(local, share.entry(self.is_forgotten[usize::from(local)]))
        };
        let is_gone = |(local, member): &(u8, &Member)| member.is_forgotten() && !self.is_kept[usize::from(*local)];
        let gone = (0..MEMBERS_PER_SERVICE_MAX as u8).zip(&self.members).filter(is_gone);
        let gone = gone.filter(|(local, _)| !self.locals.contains(&Some(*local)));
        let gone = gone.filter_map(|(local, member)| put(local, remembered(*member)));
        shares.iter().zip(&self.locals).filter_map(of_share).chain(gone).collect()
    }

    /// The members of the region to move to, former ones included: until the slots follow, words mention them.
    fn all_members(&self, region: Region, shares: &[Share]) -> Vec<Op> {
        let mut members: Vec<_> = self.members.iter().copied().map(remembered).collect();
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

/// The members of a region by local index.
fn members_of(region: Region, members: &Entries<Member>) -> Vec<Member> {
    let mut found = vec![Member::default(); region.members as usize];
    for (index, member) in members.range(region.members_base..region.members_base + region.members) {
        found[(index - region.members_base) as usize] = *member;
    }
    found
}

/// The local index that each share has already; which they are; and which of them a slot had no room for.
fn known_locals(members: &[Member], shares: &[Share]) -> (Vec<Option<u8>>, [bool; 256], [bool; 256]) {
    let backend = |member: &Member| u64::from(member.backend) << 32 | u64::from(member.generation);
    let mut places: Vec<_> = shares.iter().enumerate().map(|(at, share)| (backend(&share.member), at)).collect();
    places.sort_unstable();
    let (mut locals, mut is_kept, mut is_forgotten) = (vec![None; shares.len()], [false; 256], [false; 256]);
    for (local, member) in (0..MEMBERS_PER_SERVICE_MAX as u8).zip(members) {
        if let Ok(place) = places.binary_search_by_key(&backend(member), |(backend, _)| *backend) {
            locals[places[place].1] = Some(local);
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

/// The word as if `member` had owned the slot before its current owner did.
fn owned_before(word: SlotWord, member: Option<u8>) -> SlotWord {
    match word.current() {
        _ if member.is_none_or(|member| word.mentions(member)) => word,
        None => word.handed_to(member),
        current => word.handed_to(member).handed_to(current),
    }
}

/// The words that differ from those that are there.
fn put_changed(base: u32, draft: &Draft) -> Vec<Op> {
    let put = |slot: usize| Op::PutSlot { index: base + slot as u32, word: draft.words()[slot] };
    draft.changed().into_iter().map(put).collect()
}
