//! How one service's backends are laid out: alone in its frontends, or as members that share slots.

use std::collections::BTreeMap;

use xlb_common::abi::Member;
use xlb_common::slot::{MEMBERS_PER_SERVICE_MAX, SlotWord};

use super::observed::Region;
use super::op::Op;
use super::refuse::Limit;
use super::space::Space;
use super::sticky::sticky;

/// Slots of a service by the number of its backends, with room to grow: the prime must not change while it serves.
const SLOTS_BY_BACKENDS: [(usize, u32); 4] = [(10, 251), (40, 1021), (160, 4093), (usize::MAX, 16_381)];
/// Fewest entries of a service in `MEMBERS`.
const MEMBERS_MIN: u32 = 16;
/// Most entries of a service in `MEMBERS`.
const MEMBERS_MAX: u32 = 256;

/// A backend of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) member: Member,
    pub(super) takes_new: bool,
    pub(super) weight: u16,
}

/// How the service is laid out now.
pub(super) struct Was<'a> {
    /// Its region and words, if it has any.
    pub(super) region: Option<(Region, &'a [SlotWord])>,
    /// The backends that its frontends name.
    pub(super) sole: Vec<Member>,
    /// Whether it is served at all.
    pub(super) is_served: bool,
    /// `MEMBERS`.
    pub(super) members: &'a BTreeMap<u32, Member>,
}

/// How the service shall be laid out.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) region: Region,
    pub(super) sole: Member,
    pub(super) members: Vec<Op>,
    pub(super) slots: Vec<Op>,
    /// The words name members beyond the old region: its frontends must have left that first.
    pub(super) slots_come_last: bool,
    /// What kept backends from getting new connections.
    pub(super) short: Option<Limit>,
}

/// The layout that serves these backends with the fewest changes; or the limit that a new service does not fit into.
pub(super) fn lay_out(was: &Was, shares: &[Share], space: &mut Space) -> Result<Layout, Limit> {
    if let [share] = shares
        && share.takes_new
    {
        return Ok(Layout { sole: share.member, ..Layout::default() });
    }
    let former = shares.iter().find(|share| was.sole.contains(&share.member));
    let Some((region, words)) = was.region else {
        return fresh(former, shares, space).or_else(|limit| fall_back(was, former, shares, limit));
    };
    let table = Table::new(region, words, shares, was.members);
    if table.is_empty() && table.should_move(shares) {
        match fresh(None, shares, space) {
            Err(limit) if region.members == 0 => return fall_back(was, None, shares, limit),
            Err(_) => {}
            layout => return layout,
        }
    }
    Ok(table.updated(shares, space))
}

/// A service that is served goes on with one backend if there is no room for several.
fn fall_back(was: &Was, former: Option<&Share>, shares: &[Share], limit: Limit) -> Result<Layout, Limit> {
    let one = former.or_else(|| shares.iter().find(|share| share.takes_new));
    match one.filter(|_| was.is_served) {
        Some(share) => Ok(Layout { sole: share.member, short: Some(limit), ..Layout::default() }),
        None => Err(limit),
    }
}

/// A new region. The only backend so far owns every slot first, and so is the previous owner of those it loses.
fn fresh(former: Option<&Share>, shares: &[Share], space: &mut Space) -> Result<Layout, Limit> {
    let is_former = |share: &Share| former.is_some_and(|former| former.member == share.member);
    let others = shares.iter().filter(|share| share.takes_new && !is_former(share));
    let mut listed: Vec<Share> = former.into_iter().chain(others).copied().collect();
    let short = (listed.len() > MEMBERS_PER_SERVICE_MAX).then_some(Limit::BackendsOfService);
    listed.truncate(MEMBERS_PER_SERVICE_MAX);
    if listed.is_empty() {
        let slots_base = space.take_slots(1).ok_or(Limit::Slots)?;
        let region = Region { slots_base, slots: 1, ..Region::default() };
        return Ok(Layout { region, slots: put_slots(slots_base, &[], &[SlotWord::EMPTY]), ..Layout::default() });
    }
    let region = take_region(&listed, shares.len(), space)?;
    let first = if former.is_some() { SlotWord::owned_by(0) } else { SlotWord::EMPTY };
    let words = sticky(&vec![first; region.slots as usize], &active(&listed, &locals_in_order(listed.len())));
    let members: Vec<Member> = listed.iter().map(|share| share.member).collect();
    Ok(Layout {
        region,
        members: put_members(region, &members),
        slots: put_slots(region.slots_base, &[], &words),
        short,
        ..Layout::default()
    })
}

