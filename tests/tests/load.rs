//! Traffic of which every loss is noticed, while what carries it is exchanged, and beside other ways of carrying it: the short runs
//! of `cargo xtask bench restart`, `connections`, `lab` and `pps`. And those of `tables` and `memory`, which have no traffic.

use std::sync::{Mutex, MutexGuard, PoisonError};

#[path = "load/restart.rs"]
mod restart;
#[path = "load/flood.rs"]
mod flood;
#[path = "load/connections.rs"]
mod connections;
#[path = "load/ways.rs"]
mod ways;
#[path = "load/figures.rs"]
mod figures;

/// Namespaces share the queues of the machine's processors: what a flood fills would be missing to those who count losses.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
