//! `xlb metrics`: counters in the OpenMetrics text format, for a textfile collector, also while no agent runs. A running agent serves
//! more of them itself (`--metrics-address`).

use std::path::Path;

use anyhow::Result;
use prometheus_client::registry::Registry;

use super::PinArgs;
use super::output::print;
use crate::agent::report::Report;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::metrics::facts::by_kind;
use crate::metrics::services::services;
use crate::metrics::text;

/// Prints the metrics of a dataplane.
///
/// # Errors
/// When there is none, or the kernel refuses to read.
pub fn show(args: PinArgs) -> Result<()> {
    let pins = PinDirectory::new(args.bpffs_dir);
    print(&text(&LiveMaps::open(&pins)?, pins.root())?).map(drop)
}

fn text(maps: &LiveMaps, bpffs_dir: &Path) -> Result<String> {
    let mut registry = Registry::with_prefix("xlb");
    text::packets(&mut registry, &maps.counters()?);
    text::generation(&mut registry, maps.config()?.generation);
    if let Some(report) = Report::read(bpffs_dir) {
        text::last_sync(&mut registry, report.in_sync_at_s as f64);
        text::refusals(&mut registry, &by_kind(&report.refusals));
        if report.counted_services > 0 {
            services(&mut registry, &maps.service_numbers(report.counted_services)?);
        }
    }
    Ok(text::written(&registry)?)
}
