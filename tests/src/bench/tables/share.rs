//! How many slots move when a backend leaves or comes, and how many a backend has. Nothing here is a time.

use xlb_common::slot::{MEMBERS_PER_SERVICE_MAX, SlotWord};
use xlb_userspace::plan::maglev::maglev;
use xlb_userspace::plan::sticky::sticky;

use super::{Terms, but, fresh, locals, names, size, without};
use crate::bench::report::Report;

/// Slots and backends.
const SIZES: [(u32, u32); 4] = [(4093, 100), (16_381, 100), (16_381, 160), (65_537, 254)];
/// Backends that come in the place of others, one after the other.
const REPLACED: usize = 1000;
const SLOTS: &str = "slots";

/// Counts for each size.
pub fn count(terms: &Terms, report: &mut Report) {
    for (slots, backends) in SIZES.into_iter().filter(|(slots, _)| *slots <= terms.most_slots) {
        one_leaves(slots, backends, report);
        fullest(slots, backends, report);
        many_are_replaced(slots, backends, report);
    }
}

/// A figure for every backend that may leave. No table moves fewer slots than that one has.
fn one_leaves(slots: u32, backends: u32, report: &mut Report) {
    let row = |what: &str| format!("{}: {what}", size(slots, backends));
    let (least, moved_row, maglev_row) =
        (row("one leaves, has"), row("one leaves, moved"), row("one leaves, moved by Maglev"));
    let (all, words) = (locals(0, backends), fresh(slots, backends));
    let (names, by_maglev) = (sorted_names(backends), maglev_owners(slots, &sorted_names(backends)));
    for gone in 0..backends as usize {
        let held = words.iter().filter(|word| word.current() == Some(gone as u8)).count();
        let after = sticky(&without(&words, gone as u8), &but(&all, gone));
        let others = but(&names, gone);
        report.note((&least, SLOTS), held as f64, None);
        report.note((&moved_row, SLOTS), moved(&owners(&words), &owners(&after)), Some(&least));
        report.note((&maglev_row, SLOTS), moved(&by_maglev, &maglev_owners(slots, &others)), Some(&least));
    }
}

/// How many slots the backend with most of them has.
fn fullest(slots: u32, backends: u32, report: &mut Report) {
    let row = |what: &str| format!("{}: {what}", size(slots, backends));
    let (words, at_best) = (fresh(slots, backends), row("most slots of one, at best"));
    let most = most_of_one(&owners(&words));
    report.note((&at_best, SLOTS), f64::from(slots.div_ceil(backends)), None);
    report.note((&row("most slots of one"), SLOTS), most, Some(&at_best));
    report.note((&row("most slots of one over the mean"), "x"), most * f64::from(backends) / f64::from(slots), None);
    let by_maglev = maglev_owners(slots, &sorted_names(backends));
    report.note((&row("most slots of one, Maglev"), SLOTS), most_of_one(&by_maglev), Some(&at_best));
}

/// A rolling update that goes on and on: one comes, then the oldest goes. One that comes takes an even share, rounded down,
/// at the least; one that goes leaves what it has.
fn many_are_replaced(slots: u32, backends: u32, report: &mut Report) {
    let indexes = backends as usize + 1;
    if indexes > MEMBERS_PER_SERVICE_MAX {
        return;
    }
    let row = |what: &str| format!("{}, {REPLACED} replaced: {what}", size(slots, backends));
    let (mut words, mut least, mut sum, mut most) = (fresh(slots, backends), 0.0, 0.0, 0.0_f64);
    for step in 0..REPLACED {
        let (oldest, everybody) = (step % indexes, locals(0, backends + 1));
        let grown = sticky(&words, &everybody);
        let held = grown.iter().filter(|word| word.current() == Some(oldest as u8)).count();
        let shrunk = sticky(&without(&grown, oldest as u8), &but(&everybody, oldest));
        least += f64::from(slots / (backends + 1)) + held as f64;
        sum += moved(&owners(&words), &owners(&grown)) + moved(&owners(&grown), &owners(&shrunk));
        most = most.max(most_of_one(&owners(&shrunk)));
        words = shrunk;
    }
    report.note((&row("moved, at best"), SLOTS), least, None);
    report.note((&row("moved"), SLOTS), sum, Some(&row("moved, at best")));
    let at_best = format!("{}: most slots of one, at best", size(slots, backends));
    report.note((&row("most slots of one"), SLOTS), most, Some(&at_best));
}

fn owners(words: &[SlotWord]) -> Vec<Option<u8>> {
    words.iter().map(|word| word.current()).collect()
}

/// In the order in which Maglev numbers them.
fn sorted_names(backends: u32) -> Vec<(String, u16)> {
    let mut names = names(backends);
    names.sort_unstable();
    names
}

fn maglev_owners(slots: u32, sorted: &[(String, u16)]) -> Vec<String> {
    maglev(slots, sorted).into_iter().map(|place| sorted[usize::from(place)].0.clone()).collect()
}

fn moved<T: PartialEq>(before: &[T], after: &[T]) -> f64 {
    before.iter().zip(after).filter(|(before, after)| before != after).count() as f64
}

fn most_of_one<T: Ord + Clone>(owners: &[T]) -> f64 {
    let mut sorted = owners.to_vec();
    sorted.sort_unstable();
    sorted.chunk_by(|one, other| one == other).map(<[T]>::len).max().unwrap_or_default() as f64
}
