//! The numbers as OpenMetrics text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use xlb_common::Reason;
use xlb_common::reason::Direction;

use super::facts::{Facts, MapFacts, Served};
use super::model::{EndpointState, ModelCounts};
use super::services::services;
use crate::ageing::Why;
use crate::agent::sweeper::Board;
use crate::events::RefusalKind;
use crate::maps::fill::Fill;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values of labels.
type Labels<const N: usize> = [(&'static str, String); N];

/// Everything, as far as it is known: the maps may not be there yet.
///
/// # Errors
/// When a number cannot be written as text.
pub fn text(facts: &Facts, maps: Option<&MapFacts>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("xlb");
    build(&mut registry);
    rounds(&mut registry, facts);
    asked(&mut registry, &facts.asked);
    served(&mut registry, &facts.served);
    refusals(&mut registry, &facts.refusals);
    let refused = facts.refused_program.iter().map(|program| ([("program", program.clone())], 1));
    gauges(&mut registry, "programs_refused", "The program for which those of the agent before serve on", refused);
    swept(&mut registry, &facts.swept);
    reloads(&mut registry, facts.reloads);
    health(&mut registry, facts);
    cluster(&mut registry, facts);
    if let Some(maps) = maps {
        packets(&mut registry, &maps.counters);
        generation(&mut registry, maps.generation);
        if let Some(numbers) = &maps.services {
            services(&mut registry, numbers);
        }
    }
    fills(&mut registry, facts.served.fills.iter().chain(maps.iter().flat_map(|maps| &maps.fills)));
    written(&registry)
}

/// A registry as text.
///
/// # Errors
/// When a number cannot be written as text.
pub fn written(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(text)
}

fn build(registry: &mut Registry) {
    let info = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The agent", info);
}

fn rounds(registry: &mut Registry, facts: &Facts) {
    let help = "Time that rounds took: each makes the maps equal to what is asked for";
    registry.register_with_unit("sync_duration", help, Unit::Seconds, facts.sync_duration.clone());
    let help = "Time from what changed an EndpointSlice to the maps that follow it";
    registry.register_with_unit("network_programming_duration", help, Unit::Seconds, facts.programming.clone());
    counter(registry, "sync_failures", "Rounds that failed", facts.sync_failures);
    let help = "Changes that rounds about some Services missed and a check of everything found: a mistake in xlb";
    counter(registry, "missed_changes", help, facts.missed);
    last_sync(registry, facts.last_sync_s);
    let help = "When something that may change the maps was told last";
    seconds(registry, "last_queued_timestamp", help, facts.last_queued_s);
}

/// When the maps were in sync last.
pub fn last_sync(registry: &mut Registry, last_sync_s: f64) {
    seconds(registry, "last_sync_timestamp", "When the maps were last in sync", last_sync_s);
}

fn asked(registry: &mut Registry, asked: &ModelCounts) {
    let places = [("local", true), ("elsewhere", false)];
    let keys = EndpointState::ALL.into_iter().flat_map(|state| places.map(|(place, is_here)| (state, place, is_here)));
    let endpoints = keys.map(|(state, place, is_here)| {
        let count = asked.endpoints.get(&(state, is_here)).copied().unwrap_or(0);
        ([("state", state.label().into()), ("place", place.into())], count as u64)
    });
    gauges(registry, "endpoints", "Endpoints of Services that ask for an external address", endpoints);
    let count = [([("traffic_policy", "external".into())], asked.without_local_endpoints as u64)];
    let help = "Service ports with externalTrafficPolicy Local and usable endpoints, but none on this node";
    gauges(registry, "services_without_local_endpoints", help, count);
}

fn served(registry: &mut Registry, served: &Served) {
    gauge(registry, "services", "Service ports in the maps", served.services as u64);
    gauge(registry, "frontends", "Addresses with port and protocol in the maps", served.frontends as u64);
    gauge(registry, "backends", "Pod ports in the maps", served.backends as u64);
}

/// What is asked for and not done, by kind; each kind is there, also when there is none.
pub fn refusals(registry: &mut Registry, refusals: &BTreeMap<RefusalKind, usize>) {
    let count = |kind: RefusalKind| refusals.get(&kind).copied().unwrap_or(0) as u64;
    let kinds = RefusalKind::ALL.into_iter().map(|kind| ([("kind", kind.label().into())], count(kind)));
    gauges(registry, "refusals", "Things asked for and not done", kinds);
}

fn swept(registry: &mut Registry, board: &Board) {
    let label = |map: &str| ("map", map.to_owned());
    // Each cause is there for each map that was swept, also when nothing was removed for it.
    let causes = board.sweeps.keys().flat_map(|&map| Why::ALL.map(|why| (map, why)));
    let removed = causes.map(|(map, why)| {
        let count = board.removed.get(&(map, why)).copied().unwrap_or(0);
        ([label(map), ("why", why.label().to_owned())], count)
    });
    counters(registry, "flows_removed", "Flows that were over, and were removed from the maps", removed);
    let sweeps = board.sweeps.iter().map(|(map, count)| ([label(map)], *count));
    counters(registry, "flow_sweeps", "Walks through the maps of flows", sweeps);
    let busy = Family::<Labels<1>, Gauge<f64, AtomicU64>>::default();
    for (map, seconds) in &board.busy_s {
        busy.get_or_create(&[label(map)]).set(*seconds);
    }
    registry.register_with_unit("flow_sweep_work", "CPU time of the last walk through a map", Unit::Seconds, busy);
}

fn reloads(registry: &mut Registry, (taken, refused): (u64, u64)) {
    let counts =
        [("taken", taken), ("refused", refused)].map(|(outcome, count)| ([("outcome", outcome.to_owned())], count));
    counters(registry, "config_reloads", "How often the configuration was read again, by what became of it", counts);
}

fn health(registry: &mut Registry, facts: &Facts) {
    gauge(registry, "health_check_node_ports", "Open health check ports of Services", facts.health_ports as u64);
    let answers = facts
        .answers
        .iter()
        .map(|((path, status), count)| ([("path", (*path).to_owned()), ("code", status.to_string())], *count));
    counters(registry, "health_answers", "Answers of the health server", answers);
}

fn cluster(registry: &mut Registry, facts: &Facts) {
    let of = |count: fn(&(&'static str, u64, u64)) -> u64| {
        facts.watches.iter().map(move |watch| ([("resource", watch.0.to_owned())], count(watch)))
    };
    counters(registry, "watch_lists", "Complete lists from the API server", of(|(_, lists, _)| *lists));
    let help = "Requests to the API server that failed, and watches that broke";
    counters(registry, "watch_errors", help, of(|(.., failures)| *failures));
    let (posted, failed) = facts.events;
    let events = [("posted", posted), ("failed", failed)];
    let events = events.map(|(outcome, count)| ([("outcome", outcome.to_owned())], count));
    counters(registry, "events", "Kubernetes events, by whether the API server took them", events);
}

/// What became of packets.
pub fn packets(registry: &mut Registry, counts: &[(Reason, u64)]) {
    let labels = |reason: Reason| {
        let direction = match reason.direction() {
            Direction::Forward => "forward",
            Direction::Return => "return",
            Direction::Socket => "socket",
            Direction::Inside => "inside",
        };
        [("reason", reason.label().to_owned()), ("direction", direction.to_owned())]
    };
    let counts = counts.iter().map(|(reason, count)| (labels(*reason), *count));
    counters(registry, "packets", "Packets, and events of pods' sockets, by what became of them", counts);
}

/// How often the maps were updated.
pub fn generation(registry: &mut Registry, generation: u64) {
    gauge(registry, "generation", "Completed updates of the maps", generation);
}

fn fills<'a>(registry: &mut Registry, fills: impl Iterator<Item = &'a Fill> + Clone) {
    let of = |count: fn(&Fill) -> u64| fills.clone().map(move |fill| ([("map", fill.map.to_owned())], count(fill)));
    let help = "Entries of the maps; of those with many flows an estimate from a sample";
    gauges(registry, "map_entries", help, of(|fill| fill.entries));
    gauges(registry, "map_capacity", "Entries that the maps can hold", of(|fill| fill.capacity));
}

fn seconds(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register_with_unit(name, help, Unit::Seconds, gauge);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value as i64);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn gauges<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<N>, u64)>,
) {
    let family = Family::<Labels<N>, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value as i64);
    }
    registry.register(name, help, family);
}

pub(super) fn counters<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<N>, u64)>,
) {
    let family = Family::<Labels<N>, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}
