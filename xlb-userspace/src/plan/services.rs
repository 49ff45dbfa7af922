//! One service after the other: those that are served already first, so that what fits keeps serving.

use std::collections::BTreeMap;

use xlb_common::abi::SERVICE_NAME_MAX;

use super::Limits;
use super::backends::Backends;
use super::desired::{Desired, DesiredService, Protocol, Refusal, ServiceName};
use super::endpoint::Endpoint;
use super::formers::Formers;
use super::frontends::Frontends;
use super::inside::{Insides, Led};
use super::layout::{Layout, Share, Was, lay_out};
use super::observed::{Observed, ObservedService};
use super::op::Op;
use super::refuse::{Limit, Shortage};
use super::sole::Soles;
use super::sources::Sources;
use super::space::Space;
use super::vips::Vips;

/// The operations for all services, by the time at which they are due.
#[derive(Default)]
pub(super) struct ServiceOps {
    pub(super) members: Vec<Op>,
    pub(super) endpoints: Vec<Op>,
    pub(super) slots: Vec<Op>,
    pub(super) records: Vec<Op>,
    /// Before anything else: another frontend is about to lead to the pod.
    pub(super) removed_sole_frontends: Vec<Op>,
    /// After the ids of the backends.
    pub(super) sole_frontends: Vec<Op>,
    /// Frontends, also those of clients inside, that no moment may see with the ranges that their service is to get.
    pub(super) early_removed_frontends: Vec<Op>,
    /// Before the frontends that they filter.
    pub(super) source_ranges: Vec<Op>,
    pub(super) frontends: Vec<Op>,
    pub(super) removed_frontends: Vec<Op>,
    /// Not before the frontends that they filtered are open to everybody or gone.
    pub(super) removed_source_ranges: Vec<Op>,
    /// Frontends that no moment may see with the ranges that their service is to lose.
    pub(super) late_frontends: Vec<Op>,
    /// Slots that frontends may not see while they lead to a smaller member region.
    pub(super) late_slots: Vec<Op>,
    /// Frontends of other services that may not come before late slots: these name those services' backends.
    pub(super) taken_frontends: Vec<Op>,
    /// After all frontends.
    pub(super) vips: Vec<Op>,
    /// Before any frontend goes.
    pub(super) removed_vips: Vec<Op>,
    /// Records that free a region: not before the last frontend left it.
    pub(super) late_records: Vec<Op>,
}

