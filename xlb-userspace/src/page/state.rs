//! Everything that the page draws, as one document: `/api/v1/state`. `docs/PAGE.md` says what each field means.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use xlb_common::Reason;
use xlb_common::abi::ServiceStats;

use super::advice::advice;
use super::ask::Wanted;
use super::happened::Log;
use super::history::{SAMPLE_INTERVAL, SAMPLES_MAX, Steps};
use super::shown::{Row, Share, Shown};
use crate::cli::services::TrafficView;
use crate::events::RefusalKind;
use crate::events::kind::service_of;
use crate::maps::fill::Fill;
use crate::maps::spread::Spread;
use crate::metrics::MapFacts;
use crate::model::ObjectName;
use crate::plan::desired::{Refusal, WhenEmpty};

/// Most refusals, and things that wait, of an answer.
const REFUSALS_MAX: usize = 200;

/// What the document is made of.
pub struct Sources<'a> {
    /// The agent and its health.
    pub agent: Agent,
    /// What it serves.
    pub shown: &'a Shown,
    /// How full the maps are that it writes.
    pub fills: &'a [Fill],
    /// What the kernel counted; none: the maps are not there yet.
    pub maps: Option<&'a MapFacts>,
    /// With which backends the flows are; none: nobody has looked yet.
    pub spread: Option<&'a Spread>,
    /// The last hour.
    pub steps: Steps,
    /// What is refused, and was.
    pub log: &'a Log,
    /// What is done later.
    pub waiting: &'a [Refusal],
}

/// The agent.
#[derive(Clone, Debug, Serialize)]
pub struct Agent {
    /// Its version.
    pub version: &'static str,
    /// Name of its node.
    pub node_name: String,
    /// Its uplinks with their front doors, such as `eth0 (veth): tc`.
    pub uplinks: Vec<String>,
    /// What the clock of the node says, in seconds since 1970.
    pub now_s: f64,
    /// When the maps were last equal to what is asked for; zero: never.
    pub in_sync_at_s: f64,
    /// As `/livez` says.
    pub is_healthy: bool,
    /// As `/readyz` says.
    pub is_ready: bool,
    /// Service ports in the maps, as `xlb_services`.
    pub services: usize,
    /// Addresses with port and protocol in the maps, as `xlb_frontends`.
    pub frontends: usize,
    /// Pod ports in the maps, as `xlb_backends`.
    pub backends: usize,
}

/// The document.
#[derive(Debug, Serialize)]
pub struct State<'a> {
    agent: Agent,
    services: Services<'a>,
    reasons: Vec<ReasonView>,
    history: HistoryView,
    maps: Vec<MapView>,
    refusals: Vec<RefusalView<'a>>,
    refusals_total: usize,
    waiting: Vec<RefusalView<'a>>,
    waiting_total: usize,
    events: Vec<EventView<'a>>,
}

#[derive(Debug, Serialize)]
struct Services<'a> {
    total: usize,
    found: usize,
    from: usize,
    rows: Vec<ServiceView<'a>>,
}

#[derive(Debug, Serialize)]
struct ServiceView<'a> {
    name: String,
    state: &'static str,
    why: Option<&'static str>,
    frontends: Vec<String>,
    delivery: Option<&'static str>,
    when_empty: Option<WhenEmpty>,
    slots: u32,
    backends: Vec<ShareView>,
    traffic: Option<TrafficView>,
    warnings: Vec<RefusalView<'a>>,
}

