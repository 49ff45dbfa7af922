//! Where the VIPs of services lead: which of them fit, what their entries say, and what those of before tell.

use std::collections::{BTreeMap, BTreeSet};

use xlb_common::abi::{Frontend, Member, frontend_flags as flags};

use super::desired::{DesiredService, Family, Protocol, WhenEmpty};
use super::endpoint::Endpoint;
use super::layout::Layout;
use super::observed::Observed;
use super::op::Op;

/// The frontends of a plan.
pub(super) struct Frontends<'a> {
    observed: &'a Observed,
    /// What all services have.
    whole: &'a Observed,
    limit: usize,
    /// Those of the services planned so far.
    planned: BTreeMap<Endpoint, Frontend>,
    /// How many entries each family's map has while the plan is done: what is removed goes last. Counted when first needed.
    entries: Option<BTreeMap<Family, usize>>,
    reached: BTreeMap<u32, Reached>,
}

/// A service's VIPs, sorted by what can be done with them.
pub(super) struct Vips {
    /// Those that are served.
    pub(super) fitting: Vec<Endpoint>,
    /// Those that an earlier service of the plan has.
    pub(super) taken: Vec<Endpoint>,
    /// Those for which there is no room.
    pub(super) excess: Vec<Endpoint>,
}

/// What the frontends of a service tell beyond its record.
#[derive(Default)]
pub(super) struct Reached {
    /// Backends that they name themselves.
    pub(super) soles: Vec<Member>,
    /// Whether one leads to other members than the record: an update did not come to its end.
    pub(super) is_astray: bool,
    /// Whether one keeps clients with their backends.
    has_affinity: bool,
    /// Whether one does not.
    lacks_affinity: bool,
    is_rehashed: bool,
}

impl<'a> Frontends<'a> {
    pub(super) fn new((observed, whole): (&'a Observed, &'a Observed), limit: u32) -> Self {
        Self {
            observed,
            whole,
            limit: limit as usize,
            planned: BTreeMap::new(),
            entries: None,
            reached: reached(observed),
        }
    }

    /// Which VIPs of a service can be served. A VIP that two services want stays with the first.
    pub(super) fn sort(&mut self, service: &DesiredService, protocol: Protocol) -> Vips {
        let (taken, free): (Vec<_>, Vec<_>) = service.keys(protocol).partition(|key| self.planned.contains_key(key));
        let (mut fitting, mut new): (Vec<_>, Vec<_>) =
            free.into_iter().partition(|key| self.observed.frontends.contains_key(key));
        let entries = new.first().map_or(0, |key| *self.entries(key.family()));
        let excess = new.split_off(self.limit.saturating_sub(entries).min(new.len()));
        fitting.extend(new);
        Vips { fitting, taken, excess }
    }

    /// What the frontends of a service tell, if it has any.
    pub(super) fn reached(&self, id: u32) -> Option<&Reached> {
        self.reached.get(&id)
    }

    /// Leads the VIPs to the layout. The second operations put frontends that this service has not filtered so far.
    pub(super) fn lead(
        &mut self,
        id: u32,
        vips: &[Endpoint],
        service: &DesiredService,
        layout: &Layout,
    ) -> (Vec<Op>, Vec<Op>) {
        let (mut changes, mut newly_filtered) = (Vec::new(), Vec::new());
        for &key in vips {
            let frontend = self.entry(id, &key, service, layout);
            let was = self.observed.frontends.get(&key);
            if was.is_none() {
                *self.entries(key.family()) += 1;
            }
            if was != Some(&frontend) {
                let was_filtered = was.is_some_and(|was| was.service == id && is_filtered(was));
                let is_new = is_filtered(&frontend) && !was_filtered;
                let ops = if is_new { &mut newly_filtered } else { &mut changes };
                ops.push(Op::PutFrontend { key, frontend });
            }
            self.planned.insert(key, frontend);
        }
        (changes, newly_filtered)
    }