/// The services of a plan.
pub(super) struct Services<'a, 'b> {
    /// What the services of the plan have.
    observed: &'a Observed,
    /// What all services have.
    whole: &'a Observed,
    limits: Limits,
    backends: &'b mut Backends<'a>,
    space: Space<'a>,
    frontends: Frontends<'a>,
    insides: Insides<'a>,
    sources: Sources<'a>,
    soles: Soles<'a>,
    /// The ids of the services of the plan, and whether they have a backend that takes new connections.
    served: BTreeMap<u32, bool>,
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
    pub(super) fn new(
        (observed, whole): (&'a Observed, &'a Observed),
        limits: Limits,
        now_ms: u64,
        backends: &'b mut Backends<'a>,
    ) -> Self {
        Self {
            observed,
            whole,
            limits,
            backends,
            space: Space::new(whole, limits, now_ms),
            frontends: Frontends::new((observed, whole), limits.frontends),
            insides: Insides::new((&observed.inside, &whole.inside), limits.endpoints, now_ms),
            sources: Sources::new((observed, whole), limits.source_ranges),
            soles: Soles::new((observed, whole), limits.sole_frontends),
            served: BTreeMap::new(),
            next_id: 0,
            ops: ServiceOps::default(),
            shortages: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// Plans every service, then the removal of what is not desired or does not fit.
    pub(super) fn plan(&mut self, desired: &'a Desired) {
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

    fn serve(&mut self, candidate: &Candidate<'a>) -> Result<(), Limit> {
        let service = candidate.service;
        let vips = self.vips_that_fit(candidate)?;
        let ranges = self.sources.fit(candidate.id, &service.sources.ranges)?;
        let id = candidate.id.or_else(|| self.free_id()).ok_or(Limit::Services)?;
        let shares = self.shares(id, candidate, &vips)?;
        let record = candidate.id.and_then(|id| self.observed.services.get(&id));
        let was = self.was(record);
        let layout = lay_out(&was, &shares, &mut self.space)?;
        if let Some(limit) = layout.short {
            self.report(&candidate.name, "gives some of its backends no connections".into(), limit);
        }
        if ranges.excess > 0 {
            let what = format!("is closed to {} of its source ranges", ranges.excess);
            self.report(&candidate.name, what, Limit::SourceRanges);
        }
        self.ops.source_ranges.extend(self.sources.add(id, &service.sources.ranges, ranges));
        let (frontends, newly_filtered) = self.frontends.lead(id, &vips, service, &layout);
        let pods = service.backends.keys().map(|&socket| Endpoint { socket, protocol: candidate.protocol });
        let members = pods.filter_map(|pod| Some((pod, self.backends.known(&pod)?)));
        self.soles.lead(id, &vips, service, members);
        let led = self.lead_inside(id, &vips, candidate);
        let narrows = self.sources.narrows(id, &service.sources.ranges);
        let is_astray = self.frontends.reached(id).is_some_and(|reached| reached.is_astray);
        let come_last = layout.slots_come_last || is_astray;
        let waits = |op: &Op| come_last && self.frontends.is_taking(op, id);
        let (waiting, newly_filtered): (Vec<_>, Vec<_>) = newly_filtered.into_iter().partition(waits);
        self.ops.taken_frontends.extend(waiting);
        let (waiting, frontends): (Vec<_>, Vec<_>) = frontends.into_iter().partition(waits);
        self.ops.taken_frontends.extend(waiting);
        let late = if narrows { &mut self.ops.late_frontends } else { &mut self.ops.frontends };
        // An entry for clients inside comes after its frontend, and goes before it: then it has as much room.
        late.extend(newly_filtered.into_iter().chain(led.newly_filtered));
        self.ops.frontends.extend(frontends.into_iter().chain(led.entries));
        self.ops.endpoints.extend(led.endpoints);
        self.record(id, candidate, record, &layout);
        self.served.insert(id, is_usable(&layout, &was));
        let slots = if come_last { &mut self.ops.late_slots } else { &mut self.ops.slots };
        slots.extend(layout.slots);
        self.ops.members.extend(layout.members);
        Ok(())
    }

    /// The VIPs for which there is room; the others are told of.
    fn vips_that_fit(&mut self, candidate: &Candidate) -> Result<Vec<Endpoint>, Limit> {
        let vips = self.frontends.sort(candidate.service, candidate.protocol);
        for key in vips.taken {
            let why = format!("is not served at {key}, because another Service has it: give one of them another");
            self.refusals.push(Refusal { object: object(&candidate.name), why });
        }
        if vips.fitting.is_empty() && !vips.excess.is_empty() {
            return Err(Limit::Frontends);
        }
        for key in vips.excess {
            self.report(&candidate.name, format!("is not served at {key}"), Limit::Frontends);
        }
        Ok(vips.fitting)
    }

    /// The lowest id that no service has.
    fn free_id(&mut self) -> Option<u32> {
        let is_used = |id: &u32| self.whole.services.contains_key(id) || self.served.contains_key(id);
        let is_free = |id: &u32| !is_used(id) && !self.sources.are_left_of(*id);
        let id = (self.next_id..self.limits.services).find(is_free)?;
        self.next_id = id;
        Some(id)
    }

    /// The service's backends, as far as there are ids for them.
    fn shares(&mut self, id: u32, candidate: &Candidate, vips: &[Endpoint]) -> Result<Vec<Share>, Limit> {
        let mut shares = Vec::with_capacity(candidate.service.backends.len());
        let mut refused = Vec::new();
        let formers = Formers::of(self.whole, id, vips);
        let soles = self.frontends.reached(id).map_or(&[][..], |reached| &reached.soles);
        for (&socket, backend) in &candidate.service.backends {
            let key = Endpoint { socket, protocol: candidate.protocol };
            match self.backends.resolve(&key) {
                Some(member) => {
                    let (takes_new, weight) = (backend.takes_new, backend.weight);
                    let (is_named, former) = (soles.contains(&member), formers.holding(&member));
                    shares.push(Share { member, takes_new, weight, is_named, former });
                }
                None => refused.push(key),
            }
        }
        if shares.is_empty() && !refused.is_empty() && candidate.id.is_none() {
            return Err(Limit::Backends);
        }
        for key in refused {
            self.report(&candidate.name, format!("gives its backend {key} no connections"), Limit::Backends);
        }
        Ok(shares)
    }

    fn was(&self, record: Option<&'a ObservedService>) -> Was<'a> {
        let region = record.and_then(|record| Some((record.region(), self.whole.table(record)?)));
        Was { region, is_served: record.is_some(), members: &self.whole.members }
    }

    fn lead_inside(&mut self, id: u32, vips: &[Endpoint], candidate: &Candidate) -> Led {
        let led = self.insides.lead(id, vips, candidate.service);
        if let Some((what, limit)) = led.short {
            self.report(&candidate.name, what.into(), limit);
        }
        led
    }

    fn record(&mut self, id: u32, candidate: &Candidate, was: Option<&ObservedService>, layout: &Layout) {
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
        let (early, removals) = self.insides.removals(self.sources.widening());
        self.ops.early_removed_frontends.extend(early);
        self.ops.removed_frontends.extend(removals);
        let (early, removals) = self.frontends.removals(self.sources.widening());
        self.ops.early_removed_frontends.extend(early);
        self.ops.removed_frontends.extend(removals);
        let (planned, served) = (self.frontends.planned(), &self.served);
        let vips = Vips { observed: self.observed, whole: self.whole, planned, served };
        (self.ops.vips, self.ops.removed_vips) = vips.changes();
        (self.ops.sole_frontends, self.ops.removed_sole_frontends) = self.soles.changes();
        self.ops.removed_source_ranges.extend(self.sources.removals());
        let ids = self.observed.services.keys().filter(|id| !self.served.contains_key(id));
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

/// Whether a new connection finds somebody: then each slot has an owner.
fn is_usable(layout: &Layout, was: &Was) -> bool {
    let base = layout.region.slots_base;
    let put = layout.slots.iter().find_map(|op| match op {
        Op::PutSlot { index, word } if *index == base => Some(*word),
        _ => None,
    });
    let kept = was.region.filter(|(region, _)| region.slots_base == base).and_then(|(_, words)| words.first().copied());
    layout.region.slots == 0 || put.or(kept).is_some_and(|word| word.current().is_some())
}

fn object(name: &str) -> String {
    format!("Service {name}")
}
