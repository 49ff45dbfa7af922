//! `xlb-bench pps`: nanoseconds for which a packet of 64 bytes keeps a CPU busy on its way into a pod, without any socket.
//!
//! The generator makes packets with live frames, and all that follows runs in its softirqs: so the time that the kernel
//! says a packet took is that of the whole way, making it and counting it included. Packets that were lost on the way cost less
//! than others, so each run says how many arrived.

#[path = "pps/case.rs"]
mod case;
#[path = "pps/post.rs"]
mod post;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use self::case::{Case, Traffic};
use self::post::Post;
use super::report::{Report, Row};
use super::ways::SERVICES;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Packets of each case and round; of a new flow by iptables, which takes 50 times as long as others, a part of them.
    pub packets: u32,
    /// Interleaved rounds.
    pub rounds: usize,
    /// Services of kube-proxy and of xlb.
    pub services: u32,
}

impl Terms {
    /// What the bench does, unless told otherwise.
    pub const TARGET: Terms = Terms { packets: 200_000, rounds: 5, services: SERVICES };
}

/// What came of it.
pub struct Outcome {
    /// The rows: each case with each traffic, then the ratios of the targets P5a and P5b, and those of watching.
    pub report: Report,
    /// Packets that were sent and that arrived, over all rounds, by row.
    pub passed: BTreeMap<String, Passed>,
    /// What watchers said as they ended, by case, if they did.
    pub told: BTreeMap<String, String>,
}

/// Packets of a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// How many the generator was told to make.
    pub sent: u64,
    /// How many were counted.
    pub arrived: u64,
}

impl Passed {
    /// Whether more than one in a hundred is missing.
    #[must_use]
    pub fn is_lossy(self) -> bool {
        self.arrived * 100 < self.sent * 99
    }
}

impl Outcome {
    /// A sentence for each row that lost packets, and each watcher that did not get all: what it says is less than the way costs.
    #[must_use]
    pub fn losses(&self) -> String {
        let lossy = self.passed.iter().filter(|(_, passed)| passed.is_lossy());
        let lossy =
            lossy.map(|(row, Passed { sent, arrived })| format!("{row}: {arrived} of {sent} packets arrived\n"));
        lossy.chain(self.told.iter().map(|(case, said)| format!("{case}: {said}"))).collect()
    }
}

/// Measures in interleaved rounds, so that noise hits all alike, one kind of traffic after the other.
pub fn measure(terms: Terms) -> Result<Outcome> {
    let cases = Case::all(terms.services);
    let mut posts = cases.into_iter().map(Post::new).collect::<Result<Vec<_>>>()?;
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut passed: BTreeMap<String, Passed> = BTreeMap::new();
    // One flow before all others: a flood of SYNs leaves times hot for xlb, in which each packet costs more.
    for traffic in Traffic::ALL {
        for round in 0..=terms.rounds {
            for post in &mut posts {
                let name = post.case().row(traffic);
                let run = post.run(traffic, terms.packets).with_context(|| format!("measuring {name}"))?;
                // The first round fills caches and neighbour tables.
                if round > 0 {
                    let sum = passed.entry(name.clone()).or_default();
                    *sum = Passed { sent: sum.sent + run.passed.sent, arrived: sum.arrived + run.passed.arrived };
                    figures.entry(name).or_default().push(run.ns);
                }
            }
        }
    }
    let cases: Vec<Case> = posts.iter().map(|post| post.case().clone()).collect();
    let mut told = BTreeMap::new();
    for post in &mut posts {
        let said = post.end().with_context(|| format!("ending {}", post.case().name))?;
        if !said.is_empty() {
            told.insert(post.case().name.clone(), said);
        }
    }
    Ok(Outcome { report: report(&cases, terms.services, &figures), passed, told })
}

fn report(cases: &[Case], services: u32, figures: &BTreeMap<String, Vec<f64>>) -> Report {
    let rows = Traffic::ALL.into_iter().flat_map(|traffic| {
        let baseline = cases.iter().find(|case| case.is_plain()).map(|case| case.row(traffic));
        cases.iter().map(move |case| {
            let name = case.row(traffic);
            let baseline = baseline.clone().filter(|baseline| *baseline != name);
            Row { unit: "ns", rounds: figures[&name].clone(), baseline, name }
        })
    });
    let rows: Vec<Row> = rows.collect();
    let ratios = case::ratios(services).into_iter().filter_map(|(name, above, below)| {
        let find = |name: &str| rows.iter().find(|row| row.name == name);
        Some(Row::ratio_of(name, find(&above)?, find(&below)?))
    });
    let ratios: Vec<Row> = ratios.collect();
    Report { rows: rows.into_iter().chain(ratios).collect() }
}
