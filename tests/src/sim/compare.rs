//! All designs in all scenarios, over many seeds: a row for each pair.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use xlb_common::abi::FLOWS_MAX;

use super::peers::Peer;
use super::run::run;
use super::scenario::{SCENARIOS, Scenario};
use super::tally::{Tally, Violation};
use super::xlb::Xlb;

/// Most flows of one run: some 1100 in a second.
pub const RUN_FLOWS_MAX: u64 = 200_000;
/// Entries of the tables of connections that others have.
const ENTRIES: u32 = 1 << 20;

/// A design of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Maglev alone.
    Maglev,
    /// Maglev beside a table that every new connection fills.
    Lru,
    /// The same with Katran's guard.
    Guard,
    /// xlb as it is.
    Xlb,
    /// xlb where nobody outside addresses pods (`--pod-ips cluster-only`).
    XlbClusterOnly,
}

impl Contender {
    /// All, in the order of the table.
    pub const ALL: [Self; 5] = [Self::Maglev, Self::Lru, Self::Guard, Self::Xlb, Self::XlbClusterOnly];

    /// In the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Lru => "lru-1m",
            Self::Guard => "guard-1m",
            Self::Xlb => "xlb",
            Self::XlbClusterOnly => "xlb-cluster-only",
        }
    }

    /// One run; xlb's maps are as large as `--max-flows` makes them.
    #[must_use]
    pub fn run(self, scenario: Scenario, seed: u64, flows: u64, explains: usize, max_flows: u32) -> Tally {
        match self {
            Self::Maglev => run(Peer::stateless(), scenario, seed, flows, explains),
            Self::Lru => run(Peer::lru(ENTRIES), scenario, seed, flows, explains),
            Self::Guard => run(Peer::guarded(ENTRIES), scenario, seed, flows, explains),
            Self::Xlb => run(Xlb::new(max_flows), scenario, seed, flows, explains),
            Self::XlbClusterOnly => run(Xlb::with_pods_of_cluster(max_flows), scenario, seed, flows, explains),
        }
    }
}

/// What to compare.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Flows of each row.
    pub flows: u64,
    /// Seed of a row's first run; the others follow.
    pub seed: u64,
    /// A row, a design or a scenario; none: everything.
    pub only: Option<String>,
    /// Violations of each run that are told in sentences.
    pub explains: usize,
    /// Runs at a time.
    pub threads: usize,
    /// `--max-flows` of xlb.
    pub max_flows: u32,
}

/// A design in a scenario.
#[derive(Clone, Debug)]
pub struct Row {
    /// `design/scenario`.
    pub name: String,
    /// Sums over all runs.
    pub sum: Tally,
    /// Violations in a million flows of each run.
    pub per_million: Vec<f64>,
    /// Seeds of the runs with violations, and how many there were.
    pub seeds: Vec<(u64, u64)>,
    /// Flows of each run.
    pub run_flows: u64,
    /// `--max-flows` of xlb.
    pub max_flows: u32,
    /// Time that its runs took, one after the other.
    pub seconds: f64,
}

/// Runs every row.
#[must_use]
pub fn compare(terms: &Terms) -> Vec<Row> {
    let pairs: Vec<(Contender, Scenario)> = SCENARIOS
        .into_iter()
        .flat_map(|scenario| Contender::ALL.map(|contender| (contender, scenario)))
        .filter(|(contender, scenario)| is_wanted(terms, *contender, scenario))
        .collect();
    let runs = terms.flows.div_ceil(RUN_FLOWS_MAX).max(1);
    let run_flows = terms.flows.div_ceil(runs);
    let jobs: Vec<(usize, u64)> = (0..pairs.len()).flat_map(|pair| (0..runs).map(move |run| (pair, run))).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..terms.threads.max(1) {
            scope.spawn(|| {
                while let Some(&(pair, run)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (contender, scenario) = pairs[pair];
                    let started = Instant::now();
                    let tally = contender.run(scenario, terms.seed + run, run_flows, terms.explains, terms.max_flows);
                    let result = (pair, run, tally, started.elapsed().as_secs_f64());
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
                }
            });
        }
    });
    let mut results = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(pair, run, ..)| (*pair, *run));
    let mut rows: Vec<Row> =
        pairs.iter().map(|(contender, scenario)| empty(*contender, scenario, run_flows, terms.max_flows)).collect();
    for (pair, run, tally, seconds) in results {
        rows[pair].add(terms.seed + run, &tally, seconds);
    }
    rows
}

