//! What a run of a program is compared by, whoever ran it: the agent's self-test compares the same.

pub use xlb_common::memory::outcome::{Hook, Outcome, Verdict};
