//! The lines that people read: one for each case, and the sum.

use std::collections::BTreeMap;
use std::fmt;

use super::case::{Case, Defaults, File};
use super::missing::Feature;
use super::run::{self, Terms, Verdict};

/// A case and what it came to.
#[derive(Debug)]
pub struct Row {
    /// Of the case.
    pub id: String,
    /// Of the case.
    pub name: String,
    /// What it came to.
    pub verdict: Verdict,
    /// Packets that went through the loaded programs as well.
    pub packets_in_kernel: usize,
}

/// Runs the cases whose id matches, in order.
pub fn rows<'a>(file: &'a File, glob: &'a str, terms: &'a Terms) -> impl Iterator<Item = Row> + 'a {
    let rows = file.scenarios.iter().enumerate();
    rows.filter_map(|(index, value)| row(index, value, &file.defaults, glob, terms))
}

fn row(index: usize, value: &serde_yaml_ng::Value, defaults: &Defaults, glob: &str, terms: &Terms) -> Option<Row> {
    let compared = || terms.kernel.as_ref().map_or(0, |kernel| kernel.packets());
    let before = compared();
    let text = |key: &str| value.get(key).and_then(|text| text.as_str()).map(str::to_owned);
    let id = text("id").unwrap_or_else(|| format!("number {index}"));
    if !matches(glob.as_bytes(), id.as_bytes()) {
        return None;
    }
    let name = text("name").unwrap_or_default();
    Some(match serde_yaml_ng::from_value::<Case>(value.clone()) {
        Ok(case) => {
            let (verdict, notes) = run::run(&case, defaults, terms);
            let notes = notes.into_iter().filter(|_| verdict == Verdict::Passed);
            let notes: String = notes.map(|note| format!(" ({note})")).collect();
            let packets_in_kernel = compared() - before;
            let is_without_kernel = terms.kernel.is_some() && packets_in_kernel == 0 && verdict == Verdict::Passed;
            let note = if is_without_kernel && !case.is_about_health() { " (in memory only)" } else { "" };
            Row { id, name: name + &notes + note, verdict, packets_in_kernel }
        }
        Err(error) => {
            let verdict = Verdict::Unsupported(format!("it cannot be read: {error}"));
            Row { id, name, verdict, packets_in_kernel: 0 }
        }
    })
}

/// `*` stands for anything, `?` for one character.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, _) => text.is_empty(),
        (Some((b'*', rest)), None) => matches(rest, text),
        (Some((b'*', rest)), Some((_, tail))) => matches(rest, text) || matches(glob, tail),
        (Some((b'?', rest)), Some((_, tail))) => matches(rest, tail),
        (Some((wanted, rest)), Some((found, tail))) => wanted == found && matches(rest, tail),
        (Some(_), None) => false,
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, why) = match &self.verdict {
            Verdict::Passed => ("pass", String::new()),
            Verdict::Failed(why) => ("FAIL", format!(": {why}")),
            Verdict::NotYet(features) => {
                ("not yet", format!(": {}", features.iter().copied().collect::<Vec<_>>().join(", ")))
            }
            Verdict::Unsupported(why) => ("unsupported", format!(": {why}")),
        };
        write!(f, "{:<8} {word:<11} {}{why}", self.id, self.name)
    }
}

/// How many cases came to what.
#[derive(Debug, Default)]
pub struct Summary {
    passed: usize,
    failed: usize,
    unsupported: usize,
    not_yet: usize,
    features: BTreeMap<Feature, usize>,
    cases_in_kernel: usize,
    packets_in_kernel: usize,
}

impl Summary {
    /// Counts a case.
    pub fn add(&mut self, row: &Row) {
        self.cases_in_kernel += usize::from(row.packets_in_kernel > 0);
        self.packets_in_kernel += row.packets_in_kernel;
        match &row.verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(_) => self.failed += 1,
            Verdict::Unsupported(_) => self.unsupported += 1,
            Verdict::NotYet(features) => {
                self.not_yet += 1;
                for feature in features {
                    *self.features.entry(feature).or_default() += 1;
                }
            }
        }
    }

    /// Whether something ran, and all that xlb can do is as expected.
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.unsupported == 0 && self.passed + self.not_yet > 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, unsupported, not_yet, features, .. } = self;
        if !features.is_empty() {
            let counts = features.iter().map(|(feature, count)| format!("{feature} {count}"));
            writeln!(
                f,
                "not yet, by what is missing (a case may miss several): {}",
                counts.collect::<Vec<_>>().join(", ")
            )?;
        }
        if self.packets_in_kernel > 0 {
            let Self { cases_in_kernel: cases, packets_in_kernel: packets, .. } = self;
            writeln!(
                f,
                "in the kernel as well: {packets} packets of {cases} cases; the others send none, or none that xlb can handle yet"
            )?;
        }
        write!(f, "scenarios: {passed} passed, {failed} failed, {not_yet} not yet, {unsupported} unsupported")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_whole_ids() {
        for (glob, id, expected) in [
            ("*", "SEL-001", true),
            ("SEL-*", "SEL-001", true),
            ("SEL-*", "LSR-001", false),
            ("*-001", "SEL-001", true),
            ("SEL-00?", "SEL-001", true),
            ("SEL-00?", "SEL-0011", false),
            ("SEL", "SEL-001", false),
            ("", "SEL-001", false),
        ] {
            assert_eq!(matches(glob.as_bytes(), id.as_bytes()), expected, "{glob} {id}");
        }
    }
}
