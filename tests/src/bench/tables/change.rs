//! A service that changes: its plan, and what that writes into the kernel's maps.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::{Extent, Stage, Took};
use super::{Terms, maglev_row, micros, size};
use crate::bench::report::Report;

/// Backends of the service.
const BACKENDS: u32 = 100;
/// Slots of a service that never had more, and of one that had [`MOST`].
const SLOTS: [u32; 2] = [4093, 16_381];
/// So many get the larger table.
const MOST: u32 = 200;
/// For so many changes planned for the service alone one is planned for all.
const WHOLE_EVERY: u32 = 10;

/// Lets the service change, and a pod come in the place of the oldest again and again.
pub fn measure(terms: &Terms, report: &mut Report) -> Result<()> {
    let sizes = SLOTS.into_iter().zip([BACKENDS, MOST]).filter(|(slots, _)| *slots <= terms.most_slots);
    for (slots, most) in sizes {
        let mut stage = Stage::new(terms.others)?;
        for _ in 0..terms.rounds {
            let mut bench = Bench { stage: &mut stage, terms, slots, report: &mut *report };
            bench.begin(most)?;
            bench.replace(Extent::Part, terms.repeat)?;
            bench.replace(Extent::Whole, terms.repeat.div_ceil(WHOLE_EVERY))?;
        }
    }
    Ok(())
}

/// Measurements of tables of one size.
struct Bench<'a> {
    stage: &'a mut Stage,
    terms: &'a Terms,
    slots: u32,
    report: &'a mut Report,
}

/// Times of changes of one kind.
#[derive(Default)]
struct Sum {
    planned: Duration,
    written: Duration,
    by_calls: Duration,
    words: usize,
}

impl Bench<'_> {
    /// A new service of so many backends, of which [`BACKENDS`] stay.
    fn begin(&mut self, most: u32) -> Result<()> {
        let (mut sum, times) = (Sum::default(), self.terms.repeat.div_ceil(WHOLE_EVERY));
        for _ in 0..times {
            self.stage.end_service()?;
            self.stage.add_pods(most);
            sum.add(self.stage, Extent::Part)?;
        }
        let (what, to) = (format!("{}, all new", size(self.slots, most)), maglev_row(self.slots, BACKENDS));
        self.note(&what, &sum, times, &to);
        ensure!(self.stage.slot_count() == self.slots, "the service has {} slots", self.stage.slot_count());
        if most > BACKENDS {
            self.stage.remove_oldest((most - BACKENDS) as usize);
            self.stage.follow(Extent::Part)?;
        }
        Ok(())
    }

    /// So often a new pod comes, and then the oldest goes.
    fn replace(&mut self, extent: Extent, times: u32) -> Result<()> {
        let [mut added, mut removed] = [Sum::default(), Sum::default()];
        for _ in 0..times {
            self.stage.add_pods(1);
            added.add(self.stage, extent)?;
            self.stage.remove_oldest(1);
            removed.add(self.stage, extent)?;
        }
        let to = maglev_row(self.slots, BACKENDS);
        for (what, sum) in [("one more", added), ("one less", removed)] {
            let what = format!("{}, {what}", size(self.slots, BACKENDS));
            match extent {
                Extent::Part => self.note(&what, &sum, times, &to),
                Extent::Whole => {
                    let both = micros((sum.planned + sum.written) / times);
                    self.report.note((&format!("{what}: the same in a round for all"), "us"), both, None);
                }
            }
        }
        Ok(())
    }

    /// The rows of a kind of change.
    fn note(&mut self, what: &str, sum: &Sum, times: u32, maglev: &str) {
        let [both, planned, written, by_calls, words] =
            ["planned and written", "planned", "written", "its words by bpf(2) each", "words"]
                .map(|row| format!("{what}: {row}"));
        let mean = |time: Duration| micros(time / times);
        self.report.note((&both, "us"), mean(sum.planned + sum.written), Some(maglev));
        self.report.note((&planned, "us"), mean(sum.planned), None);
        self.report.note((&written, "us"), mean(sum.written), Some(&by_calls));
        self.report.note((&by_calls, "us"), mean(sum.by_calls), None);
        self.report.note((&words, "words"), sum.words as f64 / f64::from(times), None);
    }
}

impl Sum {
    /// Does what is asked for, and its words once more as calls.
    fn add(&mut self, stage: &mut Stage, extent: Extent) -> Result<()> {
        let Took { planned, written, words } = stage.follow(extent)?;
        self.planned += planned;
        self.written += written;
        self.words += words.len();
        self.by_calls += stage.write_by_calls(&words)?;
        Ok(())
    }
}
