//! What the maps hold, as the agent knows it: read back when it starts, then kept equal by [`Observed::apply`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use xlb_common::abi::{Backend, Frontend, Member, SoleFrontend};
use xlb_common::slot::SlotWord;

use super::endpoint::Endpoint;
use super::endpoints::ObservedInside;
use super::entries::Entries;
use super::op::Op;
use super::slots::{Counts, SlotTable, Slots};

/// How long what was freed is left alone, so that no packet under way and no flow entry of a moment ago can take the new
/// meaning for the old one.
pub const QUARANTINE_MS: u64 = 10_000;

/// One Service port in the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedService {
    /// `namespace/name:port/protocol`.
    pub name: String,
    /// First of its words in `SLOTS`.
    pub slots_base: u32,
    /// How many; zero: its frontends name their only backend themselves.
    pub slots: u32,
    /// First of its entries in `MEMBERS`.
    pub members_base: u32,
    /// How many.
    pub members: u32,
}

/// A service's parts of the arrays; all zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) slots_base: u32,
    pub(super) slots: u32,
    pub(super) members_base: u32,
    pub(super) members: u32,
}

impl ObservedService {
    /// Its parts of the arrays.
    pub(super) fn region(&self) -> Region {
        let Self { slots_base, slots, members_base, members, .. } = *self;
        Region { slots_base, slots, members_base, members }
    }
}

/// A part of an array that nobody uses any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestingRegion {
    /// First entry.
    pub base: u32,
    /// Entries.
    pub length: u32,
    /// When it was released.
    pub since_ms: u64,
}

/// What was freed less than [`QUARANTINE_MS`] ago. After a restart of the agent nothing rests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resting {
    /// Ids of backends, and when they were released.
    pub backends: BTreeMap<u32, u64>,
    /// Parts of `SLOTS`.
    pub slots: Vec<RestingRegion>,
    /// Parts of `MEMBERS`.
    pub members: Vec<RestingRegion>,
}

/// What the maps hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// `SERVICES`.
    pub services: BTreeMap<u32, ObservedService>,
    /// `FRONTENDS_V4` and `FRONTENDS_V6`.
    pub frontends: BTreeMap<Endpoint, Frontend>,
    /// `VIPS_V4` and `VIPS_V6`.
    pub vips: BTreeMap<IpAddr, u32>,
    /// `SOURCE_RANGES_V4` and `SOURCE_RANGES_V6`, by id of the service.
    pub source_ranges: BTreeMap<u32, BTreeSet<IpNet>>,
    /// What clients inside get.
    pub inside: ObservedInside,
    /// The part of `SLOTS` of each service, by its first index.
    pub slots: Slots,
    /// `MEMBERS` by index, as far as services use it.
    pub members: Entries<Member>,
    /// `BACKENDS`: every id ever used; a free one keeps its last generation.
    pub backends: Entries<Backend>,
    /// `BACKEND_IDS_V4` and `BACKEND_IDS_V6`.
    pub backend_ids: BTreeMap<Endpoint, u32>,
    /// `SOLE_FRONTENDS_V4` and `SOLE_FRONTENDS_V6`, by the pod's address and port.
    pub sole_frontends: BTreeMap<Endpoint, SoleFrontend>,
    /// `CONFIG`: whether a backend is served through the stack.
    pub stack_in_use: bool,
    /// `CONFIG`: number of the last update.
    pub generation: u64,
    /// Not in the maps: what must not be used again yet.
    pub resting: Resting,
    /// Not in the maps' records: words written for a region whose service is not recorded yet.
    pub unclaimed_slots: BTreeMap<u32, SlotWord>,
}

impl Observed {
    /// Follows an operation that was done at `now_ms`.
    pub fn apply(&mut self, op: &Op, now_ms: u64) {
        match op {
            Op::PutBackend { id, backend } => self.put_backend(*id, *backend, now_ms),
            Op::PutBackendId { key, id } => {
                self.backend_ids.insert(*key, *id);
            }
            Op::PutSoleFrontend { pod, sole } => drop(self.sole_frontends.insert(*pod, *sole)),
            Op::RemoveSoleFrontend { pod } => drop(self.sole_frontends.remove(pod)),
            Op::PutMember { index, member } => {
                self.members.insert(*index, *member);
            }
            Op::PutSlot { index, word } => self.put_slot(*index, *word),
            Op::PutService { id, name, slots_base, slots, members_base, members } => {
                let (slots_base, slots, members_base, members) = (*slots_base, *slots, *members_base, *members);
                let service = ObservedService { name: name.clone(), slots_base, slots, members_base, members };
                self.put_service(*id, Some(service), now_ms);
            }
            Op::PutSourceRange { service, range } => {
                self.source_ranges.entry(*service).or_default().insert(*range);
            }
            Op::RemoveSourceRange { service, range } => self.remove_source_range(*service, range),
            Op::PutFrontend { key, frontend } => {
                self.frontends.insert(*key, *frontend);
            }
            Op::RemoveFrontend { key } => {
                self.frontends.remove(key);
            }
            Op::PutVip { address, flags } => drop(self.vips.insert(*address, *flags)),
            Op::RemoveVip { address } => drop(self.vips.remove(address)),
            Op::PutEndpoints { base, endpoints, .. } => self.inside.put_endpoints(*base, endpoints),
            Op::PutInside { key, inside } => self.inside.put(*key, *inside, now_ms),
            Op::RemoveInside { key } => self.inside.remove(key, now_ms),
            Op::RemoveService { id } => self.put_service(*id, None, now_ms),
            Op::RemoveBackendId { key } => {
                self.backend_ids.remove(key);
            }
            Op::PutConfig { stack_in_use, generation } => {
                self.stack_in_use = *stack_in_use;
                self.generation = *generation;
                self.resting.forget_rested(now_ms);
                self.inside.forget_rested(now_ms);
            }
        }
    }

