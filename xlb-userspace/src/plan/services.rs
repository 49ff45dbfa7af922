//! One service after the other: those that are served already first, so that what fits keeps serving.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddrV4;

use xlb_common::abi::{EndpointKeyV4, Frontend, Member, SERVICE_NAME_MAX, frontend_flags};

use super::Limits;
use super::backends::{Backends, endpoint_key};
use super::desired::{Desired, DesiredService, Protocol, Refusal, ServiceName, WhenEmpty};
use super::layout::{Layout, Share, Was, lay_out};
use super::observed::{Observed, ObservedService};
use super::op::{Op, endpoint};
use super::refuse::{Limit, Shortage};
use super::space::Space;

/// The operations for all services, by the time at which they are due.
#[derive(Default)]
pub(super) struct ServiceOps {
    pub(super) members: Vec<Op>,
    pub(super) slots: Vec<Op>,
    pub(super) records: Vec<Op>,
    pub(super) frontends: Vec<Op>,
    pub(super) removed_frontends: Vec<Op>,
    /// Slots that frontends may not see while they lead to a smaller member region.
    pub(super) late_slots: Vec<Op>,
    /// Records that free a region: not before the last frontend left it.
    pub(super) late_records: Vec<Op>,
}

/// The services of a plan.
pub(super) struct Services<'a, 'b> {
    observed: &'a Observed,
    limits: Limits,
    backends: &'b mut Backends<'a>,
    space: Space<'a>,
    reached: Reached,
    frontends: BTreeMap<EndpointKeyV4, Frontend>,
    added_frontends: usize,
    served: BTreeSet<u32>,
    next_id: u32,
    ops: ServiceOps,
    shortages: Vec<Shortage>,
    refusals: Vec<Refusal>,
}

/// A Service port with its name in the maps and the id it has, if it is served.
struct Candidate<'d> {
    name: String,
    protocol: Protocol,
    service: &'d DesiredService,
    id: Option<u32>,
}

