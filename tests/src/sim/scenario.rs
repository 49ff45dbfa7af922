//! What happens to the cluster while clients are served.

use super::clock::{TICKS_PER_MS, TICKS_PER_S};

/// How the pods of each service change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not at all.
    Nothing,
    /// A new pod comes, then the oldest ends.
    Replace {
        /// One in so many ticks.
        every: u64,
        /// How long the old one keeps its connections, at least and at most, in seconds.
        drain_s: [u64; 2],
    },
    /// Between so many pods and twice as many.
    Swing {
        /// Ticks between two changes.
        every: u64,
    },
    /// A pod is not ready for 5 to 20 s.
    Flap {
        /// One in so many ticks.
        every: u64,
    },
    /// To each of these numbers of pods in turn: services get slots, more members, and no pods at all.
    Resize {
        /// Ticks between two changes.
        every: u64,
        /// The numbers.
        pods: &'static [usize],
    },
}

/// One kind of trouble.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name in the table.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub what: &'static str,
    /// How pods change.
    pub change: Change,
    /// Pods of each service at the start.
    pub pods: usize,
    /// SYNs of nobody in a second, from the 30th to the 90th.
    pub spoofed_syns_per_s: u32,
    /// Other segments of nobody in a second, at the same time.
    pub spoofed_acks_per_s: u32,
    /// Datagrams of nobody in a second, which pods answer, at the same time.
    pub spoofed_datagrams_per_s: u32,
    /// Of so many packets one is lost.
    pub lost_one_in: usize,
    /// Whether the pods' sockets cannot be seen.
    pub are_hidden: bool,
    /// Whether a new pod gets the address of the last one that ended.
    pub reuses_addresses: bool,
    /// Every how many rounds the agent dies between two operations; zero: never.
    pub crash_every: usize,
}

impl Scenario {
    /// Whether packets of nobody come.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.spoofed_syns_per_s + self.spoofed_acks_per_s + self.spoofed_datagrams_per_s > 0
    }
}

const CALM: Scenario = Scenario {
    name: "calm",
    what: "no pod changes",
    change: Change::Nothing,
    pods: 10,
    spoofed_syns_per_s: 0,
    spoofed_acks_per_s: 0,
    spoofed_datagrams_per_s: 0,
    lost_one_in: 500,
    are_hidden: false,
    reuses_addresses: false,
    crash_every: 0,
};

const ROLL: Change = Change::Replace { every: 20 * TICKS_PER_S, drain_s: [30, 120] };
const SWING: Change = Change::Swing { every: 40 * TICKS_PER_S };

/// All of them.
pub const SCENARIOS: [Scenario; 14] = [
    CALM,
    Scenario {
        name: "roll",
        what: "a pod of each service is replaced every 20 s, and drains for 30 to 120 s",
        change: ROLL,
        ..CALM
    },
    Scenario { name: "hpa", what: "10 pods, 20 pods and back, every 40 s", change: SWING, ..CALM },
    Scenario {
        name: "flap",
        what: "every second a pod is not ready for 5 to 20 s",
        change: Change::Flap { every: TICKS_PER_S },
        ..CALM
    },
    Scenario {
        name: "lossy",
        what: "as flap, and one packet in 20 is lost",
        change: Change::Flap { every: TICKS_PER_S },
        lost_one_in: 20,
        ..CALM
    },
    Scenario {
        name: "churn",
        what: "a pod of each service is replaced every 0.5 s, and drains for 120 s",
        change: Change::Replace { every: 500 * TICKS_PER_MS, drain_s: [120, 120] },
        ..CALM
    },
    Scenario {
        name: "resize",
        what: "from 1 pod to 60 and to none, every 10 s",
        change: Change::Resize { every: 10 * TICKS_PER_S, pods: &[1, 3, 12, 60, 20, 0, 5, 1, 2, 45] },
        ..CALM
    },
    Scenario {
        name: "crash",
        what: "as hpa, and the agent dies in every second round between two operations",
        change: SWING,
        crash_every: 2,
        ..CALM
    },
    Scenario {
        name: "reuse",
        what: "a pod is replaced every 2 s, drains for 3 to 6 s, and the next gets its address and namespace id",
        change: Change::Replace { every: 2 * TICKS_PER_S, drain_s: [3, 6] },
        reuses_addresses: true,
        ..CALM
    },
    Scenario {
        name: "hidden",
        what: "as roll, with pods whose sockets cannot be seen",
        change: ROLL,
        are_hidden: true,
        ..CALM
    },
    Scenario {
        name: "roll+flood",
        what: "as roll, under 200 000 SYN/s and 20 000 ACK/s of nobody",
        change: ROLL,
        spoofed_syns_per_s: 200_000,
        spoofed_acks_per_s: 20_000,
        ..CALM
    },
    Scenario {
        name: "hpa+flood",
        what: "as hpa, under the same flood",
        change: SWING,
        spoofed_syns_per_s: 200_000,
        spoofed_acks_per_s: 20_000,
        ..CALM
    },
    Scenario {
        name: "hidden+flood",
        what: "as hidden, under the same flood",
        change: ROLL,
        spoofed_syns_per_s: 200_000,
        spoofed_acks_per_s: 20_000,
        are_hidden: true,
        ..CALM
    },
    Scenario {
        name: "roll+dns",
        what: "as roll, under 200 000 datagrams/s of nobody, which pods answer",
        change: ROLL,
        spoofed_datagrams_per_s: 200_000,
        ..CALM
    },
];
