//! Which clients services are open to. A service is never open to more than it asks for: what does not fit stays closed.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::desired::Family;
use super::observed::Observed;
use super::op::Op;
use super::refuse::Limit;

/// The source ranges of a plan.
pub(super) struct Sources<'a> {
    observed: &'a Observed,
    /// What all services have.
    whole: &'a Observed,
    limit: usize,
    /// How many entries each family's map has while the plan is done: what is removed goes after what is added. Counted
    /// when first needed.
    entries: Option<BTreeMap<Family, usize>>,
    wanted: BTreeMap<u32, &'a BTreeSet<IpNet>>,
    /// Services that get ranges.
    widening: BTreeSet<u32>,
}

/// The ranges of a service that fit, and how many do not.
#[derive(Default)]
pub(super) struct Fitting {
    new: Vec<IpNet>,
    pub(super) excess: usize,
}

impl<'a> Sources<'a> {
    pub(super) fn new((observed, whole): (&'a Observed, &'a Observed), limit: u32) -> Self {
        let (wanted, widening) = (BTreeMap::new(), BTreeSet::new());
        Self { observed, whole, limit: limit as usize, entries: None, wanted, widening }
    }

    /// Whether ranges are left of a service without a record: its id must not be given to another one yet.
    pub(super) fn are_left_of(&self, id: u32) -> bool {
        self.whole.source_ranges.contains_key(&id)
    }

    /// The ranges that a service can have. A new one has all or is not served; one that is served goes on with those that
    /// fit, and is closed to the others.
    pub(super) fn fit(&mut self, id: Option<u32>, ranges: &BTreeSet<IpNet>) -> Result<Fitting, Limit> {
        let known = id.and_then(|id| self.observed.source_ranges.get(&id));
        let is_new = |range: &&IpNet| known.is_none_or(|known| !known.contains(range));
        let mut new: Vec<IpNet> = ranges.iter().filter(is_new).copied().collect();
        let entries = new.first().map_or(0, |range| *self.entries(family(range)));
        let excess = new.split_off(self.limit.saturating_sub(entries).min(new.len())).len();
        if excess > 0 && id.is_none() {
            return Err(Limit::SourceRanges);
        }
        Ok(Fitting { new, excess })
    }

    /// Whether a service has ranges that it does not want any more.
    pub(super) fn narrows(&self, id: u32, ranges: &BTreeSet<IpNet>) -> bool {
        self.observed.source_ranges.get(&id).is_some_and(|known| !known.is_subset(ranges))
    }

    /// Operations that add ranges of a service.
    pub(super) fn add(&mut self, id: u32, ranges: &'a BTreeSet<IpNet>, fitting: Fitting) -> Vec<Op> {
        self.wanted.insert(id, ranges);
        if !fitting.new.is_empty() {
            self.widening.insert(id);
        }
        for range in &fitting.new {
            *self.entries(family(range)) += 1;
        }
        fitting.new.into_iter().map(|range| Op::PutSourceRange { service: id, range }).collect()
    }

    /// The services that the plan opens to more clients.
    pub(super) fn widening(&self) -> &BTreeSet<u32> {
        &self.widening
    }

    /// Operations that remove the ranges that no service wants.
    pub(super) fn removals(&self) -> Vec<Op> {
        let mut removals = Vec::new();
        for (&service, ranges) in &self.observed.source_ranges {
            let wanted = self.wanted.get(&service);
            let is_unwanted = |range: &&IpNet| wanted.is_none_or(|wanted| !wanted.contains(range));
            let unwanted = ranges.iter().filter(is_unwanted);
            removals.extend(unwanted.map(|&range| Op::RemoveSourceRange { service, range }));
        }
        removals
    }

    fn entries(&mut self, of: Family) -> &mut usize {
        let count = || {
            let mut entries = BTreeMap::new();
            self.whole
                .source_ranges
                .values()
                .flatten()
                .for_each(|range| *entries.entry(family(range)).or_default() += 1);
            entries
        };
        self.entries.get_or_insert_with(count).entry(of).or_default()
    }
}

fn family(range: &IpNet) -> Family {
    Family::of(range.addr())
}