impl<'a, 'b> Services<'a, 'b> {
    pub(super) fn new(observed: &'a Observed, limits: Limits, now_ms: u64, backends: &'b mut Backends<'a>) -> Self {
        Self {
            observed,
            limits,
            backends,
            space: Space::new(observed, limits, now_ms),
            reached: Reached::from(observed),
            frontends: BTreeMap::new(),
            added_frontends: 0,
            served: BTreeSet::new(),
            next_id: 0,
            ops: ServiceOps::default(),
            shortages: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// Plans every service, then the removal of what is not desired or does not fit.
    pub(super) fn plan(&mut self, desired: &Desired) {
        for candidate in candidates(desired, self.observed) {
            if candidate.name.len() > SERVICE_NAME_MAX {
                let why = format!("is not served, because its name is longer than {SERVICE_NAME_MAX} bytes: rename it");
                self.refusals.push(Refusal { object: object(&candidate.name), why });
                continue;
            }
            let mark = self.backends.mark();
            if let Err(limit) = self.serve(&candidate) {
                self.backends.return_to(mark);
                self.report(&candidate.name, "is not served".into(), limit);
            }
        }
        self.remove_the_rest();
    }

    /// Operations, what did not fit, and what is refused for another reason.
    pub(super) fn into_results(self) -> (ServiceOps, Vec<Shortage>, Vec<Refusal>) {
        (self.ops, self.shortages, self.refusals)
    }

    fn serve(&mut self, candidate: &Candidate) -> Result<(), Limit> {
        let service = candidate.service;
        let keys = self.keys_that_fit(candidate)?;
        let id = candidate.id.or_else(|| self.free_id()).ok_or(Limit::Services)?;
        let shares = self.shares(id, candidate)?;
        let record = candidate.id.and_then(|id| self.observed.services.get(&id));
        let was = self.was(record);
        let layout = lay_out(&was, &shares, &mut self.space)?;
        if let Some(limit) = layout.short {
            self.report(&candidate.name, "gives some of its backends no connections".into(), limit);
        }
        self.lead(id, &keys, service.when_empty, &layout);
        self.record(id, candidate, record, &layout);
        let come_last = layout.slots_come_last || self.reached.astray.contains(&id);
        let slots = if come_last { &mut self.ops.late_slots } else { &mut self.ops.slots };
        slots.extend(layout.slots);
        self.ops.members.extend(layout.members);
        Ok(())
    }

    /// The VIPs for which there is room. A VIP that two services want stays with the first.
    fn keys_that_fit(&mut self, candidate: &Candidate) -> Result<Vec<EndpointKeyV4>, Limit> {
        let room =
            (self.limits.frontends as usize).saturating_sub(self.observed.frontends.len() + self.added_frontends);
        let vips = candidate.service.vips.iter().map(|&vip| SocketAddrV4::new(vip, candidate.service.port));
        let keys = vips.map(|vip| endpoint_key(vip, candidate.protocol));
        let (taken, free): (Vec<_>, Vec<_>) = keys.partition(|key| self.frontends.contains_key(key));
        let (known, new): (Vec<_>, Vec<_>) =
            free.into_iter().partition(|key| self.observed.frontends.contains_key(key));
        for key in taken {
            let why = format!(
                "is not served at {}, because another Service has it: give one of them another",
                endpoint(&key)
            );
            self.refusals.push(Refusal { object: object(&candidate.name), why });
        }
        let (fitting, excess) = new.split_at(room.min(new.len()));
        if known.is_empty() && fitting.is_empty() {
            return if excess.is_empty() { Ok(known) } else { Err(Limit::Frontends) };
        }
        for key in excess {
            self.report(&candidate.name, format!("is not served at {}", endpoint(key)), Limit::Frontends);
        }
        Ok([&known, fitting].concat())
    }

    /// The lowest id that no service has.
    fn free_id(&mut self) -> Option<u32> {
        let is_free = |id: &u32| !self.observed.services.contains_key(id) && !self.served.contains(id);
        let id = (self.next_id..self.limits.services).find(is_free)?;
        self.next_id = id;
        Some(id)
    }

    /// The service's backends, as far as there are ids for them.
    fn shares(&mut self, id: u32, candidate: &Candidate) -> Result<Vec<Share>, Limit> {
        let mut shares = Vec::with_capacity(candidate.service.backends.len());
        let mut refused = Vec::new();
        let soles = self.reached.soles.get(&id).map_or(&[][..], Vec::as_slice);
        for (&address, backend) in &candidate.service.backends {
            let key = endpoint_key(address, candidate.protocol);
            match self.backends.resolve(key) {
                Some(member) => {
                    let (takes_new, weight) = (backend.takes_new, backend.weight);
                    shares.push(Share { member, takes_new, weight, is_named: soles.contains(&member) });
                }
                None => refused.push(key),
            }
        }
        if shares.is_empty() && !refused.is_empty() && candidate.id.is_none() {
            return Err(Limit::Backends);
        }
        for key in refused {
            self.report(
                &candidate.name,
                format!("gives its backend {} no connections", endpoint(&key)),
                Limit::Backends,
            );
        }
        Ok(shares)
    }

    fn was(&self, record: Option<&'a ObservedService>) -> Was<'a> {
        let region = record.and_then(|record| Some((record.region(), self.observed.words(record)?)));
        Was { region, is_served: record.is_some(), members: &self.observed.members }
    }

    /// Leads the frontends to the layout.
    fn lead(&mut self, id: u32, keys: &[EndpointKeyV4], when_empty: WhenEmpty, layout: &Layout) {
        let region = layout.region;
        let frontend = Frontend {
            service: id,
            slots_base: region.slots_base,
            slots: region.slots,
            members_base: region.members_base,
            sole: layout.sole,
            flags: if when_empty == WhenEmpty::Drop { frontend_flags::DROP_WHEN_EMPTY } else { 0 },
            affinity_s: 0,
        };
        for &key in keys {
            let was = self.observed.frontends.get(&key);
            self.added_frontends += usize::from(was.is_none());
            if was != Some(&frontend) {
                self.ops.frontends.push(Op::PutFrontend { key, frontend });
            }
            self.frontends.insert(key, frontend);
        }
    }

    fn record(&mut self, id: u32, candidate: &Candidate, was: Option<&ObservedService>, layout: &Layout) {
        self.served.insert(id);
        let region = layout.region;
        if was.is_some_and(|was| was.region() == region) {
            return;
        }
        let frees = region.slots == 0 && was.is_some();
        let records = if frees { &mut self.ops.late_records } else { &mut self.ops.records };
        records.push(Op::PutService {
            id,
            name: candidate.name.clone(),
            slots_base: region.slots_base,
            slots: region.slots,
            members_base: region.members_base,
            members: region.members,
        });
    }

    fn remove_the_rest(&mut self) {
        let keys = self.observed.frontends.keys().filter(|key| !self.frontends.contains_key(key));
        self.ops.removed_frontends.extend(keys.map(|&key| Op::RemoveFrontend { key }));
        let ids = self.observed.services.keys().filter(|id| !self.served.contains(id));
        self.ops.late_records.extend(ids.map(|&id| Op::RemoveService { id }));
    }

    fn report(&mut self, name: &str, what: String, limit: Limit) {
        self.shortages.push(Shortage { object: object(name), what, limit });
    }
}

/// Every desired service, those that are served first, then by name.
fn candidates<'d>(desired: &'d Desired, observed: &Observed) -> Vec<Candidate<'d>> {
    let ids: BTreeMap<&str, u32> = observed.services.iter().map(|(&id, service)| (service.name.as_str(), id)).collect();
    let candidate = |(name, service): (&ServiceName, &'d DesiredService)| {
        let text = name.to_string();
        let id = ids.get(text.as_str()).copied();
        Candidate { name: text, protocol: name.protocol, service, id }
    };
    let mut candidates: Vec<_> = desired.services.iter().map(candidate).collect();
    candidates.sort_by_key(|candidate| candidate.id.is_none());
    candidates
}

/// What the frontends tell of services beyond their records.
struct Reached {
    /// Backends that frontends name themselves, by service.
    soles: BTreeMap<u32, Vec<Member>>,
    /// Services with frontends that lead to other members than the record: an update did not come to its end.
    astray: BTreeSet<u32>,
}

impl Reached {
    fn from(observed: &Observed) -> Self {
        let mut reached = Self { soles: BTreeMap::new(), astray: BTreeSet::new() };
        for frontend in observed.frontends.values() {
            let id = frontend.service;
            if frontend.slots == 0 {
                reached.soles.entry(id).or_default().push(frontend.sole);
            } else if observed.services.get(&id).is_none_or(|record| record.members_base != frontend.members_base) {
                reached.astray.insert(id);
            }
        }
        reached
    }
}

fn object(name: &str) -> String {
    format!("Service {name}")
}