/// Room for members and slots; fewer slots than wished are better than none.
fn take_region(listed: &[Share], backends: usize, space: &mut Space) -> Result<Region, Limit> {
    let members = capacity(listed.len());
    let members_base = space.take_members(members).ok_or(Limit::Members)?;
    let wished = slots_for(backends);
    let sizes = SLOTS_BY_BACKENDS.iter().rev().map(|&(_, slots)| slots).filter(|&slots| slots <= wished);
    let taken = sizes.into_iter().find_map(|slots| space.take_slots(slots).map(|base| (base, slots)));
    let Some((slots_base, slots)) = taken else {
        space.return_members(members_base, members);
        return Err(Limit::Slots);
    };
    Ok(Region { slots_base, slots, members_base, members })
}

/// The members and slots that a service has.
struct Table<'a> {
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
}

impl<'a> Table<'a> {
    fn new(region: Region, words: &'a [SlotWord], shares: &[Share], members: &'a BTreeMap<u32, Member>) -> Self {
        let is_mentioned = mentioned(words);
        let (locals, is_kept) = known_locals(region, shares, members);
        let is_gone: Vec<bool> =
            is_mentioned.iter().zip(&is_kept).map(|(&mentioned, &kept)| mentioned && !kept).collect();
        let some_are_gone = is_gone.contains(&true);
        let cleaned = some_are_gone.then(|| words.iter().map(|&word| clean(word, &is_gone)).collect());
        Self { region, words, cleaned, members, locals, is_mentioned, is_kept }
    }

    /// The words without backends that are gone.
    fn current(&self) -> &[SlotWord] {
        self.cleaned.as_deref().unwrap_or(self.words)
    }

    /// Whether no backend owns or owned a slot: nothing would be lost.
    fn is_empty(&self) -> bool {
        self.current().iter().all(|&word| word == SlotWord::EMPTY)
    }

    /// Whether another number of slots suits the backends better.
    fn should_move(&self, shares: &[Share]) -> bool {
        shares.iter().any(|share| share.takes_new) && self.region.slots != slots_for(shares.len())
    }

    fn updated(mut self, shares: &[Share], space: &mut Space) -> Layout {
        let new = self.admit(shares);
        let (region, mut short) = self.grown(space);
        if short.is_some() {
            self.locals.iter_mut().for_each(|local| *local = local.filter(|&local| u32::from(local) < region.members));
        }
        let lacks_a_place = |(share, local): (&Share, &Option<u8>)| share.takes_new && local.is_none();
        if short.is_none() && shares.iter().zip(&self.locals).any(lacks_a_place) {
            let is_final = shares.iter().filter(|share| share.takes_new).count() > MEMBERS_PER_SERVICE_MAX;
            short = Some(if is_final { Limit::BackendsOfService } else { Limit::LocalIndexes });
        }
        let moves = region.members_base != self.region.members_base;
        let members = if moves { self.all_members(region, shares) } else { self.new_members(&new, shares) };
        let words = sticky(self.current(), &active(shares, &self.locals));
        let slots = put_slots(region.slots_base, self.words, &words);
        Layout { region, members, slots, slots_come_last: moves, short, ..Layout::default() }
    }

