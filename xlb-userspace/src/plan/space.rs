//! Free parts of `SLOTS`, `MEMBERS` and the endpoints: the first gap that is large enough.

use super::Limits;
use super::observed::{Observed, rests};

/// Most members of one service that a frontend can reach: what an unrecorded region is taken for.
const MEMBERS_REACHED: u32 = 256;

/// What is free in the two arrays. It is looked for when first needed.
pub(super) struct Space<'a> {
    observed: &'a Observed,
    limits: Limits,
    now_ms: u64,
    free: Option<Free>,
}

struct Free {
    slots: Gaps,
    members: Gaps,
}

impl<'a> Space<'a> {
    pub(super) fn new(observed: &'a Observed, limits: Limits, now_ms: u64) -> Self {
        Self { observed, limits, now_ms, free: None }
    }

    /// First index of so many free slots.
    pub(super) fn take_slots(&mut self, length: u32) -> Option<u32> {
        self.free().slots.take(length)
    }

    /// First index of so many free members.
    pub(super) fn take_members(&mut self, length: u32) -> Option<u32> {
        self.free().members.take(length)
    }

    /// Gives back members that were taken in vain.
    pub(super) fn return_members(&mut self, base: u32, length: u32) {
        self.free().members.put_back(base, length);
    }

    fn free(&mut self) -> &mut Free {
        self.free.get_or_insert_with(|| Free {
            slots: Gaps::between(used_slots(self.observed, self.now_ms), self.limits.slots),
            members: Gaps::between(used_members(self.observed, self.now_ms), self.limits.members),
        })
    }
}

/// Whatever a service's record or a frontend names is in use. They differ after a crash between the two.
fn used_slots(observed: &Observed, now_ms: u64) -> Vec<(u32, u32)> {
    let recorded = observed.services.values().map(|service| (service.slots_base, service.slots));
    let reached = observed.frontends.values().map(|frontend| (frontend.slots_base, frontend.slots));
    let resting = observed.resting.slots.iter().filter(|region| rests(region.since_ms, now_ms));
    recorded.chain(reached).chain(resting.map(|region| (region.base, region.length))).collect()
}

fn used_members(observed: &Observed, now_ms: u64) -> Vec<(u32, u32)> {
    let recorded = observed.services.values().map(|service| (service.members_base, service.members));
    let strays = observed.frontends.values().filter(|frontend| {
        let record = observed.services.get(&frontend.service);
        frontend.slots > 0 && record.is_none_or(|record| record.members_base != frontend.members_base)
    });
    let resting = observed.resting.members.iter().filter(|region| rests(region.since_ms, now_ms));
    let reached = strays.map(|frontend| (frontend.members_base, MEMBERS_REACHED));
    recorded.chain(reached).chain(resting.map(|region| (region.base, region.length))).collect()
}

/// The first index of so many that `used` ranges, which come in order and may overlap, leave free below `limit`. It is what
/// [`Gaps::take`] gives first, and looks no further.
pub(super) fn first_gap(used: impl Iterator<Item = (u32, u32)>, limit: u32, length: u32) -> Option<u32> {
    let mut end = 0u32;
    for (base, used) in used.filter(|&(_, length)| length > 0).chain([(limit, 0)]) {
        if base.min(limit).saturating_sub(end) >= length {
            return Some(end);
        }
        end = end.max(base.saturating_add(used));
    }
    None
}

/// Free ranges in order: first index and length.
pub(super) struct Gaps(Vec<(u32, u32)>);

impl Gaps {
    /// What `used` ranges, which may overlap, leave free below `limit`.
    pub(super) fn between(mut used: Vec<(u32, u32)>, limit: u32) -> Self {
        used.retain(|&(_, length)| length > 0);
        used.sort_unstable();
        let (mut gaps, mut end) = (Vec::new(), 0u32);
        for (base, length) in used.into_iter().chain([(limit, 0)]) {
            let base = base.min(limit);
            if base > end {
                gaps.push((end, base - end));
            }
            end = end.max(base.saturating_add(length));
        }
        Self(gaps)
    }

    /// The first index of so many that are free, which are then not free any more.
    pub(super) fn take(&mut self, length: u32) -> Option<u32> {
        let at = self.0.iter().position(|&(_, free)| free >= length)?;
        let (base, free) = self.0.get_mut(at)?;
        let taken = *base;
        (*base, *free) = (taken + length, *free - length);
        if *free == 0 {
            self.0.remove(at);
        }
        Some(taken)
    }

    fn put_back(&mut self, base: u32, length: u32) {
        let at = self.0.partition_point(|&(other, _)| other < base);
        self.0.insert(at, (base, length));
        if let Some(&(next, free)) = self.0.get(at + 1).filter(|&&(next, _)| next == base + length) {
            self.0.splice(at..=at + 1, [(base, next + free - base)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_that_is_large_enough_is_taken() {
        let mut gaps = Gaps::between(vec![(20, 5), (0, 10), (22, 8), (12, 0)], 100);
        assert_eq!(gaps.0, [(10, 10), (30, 70)]);
        assert_eq!([gaps.take(11), gaps.take(10), gaps.take(59), gaps.take(1)], [Some(30), Some(10), Some(41), None]);
    }

    #[test]
    fn the_first_gap_is_found_without_looking_at_all() {
        let used = [(0, 10), (12, 0), (20, 5), (22, 8), (40, 90)];
        for length in [1, 10, 11, 60] {
            let first = first_gap(used.into_iter(), 100, length);
            assert_eq!(first, Gaps::between(used.to_vec(), 100).take(length), "{length}");
        }
    }

    #[test]
    fn what_was_taken_in_vain_is_whole_again() {
        let mut gaps = Gaps::between(vec![], 100);
        let base = gaps.take(16).unwrap();
        gaps.put_back(base, 16);
        assert_eq!(gaps.take(100), Some(0));
    }
}
