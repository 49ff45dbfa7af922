//! How one service's backends are laid out: alone in its frontends, or as members that share slots.

use xlb_common::abi::{Member, member_flags};
use xlb_common::slot::{MEMBERS_PER_SERVICE_MAX, SlotWord};

use super::entries::Entries;
use super::formers::Holding;
use super::observed::Region;
use super::op::Op;
use super::refuse::Limit;
use super::slots::SlotTable;
use super::space::Space;
use super::sticky::sticky;
use super::table::Table;

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
    /// A frontend names it itself, so that connections of any slot may be its own. Several are named only after a crash.
    pub(super) is_named: bool,
    /// It has connections of the service's VIPs as another service's backend.
    pub(super) former: Option<Holding>,
}

impl Share {
    /// Whether connections of any slot may be its own.
    pub(super) fn may_own_any(&self) -> bool {
        self.is_named || self.former.is_some()
    }

    /// In which order those that may own any slot are taken to have owned it: the service's own last.
    pub(super) fn seniority(&self) -> impl Ord + use<> {
        (self.is_named, self.former)
    }

    /// Its entry in `MEMBERS`.
    pub(super) fn entry(&self, is_forgotten: bool) -> Member {
        let takes_new = if self.takes_new { 0 } else { member_flags::TAKES_NO_NEW };
        let forgotten = if is_forgotten { member_flags::FORGOTTEN } else { 0 };
        Member { flags: takes_new | forgotten, ..self.member }
    }
}

/// How the service is laid out now.
pub(super) struct Was<'a> {
    /// Its region and words, if it has any.
    pub(super) region: Option<(Region, &'a SlotTable)>,
    /// Whether it is served at all.
    pub(super) is_served: bool,
    /// `MEMBERS`.
    pub(super) members: &'a Entries<Member>,
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
    let Some((region, words)) = was.region else {
        return fresh(shares, space).or_else(|limit| fall_back(was, shares, limit, space));
    };
    let table = Table::new(region, words, shares, was.members);
    if table.should_move(shares) {
        match fresh(shares, space) {
            Err(limit) if region.members == 0 => return fall_back(was, shares, limit, space),
            Err(_) => {}
            layout => return layout,
        }
    }
    Ok(table.updated(shares, space))
}

/// A service that is served goes on with one backend if there is no room for several. To serve new connections is more
/// than to keep those of another service.
fn fall_back(was: &Was, shares: &[Share], limit: Limit, space: &mut Space) -> Result<Layout, Limit> {
    let own: Vec<Share> = shares.iter().filter(|share| share.takes_new || share.is_named).copied().collect();
    if own.len() < shares.len() {
        let layout = lay_out(was, &own, space)?;
        return Ok(Layout { short: layout.short.or(Some(limit)), ..layout });
    }
    let one = shares.iter().find(|share| share.is_named).or_else(|| shares.iter().find(|share| share.takes_new));
    match one.filter(|_| was.is_served) {
        Some(share) => Ok(Layout { sole: share.member, short: Some(limit), ..Layout::default() }),
        None => Err(limit),
    }
}

/// A new region. The only backend so far owns every slot first, and so is the previous owner of those it loses; so do, before
/// it, those that have the VIPs as another service's backends.
fn fresh(shares: &[Share], space: &mut Space) -> Result<Layout, Limit> {
    let mut listed: Vec<Share> =
        shares.iter().filter(|share| share.takes_new || share.may_own_any()).copied().collect();
    listed.sort_by_key(|share| (!share.may_own_any(), share.seniority()));
    let short = (listed.len() > MEMBERS_PER_SERVICE_MAX).then_some(Limit::BackendsOfService);
    listed.truncate(MEMBERS_PER_SERVICE_MAX);
    if listed.is_empty() {
        let slots_base = space.take_slots(1).ok_or(Limit::Slots)?;
        let region = Region { slots_base, slots: 1, ..Region::default() };
        return Ok(Layout { region, slots: put_slots(slots_base, &[SlotWord::EMPTY]), ..Layout::default() });
    }
    let region = take_region(&listed, shares.len(), space)?;
    let locals: Vec<Option<u8>> = (0..=u8::MAX).map(Some).take(listed.len()).collect();
    let named = listed.iter().zip(&locals).filter(|(share, _)| share.may_own_any());
    let first = named.fold(SlotWord::EMPTY, |word, (_, local)| word.handed_to(*local));
    let words = sticky(&vec![first; region.slots as usize], &active(&listed, &locals));
    let may_own = locals.iter().zip(&listed).filter(|(_, share)| share.may_own_any());
    let may_own: Vec<u8> = may_own.filter_map(|(local, _)| *local).collect();
    let mut is_forgotten = [false; 256];
    for &word in words.iter().filter(|word| word.has_forgotten()) {
        note_forgotten(word, may_own.iter().copied(), &mut is_forgotten);
    }
    let entry = |(share, &is_forgotten): (&Share, &bool)| share.entry(is_forgotten);
    let members: Vec<Member> = listed.iter().zip(&is_forgotten).map(entry).collect();
    Ok(Layout {
        region,
        members: put_members(region, &members),
        slots: put_slots(region.slots_base, &words),
        short,
        ..Layout::default()
    })
}

/// Notes those owners of a slot whom its word has lost for want of room.
pub(super) fn note_forgotten(word: SlotWord, owners: impl Iterator<Item = u8>, is_forgotten: &mut [bool; 256]) {
    for owner in owners.filter(|&owner| !word.mentions(owner)) {
        is_forgotten[usize::from(owner)] = true;
    }
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

/// Local index and weight of each share that takes new connections.
pub(super) fn active(shares: &[Share], locals: &[Option<u8>]) -> Vec<(u8, u16)> {
    let takers = shares.iter().zip(locals).filter(|(share, _)| share.takes_new);
    takers.filter_map(|(share, local)| Some(((*local)?, share.weight.max(1)))).collect()
}

/// Every entry of a new region, so that none is left from its former user.
pub(super) fn put_members(region: Region, members: &[Member]) -> Vec<Op> {
    let entries = members.iter().copied().chain(std::iter::repeat(Member::default()));
    let indexes = region.members_base..region.members_base + region.members;
    indexes.zip(entries).map(|(index, member)| Op::PutMember { index, member }).collect()
}

/// Every word of a new region.
fn put_slots(base: u32, words: &[SlotWord]) -> Vec<Op> {
    (base..).zip(words).map(|(index, &word)| Op::PutSlot { index, word }).collect()
}

pub(super) fn slots_for(backends: usize) -> u32 {
    SLOTS_BY_BACKENDS.iter().find(|(most, _)| backends <= *most).map_or(16_381, |&(_, slots)| slots)
}

pub(super) fn capacity(members: usize) -> u32 {
    (members as u32).next_power_of_two().clamp(MEMBERS_MIN, MEMBERS_MAX)
}
