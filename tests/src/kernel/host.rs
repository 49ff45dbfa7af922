//! Runs a hook in ordinary memory, as the agent's self-test does, on the uplink of the sample.

use xlb_common::memory::MemoryTables;
use xlb_common::memory::run::run as run_on;

use super::outcome::{Hook, Outcome};
use super::sample::{UPLINK, UPLINK_MAC};

/// What `hook` does with `frame`. The tables' flows follow.
#[must_use]
pub fn run(tables: &MemoryTables, hook: Hook, frame: &[u8]) -> Outcome {
    run_on(tables, hook, frame, (UPLINK, UPLINK_MAC))
}