    /// When the next thing that rests may be used again.
    #[must_use]
    pub fn next_release_ms(&self, now_ms: u64) -> Option<u64> {
        let endpoints = self.inside.resting.values().map(|region| release_ms(region.since_ms));
        let endpoints = endpoints.filter(|&release| release > now_ms).min();
        self.resting.next_release_ms(now_ms).into_iter().chain(endpoints).min()
    }

    /// A service's words, if it has any.
    #[must_use]
    pub fn words(&self, service: &ObservedService) -> Option<&[SlotWord]> {
        self.table(service).map(|table| &table[..])
    }

    /// A service's words, if it has any, with what they say.
    pub(super) fn table(&self, service: &ObservedService) -> Option<&SlotTable> {
        let table = self.slots.get(&service.slots_base)?;
        (service.slots > 0 && table.len() == service.slots as usize).then_some(table)
    }

    /// Each member that a service's words name, in their order, with how many slots it owns, and how many it owned before.
    pub fn named(&self, service: &ObservedService) -> impl Iterator<Item = (Member, u32, u32)> + use<'_> {
        let (base, counts) = (service.members_base, self.table(service).map(SlotTable::counts));
        let of = move |counts: &'_ Counts, member: u8| {
            let (owned, owned_before) = (counts.owned(member), counts.owned_before(member));
            let is_named = owned + owned_before > 0;
            is_named
                .then(|| self.members.get(&(base + u32::from(member))).map(|it| (*it, owned, owned_before)))
                .flatten()
        };
        counts.into_iter().flat_map(move |counts| counts.members().filter_map(move |member| of(counts, member)))
    }

    fn put_backend(&mut self, id: u32, backend: Backend, now_ms: u64) {
        let was = self.backends.insert(id, backend);
        if backend.is_in_use() {
            self.resting.backends.remove(&id);
        } else if was.is_some_and(|was| was.is_in_use()) {
            self.resting.backends.insert(id, now_ms);
        }
    }

    fn remove_source_range(&mut self, service: u32, range: &IpNet) {
        if let Some(ranges) = self.source_ranges.get_mut(&service) {
            ranges.remove(range);
            if ranges.is_empty() {
                self.source_ranges.remove(&service);
            }
        }
    }

    fn put_slot(&mut self, index: u32, word: SlotWord) {
        if !self.slots.set(index, word) {
            self.unclaimed_slots.insert(index, word);
        }
    }

    fn put_service(&mut self, id: u32, service: Option<ObservedService>, now_ms: u64) {
        let now = service.as_ref().map(ObservedService::region).unwrap_or_default();
        let was = match service {
            Some(service) => self.services.insert(id, service),
            None => self.services.remove(&id),
        };
        let was = was.map(|was| was.region()).unwrap_or_default();
        let moves = (was.slots_base, was.slots) != (now.slots_base, now.slots);
        if was.slots > 0 && moves {
            self.slots.remove(was.slots_base);
            self.resting.slots.push(RestingRegion { base: was.slots_base, length: was.slots, since_ms: now_ms });
        }
        if was.members > 0 && (was.members_base, was.members) != (now.members_base, now.members) {
            let region = RestingRegion { base: was.members_base, length: was.members, since_ms: now_ms };
            self.resting.members.push(region);
        }
        if now.slots > 0 && self.slots.get(&now.slots_base).is_none() {
            let claim = |index| self.unclaimed_slots.remove(&index).unwrap_or(SlotWord::EMPTY);
            let words = (now.slots_base..now.slots_base.saturating_add(now.slots)).map(claim).collect();
            self.slots.insert(now.slots_base, words);
        }
    }
}

impl Resting {
    fn next_release_ms(&self, now_ms: u64) -> Option<u64> {
        let regions = self.slots.iter().chain(&self.members).map(|region| region.since_ms);
        let releases = regions.chain(self.backends.values().copied()).map(release_ms);
        releases.filter(|&release| release > now_ms).min()
    }

    fn forget_rested(&mut self, now_ms: u64) {
        self.backends.retain(|_, since| rests(*since, now_ms));
        self.slots.retain(|region| rests(region.since_ms, now_ms));
        self.members.retain(|region| rests(region.since_ms, now_ms));
    }
}

/// Whether what was released at `since_ms` has to be left alone.
pub(super) fn rests(since_ms: u64, now_ms: u64) -> bool {
    now_ms < release_ms(since_ms)
}

fn release_ms(since_ms: u64) -> u64 {
    since_ms.saturating_add(QUARANTINE_MS)
}
