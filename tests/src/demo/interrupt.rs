//! Ctrl-C, or a terminal that goes away, as a fact that the demo looks at wherever it waits.
//!
//! SIGINT and SIGHUP are blocked in every thread, so they end nothing by themselves, and one thread takes them.
//! Children inherit the block: what a terminal sends reaches them too, and they must live until the demo ends them in
//! its order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal};

use crate::lab::wait_for;

static IS_INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Begins to take the signals. The caller has no other threads yet.
pub fn watch() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block().context("blocking SIGINT and SIGHUP")?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            IS_INTERRUPTED.store(true, Ordering::SeqCst);
        }
    });
    Ok(())
}

/// Whether the demo shall end.
pub fn is_interrupted() -> bool {
    IS_INTERRUPTED.load(Ordering::SeqCst)
}

/// An error when it shall.
pub fn check() -> Result<()> {
    ensure!(!is_interrupted(), "interrupted");
    Ok(())
}

/// Asks until there is an answer. An interruption and the end of the time are errors, the latter with what was awaited.
pub fn wait_until<T>(limit: Duration, awaited: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let answer = wait_for(limit, || if is_interrupted() { Some(None) } else { ask().map(Some) });
    check()?;
    answer.flatten().with_context(|| format!("{awaited}: not within {limit:?}"))
}
