//! A service that changes: its plan, and what that writes into the kernel's maps.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::stage::{Extent, Stage, Took};
use super::{Terms, alone, maglev_row, median, size};
use crate::bench::report::Report;

/// Backends of the service.
pub const BACKENDS: u32 = 100;
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
            alone::measure(bench.terms, (bench.stage, slots), bench.report)?;
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

/// Each change of one kind.
#[derive(Default)]
struct Times {
    both: Vec<Duration>,
    planned: Vec<Duration>,
    written: Vec<Duration>,
    by_calls: Vec<Duration>,
    words: usize,
}

impl Bench<'_> {
    /// A new service of so many backends, of which [`BACKENDS`] stay.
    fn begin(&mut self, most: u32) -> Result<()> {
        let mut times = Times::default();
        for _ in 0..self.terms.repeat.div_ceil(WHOLE_EVERY) {
            self.stage.end_service()?;
            self.stage.add_pods(most);
            times.add(self.stage, Extent::Part)?;
        }
        let (what, to) = (format!("{}, all new", size(self.slots, most)), maglev_row(self.slots, BACKENDS));
        self.note(&what, times, &to);
        ensure!(self.stage.slot_count() == self.slots, "the service has {} slots", self.stage.slot_count());
        if most > BACKENDS {
            self.stage.remove_oldest((most - BACKENDS) as usize);
            self.stage.follow(Extent::Part)?;
        }
        Ok(())
    }

    /// So often a new pod comes, and then the oldest goes.
    fn replace(&mut self, extent: Extent, count: u32) -> Result<()> {
        let [mut added, mut removed] = [Times::default(), Times::default()];
        for _ in 0..count {
            self.stage.add_pods(1);
            added.add(self.stage, extent)?;
            self.stage.remove_oldest(1);
            removed.add(self.stage, extent)?;
        }
        let to = maglev_row(self.slots, BACKENDS);
        for (what, times) in [("one more", added), ("one less", removed)] {
            let what = format!("{}, {what}", size(self.slots, BACKENDS));
            match extent {
                Extent::Part => self.note(&what, times, &to),
                Extent::Whole => {
                    let name = format!("{what}: the same in a round for all");
                    self.report.note((&name, "us"), median(times.both), None);
                }
            }
        }
        Ok(())
    }

    /// The rows of a kind of change.
    fn note(&mut self, what: &str, times: Times, maglev: &str) {
        let [both, planned, written, by_calls, words] =
            ["planned and written", "planned", "written", "its words by bpf(2) each", "words"]
                .map(|row| format!("{what}: {row}"));
        self.report.note((&words, "words"), times.words as f64 / times.both.len() as f64, None);
        self.report.note((&both, "us"), median(times.both), Some(maglev));
        self.report.note((&planned, "us"), median(times.planned), None);
        self.report.note((&written, "us"), median(times.written), Some(&by_calls));
        self.report.note((&by_calls, "us"), median(times.by_calls), None);
    }
}

impl Times {
    /// Does what is asked for, and its words once more as calls.
    fn add(&mut self, stage: &mut Stage, extent: Extent) -> Result<()> {
        let Took { planned, written, words } = stage.follow(extent)?;
        self.both.push(planned + written);
        self.planned.push(planned);
        self.written.push(written);
        self.words += words.len();
        self.by_calls.push(stage.write_by_calls(&words)?);
        Ok(())
    }
}