    /// Operations that remove what no service has any more. The first ones are of services that open themselves to more
    /// clients, which are not meant for a frontend that leaves them, also not for one that another service filters.
    pub(super) fn removals(&self, widening: &BTreeSet<u32>) -> (Vec<Op>, Vec<Op>) {
        let (mut early, mut removals) = (Vec::new(), Vec::new());
        for (&key, was) in &self.observed.frontends {
            let planned = self.planned.get(&key);
            let leaves = planned.is_none_or(|planned| planned.service != was.service && is_filtered(planned));
            if leaves && is_filtered(was) && widening.contains(&was.service) {
                early.push(Op::RemoveFrontend { key });
            } else if planned.is_none() {
                removals.push(Op::RemoveFrontend { key });
            }
        }
        (early, removals)
    }

    /// The frontends that the plan leads to, as far as it is done.
    pub(super) fn planned(&self) -> &BTreeMap<Endpoint, Frontend> {
        &self.planned
    }

    /// Whether the operation leads a VIP of another service to service `id`.
    pub(super) fn is_taking(&self, op: &Op, id: u32) -> bool {
        let Op::PutFrontend { key, .. } = op else { return false };
        self.observed.frontends.get(key).is_some_and(|was| was.service != id)
    }

    fn entries(&mut self, family: Family) -> &mut usize {
        let count = || {
            let mut entries = BTreeMap::new();
            self.whole.frontends.keys().for_each(|key| *entries.entry(key.family()).or_default() += 1);
            entries
        };
        self.entries.get_or_insert_with(count).entry(family).or_default()
    }

    fn entry(&self, id: u32, key: &Endpoint, service: &DesiredService, layout: &Layout) -> Frontend {
        let when_empty = match service.when_empty {
            WhenEmpty::Pass => 0,
            WhenEmpty::Drop => flags::DROP_WHEN_EMPTY,
            WhenEmpty::Reject => flags::REJECT_WHEN_EMPTY,
        };
        let is_filtered = service.sources.vips.contains(&key.socket.ip());
        let is_rehashed = self.reached(id).is_some_and(|reached| reached.is_rehashed_by(service.affinity_s));
        let filtered = if is_filtered { flags::SOURCE_RANGES } else { 0 };
        let is_hosts = key.protocol == Protocol::Tcp && service.host_before.contains(&key.socket.ip());
        let host_before = if is_hosts { flags::HOST_BEFORE } else { 0 };
        let strays = if key.protocol == Protocol::Tcp && service.has_strays { flags::STRAYS } else { 0 };
        let rehashed = if is_rehashed { flags::REHASHED } else { 0 };
        Frontend {
            service: id,
            slots_base: layout.region.slots_base,
            slots: layout.region.slots,
            members_base: layout.region.members_base,
            sole: layout.sole,
            flags: when_empty | filtered | rehashed | host_before | strays,
            members: layout.region.members as u16,
            affinity_s: service.affinity_s,
        }
    }
}

impl Reached {
    /// Whether connections may lie where the other hash of their flow leads: affinity was, or is now, switched while the
    /// service is there. Nobody can say when the last of them has ended, so this holds until the service goes.
    fn is_rehashed_by(&self, affinity_s: u32) -> bool {
        let switches = if affinity_s == 0 { self.has_affinity } else { self.lacks_affinity };
        self.is_rehashed || switches
    }

    fn note(&mut self, frontend: &Frontend, members_base: Option<u32>) {
        if frontend.slots == 0 {
            self.soles.push(frontend.sole);
        } else if members_base != Some(frontend.members_base) {
            self.is_astray = true;
        }
        self.has_affinity |= frontend.affinity_s != 0;
        self.lacks_affinity |= frontend.affinity_s == 0;
        self.is_rehashed |= frontend.flags & flags::REHASHED != 0;
    }
}

fn is_filtered(frontend: &Frontend) -> bool {
    frontend.flags & flags::SOURCE_RANGES != 0
}

fn reached(observed: &Observed) -> BTreeMap<u32, Reached> {
    let mut reached: BTreeMap<u32, Reached> = BTreeMap::new();
    for frontend in observed.frontends.values() {
        let record = observed.services.get(&frontend.service);
        let members_base = record.map(|record| record.members_base);
        reached.entry(frontend.service).or_default().note(frontend, members_base);
    }
    reached
}
