//! What a run counted.

use std::collections::BTreeMap;

use super::design::Cause;

/// How a connection's consistency broke. A connection counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A packet went to another pod, or to none, while the connection's own pod lived.
    Moved,
    /// A reply came from another VIP than the client's.
    Misdelivered,
    /// Replies were lost until the client gave up.
    Hung,
    /// A reply was lost, and a later one arrived.
    Late,
}

/// The sums of a run, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections and UDP flows that began.
    pub flows: u64,
    /// Those that a pod accepted.
    pub accepted: u64,
    /// Those that ended with their pod.
    pub ended_with_pod: u64,
    /// Those that no pod took: refused, or no answer came.
    pub unanswered: u64,
    /// Packets of clients and of pods that passed, spoofed ones among them.
    pub packets: u64,
    /// Map operations of the agent.
    pub operations: u64,
    /// Times that the agent died.
    pub crashes: u64,
    /// By what happened.
    pub violations: BTreeMap<Violation, u64>,
    /// By what it came from.
    pub causes: BTreeMap<Cause, u64>,
    /// The first few, in sentences.
    pub examples: Vec<String>,
}

impl Tally {
    /// Connections with a violation.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.violations.values().sum()
    }

    /// Connections with this violation.
    #[must_use]
    pub fn of(&self, violation: Violation) -> u64 {
        self.violations.get(&violation).copied().unwrap_or_default()
    }

    /// Violations in a million flows.
    #[must_use]
    pub fn per_million(&self) -> f64 {
        if self.flows == 0 { 0.0 } else { self.broken() as f64 * 1e6 / self.flows as f64 }
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.accepted += other.accepted;
        self.ended_with_pod += other.ended_with_pod;
        self.unanswered += other.unanswered;
        self.packets += other.packets;
        self.operations += other.operations;
        self.crashes += other.crashes;
        for (violation, count) in &other.violations {
            *self.violations.entry(*violation).or_default() += count;
        }
        for (cause, count) in &other.causes {
            *self.causes.entry(*cause).or_default() += count;
        }
        self.examples.extend_from_slice(&other.examples);
    }

    /// The causes, the most frequent first.
    #[must_use]
    pub fn causes_in_words(&self) -> String {
        let mut causes: Vec<(u64, Cause)> = self.causes.iter().map(|(&cause, &count)| (count, cause)).collect();
        causes.sort_unstable_by_key(|&(count, cause)| (std::cmp::Reverse(count), cause));
        causes.iter().map(|(count, cause)| format!("{} {count}", cause.name())).collect::<Vec<_>>().join(", ")
    }
}
