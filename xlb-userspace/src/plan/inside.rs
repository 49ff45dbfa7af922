//! Where the VIPs of services lead clients inside: each service's endpoints in a part of the array that was free, then the
//! entries that lead there. A part is never changed while it is led to, nor soon after.

use std::collections::{BTreeMap, BTreeSet};

use xlb_common::abi::{Inside, inside_flags as flags};

use super::desired::{DesiredInside, DesiredService, Family, Protocol};
use super::endpoint::Endpoint;
use super::endpoints::{ObservedInside, local_of};
use super::op::Op;
use super::refuse::Limit;
use super::space::{Gaps, first_gap};

/// The entries for clients inside of a plan.
pub(super) struct Insides<'a> {
    observed: &'a ObservedInside,
    /// What all services have.
    whole: &'a ObservedInside,
    limit: u32,
    now_ms: u64,
    /// Those of the services planned so far.
    planned: BTreeMap<Endpoint, Inside>,
    /// The first part that was taken of each family's endpoints: mostly the only one.
    taken: BTreeMap<Family, (u32, u32)>,
    /// What else is free. It is looked for when a second part is needed.
    gaps: BTreeMap<Family, Gaps>,
}

/// What leads the clients inside to a service.
#[derive(Default)]
pub(super) struct Led {
    /// Before the entries.
    pub(super) endpoints: Option<Op>,
    pub(super) entries: Vec<Op>,
    /// Entries that this service has not filtered so far.
    pub(super) newly_filtered: Vec<Op>,
    /// What became of clients inside, if there is no room for the endpoints.
    pub(super) short: Option<(&'static str, Limit)>,
}

/// A service's part of the endpoints.
#[derive(Clone, Copy, Default)]
struct Part {
    base: u32,
    usable: u32,
    lingering: u32,
    /// For clients in pods, if these get others.
    local: Option<u32>,
}

impl<'a> Insides<'a> {
    pub(super) fn new((observed, whole): (&'a ObservedInside, &'a ObservedInside), limit: u32, now_ms: u64) -> Self {
        Self { observed, whole, limit, now_ms, planned: BTreeMap::new(), taken: BTreeMap::new(), gaps: BTreeMap::new() }
    }

    /// Leads the VIPs of a service, which are of one family, to its endpoints.
    pub(super) fn lead(&mut self, id: u32, vips: &[Endpoint], service: &DesiredService) -> Led {
        let mut led = Led::default();
        let (Some(wanted), Some(first)) = (&service.inside, vips.first()) else { return led };
        let known = self.known(id, vips);
        let part = match known.filter(|entry| self.observed.leads_to(first.family(), entry, wanted)) {
            Some(entry) => Part::of(entry),
            None => match self.take(first, wanted) {
                Ok((part, endpoints)) => {
                    led.endpoints = endpoints;
                    part
                }
                // What was freed a moment ago may make room: until then the endpoints of before are better than none.
                Err(limit) if known.is_some() && self.may_pass(first.family()) => {
                    led.short = Some(("leads clients inside to its endpoints of before", limit));
                    known.map(Part::of).unwrap_or_default()
                }
                Err(limit) => {
                    led.short = Some(("is not served to clients inside", limit));
                    return led;
                }
            },
        };
        for &key in vips {
            self.lead_one(id, key, part, service, &mut led);
        }
        led
    }

    /// Operations that remove what no service has any more: those that must go before services in `widening` get more
    /// clients, as with frontends, and the others.
    pub(super) fn removals(&self, widening: &BTreeSet<u32>) -> (Vec<Op>, Vec<Op>) {
        let (mut early, mut removals) = (Vec::new(), Vec::new());
        for (&key, was) in &self.observed.entries {
            let planned = self.planned.get(&key);
            let leaves = planned.is_none_or(|planned| planned.service != was.service && is_filtered(planned));
            if leaves && is_filtered(was) && widening.contains(&was.service) {
                early.push(Op::RemoveInside { key });
            } else if planned.is_none() {
                removals.push(Op::RemoveInside { key });
            }
        }
        (early, removals)
    }

    fn lead_one(&mut self, id: u32, key: Endpoint, part: Part, service: &DesiredService, led: &mut Led) {
        let filtered = service.sources.vips.contains(&key.socket.ip());
        let for_pods = if part.local.is_some() { flags::LOCAL_FOR_PODS } else { 0 };
        let inside = Inside {
            service: id,
            endpoints_base: part.base,
            endpoints: part.usable,
            lingering: part.lingering,
            affinity_s: service.affinity_s,
            flags: for_pods | if filtered { flags::SOURCE_RANGES } else { 0 },
            local: part.local.unwrap_or_default(),
        };
        let was = self.observed.entries.get(&key);
        if was != Some(&inside) {
            let was_filtered = was.is_some_and(|was| was.service == id && is_filtered(was));
            let ops = if filtered && !was_filtered { &mut led.newly_filtered } else { &mut led.entries };
            ops.push(Op::PutInside { key, inside });
        }
        self.planned.insert(key, inside);
    }

    /// An entry of the service, which stays with it.
    fn known(&self, id: u32, vips: &[Endpoint]) -> Option<&'a Inside> {
        let mut entries = vips.iter().filter_map(|key| self.observed.entries.get(key));
        entries.find(|entry| entry.service == id)
    }

    /// A part that nobody uses, and the operation that fills it.
    fn take(&mut self, vip: &Endpoint, wanted: &DesiredInside) -> Result<(Part, Option<Op>), Limit> {
        let (usable, lingering) = (wanted.usable.len() as u32, wanted.lingering.len() as u32);
        let local = wanted.local.as_ref().map(|local| local.len() as u32);
        let endpoints = [&wanted.usable, &wanted.lingering, wanted.local.as_deref().unwrap_or_default()].concat();
        if endpoints.is_empty() {
            return Ok((Part { local, ..Part::default() }, None));
        }
        let base = self.take_part(vip.family(), endpoints.len() as u32).ok_or(Limit::Endpoints)?;
        let protocol: Protocol = vip.protocol;
        Ok((Part { base, usable, lingering, local }, Some(Op::PutEndpoints { base, protocol, endpoints })))
    }

    fn take_part(&mut self, family: Family, length: u32) -> Option<u32> {
        let used = self.whole.used(family, self.now_ms);
        let Some(&taken) = self.taken.get(&family) else {
            let base = first_gap(used, self.limit, length)?;
            self.taken.insert(family, (base, length));
            return Some(base);
        };
        let gaps = self.gaps.entry(family).or_insert_with(|| Gaps::between(used.chain([taken]).collect(), self.limit));
        gaps.take(length)
    }

    fn may_pass(&self, family: Family) -> bool {
        self.whole.resting(family, self.now_ms).next().is_some()
    }
}

impl Part {
    fn of(entry: &Inside) -> Self {
        let Inside { endpoints_base: base, endpoints: usable, lingering, .. } = *entry;
        Self { base, usable, lingering, local: local_of(entry) }
    }
}

fn is_filtered(entry: &Inside) -> bool {
    entry.flags & flags::SOURCE_RANGES != 0
}
