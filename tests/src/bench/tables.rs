//! `xlb-bench tables`: what tables of slots cost to build and to change, and how well they share out.
//!
//! Times are of the code that the agent runs, in this process. Counts of slots are exact.

#[path = "tables/build.rs"]
mod build;
#[path = "tables/change.rs"]
mod change;
#[path = "tables/alone.rs"]
mod alone;
#[path = "tables/stage.rs"]
mod stage;
#[path = "tables/share.rs"]
mod share;

use std::time::{Duration, Instant};

use anyhow::Result;
use xlb_common::slot::SlotWord;
use xlb_userspace::plan::sticky::sticky;

use super::report::Report;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Rounds: one figure of each row.
    pub rounds: usize,
    /// Builds, and changes of each kind, of which a round's figure is the one in the middle.
    pub repeat: u32,
    /// Services beside the one that changes.
    pub others: u32,
    /// Slots of the largest table.
    pub most_slots: u32,
}

impl Terms {
    /// As `cargo xtask bench tables` does it.
    pub const TARGET: Terms = Terms { rounds: 7, repeat: 100, others: 10_000, most_slots: 65_537 };
}

/// Measures everything.
pub fn measure(terms: Terms) -> Result<Report> {
    let mut report = Report::default();
    build::measure(&terms, &mut report);
    change::measure(&terms, &mut report)?;
    share::count(&terms, &mut report);
    Ok(report)
}

/// The name of a row about a table of this size.
fn size(slots: u32, backends: u32) -> String {
    format!("{slots} slots, {backends} backends")
}

/// The name of the row of Maglev's table of this size.
fn maglev_row(slots: u32, backends: u32) -> String {
    format!("{}: Maglev", size(slots, backends))
}

/// The names by which Maglev knows backends, each of weight one.
fn names(backends: u32) -> Vec<(String, u16)> {
    (0..backends).map(|number| (format!("10.1.{}.{}:8080", number >> 8, number & 0xff), 1)).collect()
}

/// Local indexes from `first` on, each of weight one.
fn locals(first: u32, backends: u32) -> Vec<(u8, u16)> {
    (first..first + backends).map(|number| (number as u8, 1)).collect()
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let result = work();
    (begun.elapsed(), result)
}

/// The time in the middle, in microseconds: others on the machine do not make it longer, as they do the mean.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// A table that never was another.
fn fresh(slots: u32, backends: u32) -> Vec<SlotWord> {
    sticky(&vec![SlotWord::EMPTY; slots as usize], &locals(0, backends))
}

/// The words when this backend's pod is gone.
fn without(words: &[SlotWord], gone: u8) -> Vec<SlotWord> {
    words.iter().map(|word| if word.mentions(gone) { word.without(gone) } else { *word }).collect()
}

/// All but one.
fn but<T: Clone>(all: &[T], one: usize) -> Vec<T> {
    [&all[..one], &all[one + 1..]].concat()
}