fn is_wanted(terms: &Terms, contender: Contender, scenario: &Scenario) -> bool {
    let Some(only) = &terms.only else { return true };
    only == contender.name() || only == scenario.name || *only == row_name(contender, scenario)
}

fn row_name(contender: Contender, scenario: &Scenario) -> String {
    format!("{}/{}", contender.name(), scenario.name)
}

fn empty(contender: Contender, scenario: &Scenario, run_flows: u64, max_flows: u32) -> Row {
    let (sum, per_million, seeds) = (Tally::default(), Vec::new(), Vec::new());
    Row { name: row_name(contender, scenario), sum, per_million, seeds, run_flows, max_flows, seconds: 0.0 }
}

impl Row {
    fn add(&mut self, seed: u64, tally: &Tally, seconds: f64) {
        self.sum.add(tally);
        self.per_million.push(tally.per_million());
        self.seconds += seconds;
        if tally.broken() > 0 {
            self.seeds.push((seed, tally.broken()));
        }
    }

    /// The command that repeats its first run with violations.
    #[must_use]
    pub fn replay(&self) -> Option<String> {
        let (seed, _) = self.seeds.first()?;
        let terms = format!("--flows {} --seed {seed} --only {}", self.run_flows, self.name);
        Some(if self.max_flows == FLOWS_MAX { terms } else { format!("{terms} --max-flows {}", self.max_flows) })
    }
}

/// The table, and below it how to repeat what went wrong.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![format!(
        "{:<20} {:>9} {:>10} {:>10} {:>8} {:>6} {:>6} {:>6} {:>9}  {}",
        "", "flows", "violations", "in 10^6", "moved", "wrong", "hung", "late", "flows/s", "causes"
    )];
    for row in rows {
        let sum = &row.sum;
        lines.push(format!(
            "{:<20} {:>9} {:>10} {:>10.1} {:>8} {:>6} {:>6} {:>6} {:>9.0}  {}",
            row.name,
            sum.flows,
            sum.broken(),
            sum.per_million(),
            sum.of(Violation::Moved),
            sum.of(Violation::Misdelivered),
            sum.of(Violation::Hung),
            sum.of(Violation::Late),
            sum.flows as f64 / row.seconds.max(1e-9),
            sum.causes_in_words(),
        ));
    }
    lines.push(String::new());
    lines.extend(
        rows.iter().filter_map(Row::replay).map(|terms| format!("replay: cargo xtask bench sim {terms} --explain")),
    );
    lines.extend(rows.iter().flat_map(|row| row.sum.examples.iter().map(|text| format!("{}: {text}", row.name))));
    lines.join("\n")
}

/// The object of `-o json`: rows as those of the other benches, with what only this one counts.
#[must_use]
pub fn json(rows: &[Row], env: &Value) -> Value {
    let rows = rows.iter().map(|row| {
        let mut sorted = row.per_million.clone();
        sorted.sort_by(f64::total_cmp);
        let causes: serde_json::Map<String, Value> =
            row.sum.causes.iter().map(|(cause, count)| (cause.name().to_owned(), json!(count))).collect();
        json!({
            "name": row.name,
            "unit": "violations in 10^6 flows",
            "median": sorted.get(sorted.len() / 2),
            "min": sorted.first(),
            "max": sorted.last(),
            "runs": sorted.len(),
            "flows": row.sum.flows,
            "violations": row.sum.broken(),
            "share": row.sum.per_million() / 1e6,
            "moved": row.sum.of(Violation::Moved),
            "misdelivered": row.sum.of(Violation::Misdelivered),
            "hung": row.sum.of(Violation::Hung),
            "late": row.sum.of(Violation::Late),
            "causes": causes,
            "ended_with_pod": row.sum.ended_with_pod,
            "unanswered": row.sum.unanswered,
            "packets": row.sum.packets,
            "operations": row.sum.operations,
            "crashes": row.sum.crashes,
            "seconds": row.seconds,
            "replay": row.replay(),
        })
    });
    json!({ "env": env, "rows": rows.collect::<Vec<_>>() })
}
