//! Whole tables, in memory only.

use std::hint::black_box;

use xlb_common::slot::SlotWord;
use xlb_userspace::plan::maglev::maglev;
use xlb_userspace::plan::sticky::sticky;

use super::{Terms, locals, maglev_row, median, names, size, timed};
use crate::bench::report::Report;

/// Slots and backends. The planner gives 100 backends 4093 slots; they have 16 381 if they were more than 160 once. 254 is the
/// most that a service can have on a node.
const SIZES: [(u32, u32); 5] = [(251, 3), (4093, 20), (4093, 100), (16_381, 100), (65_537, 254)];

/// Times this planner's and Maglev's builds in turn.
pub fn measure(terms: &Terms, report: &mut Report) {
    for _ in 0..terms.rounds {
        for (slots, backends) in SIZES.into_iter().filter(|(slots, _)| *slots <= terms.most_slots) {
            let (empty, active) = (vec![SlotWord::EMPTY; slots as usize], locals(0, backends));
            let built = middle(terms.repeat, || drop(black_box(sticky(black_box(&empty), black_box(&active)))));
            let names = names(backends);
            let maglev = middle(terms.repeat, || drop(black_box(maglev(slots, black_box(&names)))));
            let to = maglev_row(slots, backends);
            report.note((&format!("{}: built", size(slots, backends)), "us"), built, Some(&to));
            report.note((&to, "us"), maglev, None);
        }
    }
}

/// In microseconds.
fn middle(repeat: u32, mut work: impl FnMut()) -> f64 {
    median((0..repeat).map(|_| timed(&mut work).0).collect())
}
