//! `xlb-bench agent`: how the agent does in a large cluster, as a part of this process and as the real binary.
//!
//! Each round builds the same cluster anew. The test API server runs in this process, and shares its CPUs with what is
//! measured: the figures are an upper bound.

#[path = "agent/churn.rs"]
mod churn;
#[path = "agent/listener.rs"]
mod listener;
#[path = "agent/parts.rs"]
mod parts;
#[path = "agent/whole.rs"]
mod whole;
#[path = "agent/probed.rs"]
mod probed;

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::report::Report;
use crate::scale::Scale;

/// One figure of one round.
pub(super) struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
}

impl Figure {
    fn ms(name: &str, time: Duration) -> Figure {
        Figure { name: name.to_owned(), unit: "ms", value: time.as_secs_f64() * 1e3 }
    }

    fn mib(name: impl Into<String>, bytes: u64) -> Figure {
        Figure { name: name.into(), unit: "MiB", value: bytes as f64 / f64::from(1 << 20) }
    }
}

/// Measures whole rounds.
pub fn measure(scale: Scale, changes: u32, rounds: usize) -> Result<Report> {
    let mut report = Report::default();
    for round in 1..=rounds {
        let mut figures = parts::measure(scale).with_context(|| format!("round {round}, in this process"))?;
        figures.extend(listener::measure(scale, changes).with_context(|| format!("round {round}, a client"))?);
        figures.extend(whole::measure(scale, changes).with_context(|| format!("round {round}, the real agent"))?);
        for Figure { name, unit, value } in figures {
            report.note((&name, unit), value, None);
        }
    }
    Ok(report)
}