#[derive(Debug, Serialize)]
struct ShareView {
    address: String,
    delivery: &'static str,
    interface: Option<String>,
    sockets_hidden: bool,
    slots: u32,
    former_slots: u32,
    /// Of new connections.
    share: f64,
    flows: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ReasonView {
    reason: &'static str,
    count: u64,
    is_drop: bool,
    sentence: &'static str,
    advice: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct HistoryView {
    interval_s: u64,
    kept_s: u64,
    begun_s: Vec<u64>,
    ended_s: u64,
    delivered: Vec<u64>,
    replied: Vec<u64>,
    drops: BTreeMap<&'static str, Vec<u64>>,
}

#[derive(Debug, Serialize)]
struct MapView {
    map: &'static str,
    entries: u64,
    capacity: u64,
    may_be_full: bool,
}

#[derive(Debug, Serialize)]
struct RefusalView<'a> {
    kind: &'static str,
    object: &'a str,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct EventView<'a> {
    at_s: u64,
    what: &'static str,
    #[serde(flatten)]
    refusal: RefusalView<'a>,
}

/// The document, of which the services are a part.
#[must_use]
pub fn state<'a>(sources: &'a Sources<'a>, wanted: &Wanted, interface: impl Fn(u32) -> String) -> State<'a> {
    let Sources { maps, log, .. } = sources;
    let fills = sources.fills.iter().chain(maps.iter().flat_map(|maps| &maps.fills));
    State {
        agent: sources.agent.clone(),
        services: services(sources, wanted, interface),
        reasons: reasons(maps.map_or(&[], |maps| &maps.counters)),
        history: history(&sources.steps),
        maps: fills.map(map_view).collect(),
        refusals: log.refused().iter().take(REFUSALS_MAX).map(refusal_view).collect(),
        refusals_total: log.refused().len(),
        waiting: sources.waiting.iter().take(REFUSALS_MAX).map(refusal_view).collect(),
        waiting_total: sources.waiting.len(),
        events: log.entries().map(event_view).collect(),
    }
}

/// What is served, and Services of which nothing is, as all of it is refused. Those with something to look at come first.
fn services<'a>(sources: &'a Sources<'a>, wanted: &Wanted, interface: impl Fn(u32) -> String) -> Services<'a> {
    let mut refused: BTreeMap<ObjectName, Vec<&Refusal>> = BTreeMap::new();
    for refusal in sources.log.refused() {
        if let Some(object) = service_of(refusal) {
            refused.entry(object).or_default().push(refusal);
        }
    }
    let numbers = sources.maps.and_then(|maps| maps.services.as_ref());
    let numbers: HashMap<&str, &ServiceStats> =
        numbers.into_iter().flat_map(|numbers| &numbers.own).map(|(name, stats)| (name.as_str(), stats)).collect();
    let served = if refused.is_empty() { BTreeSet::new() } else { sources.shown.objects() };
    let unserved = refused.iter().filter(|(object, _)| !served.contains(object));
    let unserved = unserved.map(|(object, refusals)| (object.to_string(), None, &refusals[..]));
    let of = |row: &Row| {
        let object = if refused.is_empty() { None } else { row.object() };
        object.and_then(|object| refused.get(&object)).map_or(&[][..], |all| &all[..])
    };
    let rows = sources.shown.services.iter().map(|row| (row.name.clone(), Some(row), of(row)));
    let mut all: Vec<_> = unserved.chain(rows).collect();
    let total = all.len();
    all.retain(|(name, row, _)| wanted.find.is_empty() || is_found(name, *row, &wanted.find));
    let has_backend = |row: Option<&Row>| row.is_some_and(|row| !row.backends.is_empty());
    // Stable: by name within each rank.
    all.sort_by_key(|(_, row, refusals)| match () {
        () if !refusals.is_empty() => 0,
        () if has_backend(*row) => 1,
        () => 2,
    });
    let found = all.len();
    let part = all.into_iter().skip(wanted.from).take(wanted.limit);
    let rows = part.map(|(name, row, refusals)| ServiceView {
        traffic: numbers.get(name.as_str()).map(|&stats| TrafficView::from(stats)),
        warnings: refusals.iter().map(|refusal| refusal_view(refusal)).collect(),
        ..service_view(name, row, sources.spread, &interface)
    });
    Services { total, found, from: wanted.from, rows: rows.collect() }
}

fn is_found(name: &str, row: Option<&Row>, text: &str) -> bool {
    let frontends = || row.into_iter().flat_map(|row| &row.frontends);
    name.to_lowercase().contains(text) || frontends().any(|frontend| frontend.to_string().contains(text))
}

fn service_view<'a>(
    name: String,
    row: Option<&Row>,
    spread: Option<&Spread>,
    interface: impl Fn(u32) -> String,
) -> ServiceView<'a> {
    let (state, why) = judged(row);
    let of_row = || row.into_iter().flat_map(|row| &row.backends);
    let delivery = match (of_row().any(|share| share.is_direct), of_row().any(|share| !share.is_direct)) {
        (true, true) => Some("mixed"),
        (true, false) => Some("direct"),
        (false, true) => Some("stack"),
        (false, false) => None,
    };
    ServiceView {
        name,
        state,
        why,
        frontends: row.into_iter().flat_map(|row| &row.frontends).map(ToString::to_string).collect(),
        delivery,
        when_empty: row.map(|row| row.when_empty),
        slots: row.map_or(0, |row| row.slots),
        backends: row.map_or_else(Vec::new, |row| {
            row.backends.iter().map(|share| share_view(row, share, spread, &interface)).collect()
        }),
        traffic: None,
        warnings: Vec::new(),
    }
}

