//! The smallest change: a table in memory, and the words that differ in the kernel's map. Nothing else is planned or written.

use anyhow::Result;
use xlb_common::slot::SlotWord;
use xlb_userspace::plan::sticky::sticky;

use super::change::BACKENDS;
use super::stage::Stage;
use super::{Terms, but, fresh, locals, maglev_row, median, size, timed, without};
use crate::bench::report::Report;

/// A backend comes, and then the oldest goes, again and again.
pub fn measure(terms: &Terms, (stage, slots): (&mut Stage, u32), report: &mut Report) -> Result<()> {
    let (mut words, everybody) = (fresh(slots, BACKENDS), locals(0, BACKENDS + 1));
    let [mut more, mut less] = [Vec::new(), Vec::new()];
    for step in 0..terms.repeat {
        let oldest = (step % (BACKENDS + 1)) as usize;
        let rest = but(&everybody, oldest);
        let (time, grown) = timed(|| written(stage, &words, sticky(&words, &everybody)));
        more.push(time);
        words = grown?;
        let (time, shrunk) = timed(|| written(stage, &words, sticky(&without(&words, oldest as u8), &rest)));
        less.push(time);
        words = shrunk?;
    }
    let to = maglev_row(slots, BACKENDS);
    for (what, times) in [("one more", more), ("one less", less)] {
        let name = format!("{}, {what}: table alone, written", size(slots, BACKENDS));
        report.note((&name, "us"), median(times), Some(&to));
    }
    Ok(())
}

/// The table, of which those words are written that differ.
fn written(stage: &mut Stage, before: &[SlotWord], after: Vec<SlotWord>) -> Result<Vec<SlotWord>> {
    let base = stage.last_slots(after.len() as u32);
    for (index, (_, &word)) in (base..).zip(before.iter().zip(&after)).filter(|(_, (before, after))| before != after) {
        stage.write_word(index, word)?;
    }
    Ok(after)
}
