//! How often each kind was listed and how often a request for it failed: metrics, and nothing that decides.

use std::sync::atomic::{AtomicU64, Ordering};

use super::item::Resource;

/// Counts of each kind.
#[derive(Debug, Default)]
pub struct Tally {
    lists: [AtomicU64; Resource::ALL.len()],
    failures: [AtomicU64; Resource::ALL.len()],
}

impl Tally {
    /// A list was completed.
    pub fn count_list(&self, resource: Resource) {
        self.lists[resource as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A request failed, or a watch broke.
    pub fn count_failure(&self, resource: Resource) {
        self.failures[resource as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each kind with its completed lists and its failures.
    pub fn counts(&self) -> [(&'static str, u64, u64); Resource::ALL.len()] {
        let read = |counts: &[AtomicU64; 4], resource: Resource| counts[resource as usize].load(Ordering::Relaxed);
        Resource::ALL.map(|resource| (resource.plural(), read(&self.lists, resource), read(&self.failures, resource)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_counts_of_its_own() {
        let tally = Tally::default();
        for (times, resource) in Resource::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| tally.count_list(resource));
            tally.count_failure(resource);
        }
        let expected = [("services", 0, 1), ("endpointslices", 1, 1), ("networkpolicies", 2, 1), ("nodes", 3, 1)];
        assert_eq!(tally.counts(), expected);
    }
}
