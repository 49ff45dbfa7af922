//! The kernel programs' counters: each packet is counted once, under the reason why it went where it went.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;
use xlb_common::Reason;
use xlb_common::reason::Disposition;

use super::stage::Stage;
use super::telling::table;

/// Counts by the label of their reason.
pub type Counters = BTreeMap<&'static str, u64>;

/// Shows what was counted since `before`, and returns the counters.
pub fn show_since(stage: &Stage, before: &Counters) -> Result<Counters> {
    let now = read(&stage.agent.inspect()?);
    let grown = |reason: &&Reason| count(&now, **reason) > count(before, **reason);
    let grown: Vec<Reason> = Reason::ALL.iter().filter(grown).copied().collect();
    let row = |reason: &Reason| {
        let packets = count(&now, *reason) - count(before, *reason);
        [packets.to_string(), reason.label().to_owned(), reason.sentence().to_owned()]
    };
    table(["count", "reason", "meaning"], &grown.iter().map(row).collect::<Vec<_>>());
    let forwarded = grown.iter().any(|reason| reason.disposition() == Disposition::Forward);
    ensure!(forwarded, "the kernel programs forwarded nothing: the answers came another way");
    Ok(now)
}

fn read(maps: &Value) -> Counters {
    Reason::ALL.iter().filter_map(|reason| Some((reason.label(), maps["counters"][reason.label()].as_u64()?))).collect()
}

fn count(counters: &Counters, reason: Reason) -> u64 {
    counters.get(reason.label()).copied().unwrap_or_default()
}