    /// Gives each backend that takes new connections a local index that no word mentions. Returns who got one.
    fn admit(&mut self, shares: &[Share]) -> Vec<usize> {
        let is_free = |local: &u8| !self.is_mentioned[usize::from(*local)] && !self.is_kept[usize::from(*local)];
        let free = (0..MEMBERS_PER_SERVICE_MAX as u8).filter(is_free);
        let newcomers = shares.iter().enumerate().filter(|(_, share)| share.takes_new);
        let newcomers = newcomers.map(|(at, _)| at).filter(|&at| self.locals[at].is_none());
        let admitted: Vec<(usize, u8)> = newcomers.zip(free).collect();
        for &(at, local) in &admitted {
            self.locals[at] = Some(local);
        }
        admitted.into_iter().map(|(at, _)| at).collect()
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

    fn new_members(&self, new: &[usize], shares: &[Share]) -> Vec<Op> {
        let put = |&at: &usize| {
            let index = self.region.members_base + u32::from(self.locals[at]?);
            let member = shares[at].member;
            (self.members.get(&index) != Some(&member)).then_some(Op::PutMember { index, member })
        };
        new.iter().filter_map(put).collect()
    }

    fn all_members(&self, region: Region, shares: &[Share]) -> Vec<Op> {
        let mut members = vec![Member::default(); region.members as usize];
        for (share, local) in shares.iter().zip(&self.locals) {
            if let Some(member) = local.and_then(|local| members.get_mut(usize::from(local))) {
                *member = share.member;
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

/// The local index that each share has already, and which they are.
fn known_locals(region: Region, shares: &[Share], members: &BTreeMap<u32, Member>) -> (Vec<Option<u8>>, [bool; 256]) {
    let place = |(at, share): (usize, &Share)| ((share.member.backend, share.member.generation), at);
    let places: BTreeMap<(u32, u32), usize> = shares.iter().enumerate().map(place).collect();
    let (mut locals, mut is_kept) = (vec![None; shares.len()], [false; 256]);
    for (local, index) in (0..MEMBERS_PER_SERVICE_MAX as u8).zip(region.members_base..).take(region.members as usize) {
        let member = members.get(&index).copied().unwrap_or_default();
        if let Some(&at) = places.get(&(member.backend, member.generation)) {
            locals[at] = Some(local);
            is_kept[usize::from(local)] = true;
        }
    }
    (locals, is_kept)
}

/// The word without the owners that are gone.
fn clean(word: SlotWord, is_gone: &[bool]) -> SlotWord {
    let owners = word.current().into_iter().chain(word.previous());
    owners.filter(|&owner| is_gone[usize::from(owner)]).fold(word, SlotWord::without)
}

/// Local index and weight of each share that takes new connections.
fn active(shares: &[Share], locals: &[Option<u8>]) -> Vec<(u8, u16)> {
    let takers = shares.iter().zip(locals).filter(|(share, _)| share.takes_new);
    takers.filter_map(|(share, local)| Some(((*local)?, share.weight.max(1)))).collect()
}

fn locals_in_order(members: usize) -> Vec<Option<u8>> {
    (0..=u8::MAX).map(Some).take(members).collect()
}

/// Every entry of a new region, so that none is left from its former user.
fn put_members(region: Region, members: &[Member]) -> Vec<Op> {
    let entries = members.iter().copied().chain(std::iter::repeat(Member::default()));
    let indexes = region.members_base..region.members_base + region.members;
    indexes.zip(entries).map(|(index, member)| Op::PutMember { index, member }).collect()
}

/// The words that differ from those that are there.
fn put_slots(base: u32, was: &[SlotWord], words: &[SlotWord]) -> Vec<Op> {
    let old = was.iter().copied().map(Some).chain(std::iter::repeat(None));
    let changed = (base..).zip(words.iter().zip(old)).filter(|(_, (word, old))| Some(**word) != *old);
    changed.map(|(index, (&word, _))| Op::PutSlot { index, word }).collect()
}

fn slots_for(backends: usize) -> u32 {
    SLOTS_BY_BACKENDS.iter().find(|(most, _)| backends <= *most).map_or(16_381, |&(_, slots)| slots)
}

fn capacity(members: usize) -> u32 {
    (members as u32).next_power_of_two().clamp(MEMBERS_MIN, MEMBERS_MAX)
}