/// In a word, and why it takes no new connections.
fn judged(row: Option<&Row>) -> (&'static str, Option<&'static str>) {
    let Some(row) = row else { return ("refused", Some("nothing of it is served: see its warnings")) };
    if row.frontends.is_empty() {
        return ("leaving", Some("it has no address any more; its connections go on until they end"));
    }
    if row.takes_new() {
        return ("serving", None);
    }
    let why = match row.when_empty {
        WhenEmpty::Pass => "no usable pod on this node (externalTrafficPolicy Cluster): left to kube-proxy",
        WhenEmpty::Drop => {
            "no usable pod on this node (externalTrafficPolicy Local): new connections are dropped, so that clients retry elsewhere"
        }
        WhenEmpty::Reject => "no usable pod in the whole cluster: new connections are refused",
    };
    (if row.backends.is_empty() { "empty" } else { "draining" }, Some(why))
}

fn share_view(row: &Row, share: &Share, spread: Option<&Spread>, interface: impl Fn(u32) -> String) -> ShareView {
    ShareView {
        address: share.address.to_string(),
        delivery: if share.is_direct { "direct" } else { "stack" },
        interface: (share.ifindex != 0).then(|| interface(share.ifindex)),
        sockets_hidden: share.is_hidden,
        slots: share.slots,
        former_slots: share.former_slots,
        share: if row.slots == 0 { 1.0 } else { f64::from(share.slots) / f64::from(row.slots) },
        flows: spread.map(|spread| spread.of(row.id, share.id)),
    }
}

fn reasons(counters: &[(Reason, u64)]) -> Vec<ReasonView> {
    let happened = counters.iter().filter(|(_, count)| *count > 0);
    let view = |&(reason, count): &(Reason, u64)| ReasonView {
        reason: reason.label(),
        count,
        is_drop: reason.is_drop(),
        sentence: reason.sentence(),
        advice: advice(reason),
    };
    happened.map(view).collect()
}

fn history(steps: &Steps) -> HistoryView {
    HistoryView {
        interval_s: SAMPLE_INTERVAL.as_secs(),
        kept_s: SAMPLE_INTERVAL.as_secs() * (SAMPLES_MAX as u64 - 1),
        begun_s: steps.begun_s.clone(),
        ended_s: steps.ended_s,
        delivered: steps.delivered.clone(),
        replied: steps.replied.clone(),
        drops: steps.drops.iter().map(|(reason, counts)| (reason.label(), counts.clone())).collect(),
    }
}

fn map_view(fill: &Fill) -> MapView {
    let may_be_full = fill.map.contains("PENDING") || fill.map.contains("PLACES");
    MapView { map: fill.map, entries: fill.entries, capacity: fill.capacity, may_be_full }
}

fn refusal_view(refusal: &Refusal) -> RefusalView<'_> {
    RefusalView { kind: RefusalKind::of(refusal).label(), object: &refusal.object, why: &refusal.why }
}

fn event_view(happened: &super::happened::Happened) -> EventView<'_> {
    let what = if happened.has_come { "came" } else { "settled" };
    EventView { at_s: happened.at_s, what, refusal: refusal_view(&happened.refusal) }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
