//! Counters in the OpenMetrics text format, for a textfile collector. The agent's own port is to serve the same.

use std::path::Path;

use anyhow::Result;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use xlb_common::Reason;
use xlb_common::reason::Direction;

use crate::agent::report::Report;
use crate::maps::live::LiveMaps;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
    direction: &'static str,
}

/// The metrics of a dataplane.
///
/// # Errors
/// When the kernel refuses to read.
pub fn text(maps: &LiveMaps, bpffs_dir: &Path) -> Result<String> {
    let mut registry = Registry::with_prefix("xlb");
    let packets = Family::<ReasonLabels, Counter>::default();
    for (reason, count) in maps.counters()? {
        packets.get_or_create(&labels(reason)).inc_by(count);
    }
    registry.register("packets", "Packets, and events of pods' sockets, by what became of them", packets);
    let gauge = |registry: &mut Registry, name: &str, help: &str, value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge(&mut registry, "generation", "Completed updates of the maps", maps.config()?.generation as i64);
    if let Some(report) = Report::read(bpffs_dir) {
        gauge(
            &mut registry,
            "last_sync_timestamp_seconds",
            "When the maps were last in sync",
            report.in_sync_at_s as i64,
        );
        gauge(&mut registry, "refusals", "Things asked for and not done", report.refusals.len() as i64);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn labels(reason: Reason) -> ReasonLabels {
    let direction = match reason.direction() {
        Direction::Forward => "forward",
        Direction::Return => "return",
        Direction::Socket => "socket",
    };
    ReasonLabels { reason: reason.label(), direction }
}
