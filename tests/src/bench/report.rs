//! Rows of a measurement, as a table for people and as JSON for `bench --compare`.

pub mod compare;

use std::fs;

use serde_json::{Value, json};

/// Net cost of the established path of Katran's XDP program in this harness, one flow, on a machine whose empty program
/// took 28 ns. On another machine only the order of magnitude can be compared.
pub const KATRAN_NS: f64 = 120.0;

/// Columns of a row's name, unless one needs more.
const NAME_WIDTH: usize = 52;

/// One measured thing.
#[derive(Clone, Debug)]
pub struct Row {
    /// What.
    pub name: String,
    /// Unit of the figures.
    pub unit: &'static str,
    /// One figure for each round.
    pub rounds: Vec<f64>,
    /// Name of the row it is compared with.
    pub baseline: Option<String>,
}

/// Everything measured in one run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The rows, in the order of the table.
    pub rows: Vec<Row>,
}

impl Row {
    /// The figure in the middle.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// How one row stands to another, round by round: what disturbs both in a round disturbs this less.
    #[must_use]
    pub fn ratio_of(name: String, above: &Row, below: &Row) -> Row {
        let pairs = above.rounds.iter().zip(&below.rounds);
        Row { name, unit: "ratio", rounds: pairs.map(|(above, below)| above / below).collect(), baseline: None }
    }

    fn min(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn max(&self) -> f64 {
        self.rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

impl Report {
    /// Adds a figure to the row of this name and unit, which is made if there is none.
    pub fn note(&mut self, (name, unit): (&str, &'static str), figure: f64, baseline: Option<&str>) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.rounds.push(figure),
            None => {
                let baseline = baseline.map(str::to_owned);
                self.rows.push(Row { name: name.to_owned(), unit, rounds: vec![figure], baseline });
            }
        }
    }

    /// The median of a row over that of its baseline; none without a baseline, or if that is not above nothing.
    #[must_use]
    pub fn ratio(&self, row: &Row) -> Option<f64> {
        let baseline = self.rows.iter().find(|other| Some(&other.name) == row.baseline.as_ref())?.median();
        (baseline > 0.0).then(|| row.median() / baseline)
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.name_width(28);
        let mut lines = vec![format!(
            "{:<width$} {:>8} {:>8} {:>8} {:>8}  {:<width$} {:>8}",
            "ns per packet, net", "median", "min", "max", "ratio", "to", "katran"
        )];
        for row in &self.rows {
            lines.push(format!(
                "{:<width$} {:>8.1} {:>8.1} {:>8.1} {:>8}  {:<width$} {:>8.2}",
                row.name,
                row.median(),
                row.min(),
                row.max(),
                self.ratio(row).map_or(String::new(), |ratio| format!("{ratio:.2}")),
                row.baseline.as_deref().unwrap_or_default(),
                row.median() / KATRAN_NS
            ));
        }
        lines.join("\n")
    }

    fn name_width(&self, min: usize) -> usize {
        self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default().max(min)
    }

    /// The table of figures that no packet's cost can be compared with.
    #[must_use]
    pub fn plain_table(&self) -> String {
        let is_compared = self.rows.iter().any(|row| row.baseline.is_some());
        let names = if is_compared { format!(" {:>8}  to", "ratio") } else { String::new() };
        let width = self.name_width(NAME_WIDTH);
        let mut lines =
            vec![format!("{:<width$} {:>6} {:>10} {:>10} {:>10}{names}", "", "unit", "median", "min", "max")];
        for row in &self.rows {
            let (name, unit, median, min, max) = (&row.name, row.unit, row.median(), row.min(), row.max());
            let ratio = self.ratio(row).zip(row.baseline.as_deref());
            let ratio = ratio.map_or(String::new(), |(ratio, to)| format!(" {ratio:>8.2}  {to}"));
            // Some targets are ratios of hundredths.
            let digits = if unit == "ratio" { 3 } else { 2 };
            lines.push(format!(
                "{name:<width$} {unit:>6} {median:>10.digits$} {min:>10.digits$} {max:>10.digits$}{ratio}"
            ));
        }
        lines.join("\n")
    }

    /// The object of `-o json`.
    #[must_use]
    pub fn json(&self, env: &Value) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "name": row.name,
                "unit": row.unit,
                "median": row.median(),
                "min": row.min(),
                "max": row.max(),
                "runs": row.rounds.len(),
                "baseline": row.baseline,
                "ratio": self.ratio(row),
            })
        });
        json!({ "env": env, "rows": rows.collect::<Vec<_>>() })
    }
}

/// Where the run was made.
#[must_use]
pub fn env(repeat: u32, rounds: usize) -> Value {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": model.unwrap_or("unknown"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "load": read("/proc/loadavg").split(' ').next().unwrap_or_default(),
        "jit": read("/proc/sys/net/core/bpf_jit_enable"),
        "repeat": repeat,
        "rounds": rounds,
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "katran_ns": KATRAN_NS,
    })
}

/// The surroundings, as `name value` pairs.
#[must_use]
pub fn one_line(env: &Value) -> String {
    let pairs = env.as_object().into_iter().flatten();
    pairs.map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"'))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_compared_with_the_median_of_its_baseline() {
        let row = |name: &str, rounds: &[f64], baseline: Option<&str>| Row {
            name: name.to_owned(),
            unit: "ns",
            rounds: rounds.to_vec(),
            baseline: baseline.map(str::to_owned),
        };
        let report = Report { rows: vec![row("a", &[1.0, 9.0, 2.0], None), row("b", &[3.0, 5.0], Some("a"))] };
        assert_eq!(report.ratio(&report.rows[1]), Some(2.0));
        assert_eq!(report.json(&json!({}))["rows"][1]["ratio"], 2.0);
        assert_eq!(Row::ratio_of("b over a".to_owned(), &report.rows[1], &report.rows[0]).rounds, [3.0, 5.0 / 9.0]);
    }
}
