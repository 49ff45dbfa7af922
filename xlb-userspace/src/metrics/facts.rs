//! The numbers behind the metrics, as values.

use std::collections::BTreeMap;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use xlb_common::Reason;

use super::model::ModelCounts;
use crate::agent::sweeper::Board;
use crate::events::RefusalKind;
use crate::maps::fill::Fill;
use crate::maps::stats::ServiceNumbers;
use crate::plan::desired::{Family, Refusal};
use crate::plan::{Limits, Observed};

/// What the agent knows.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How long rounds took, in seconds.
    pub sync_duration: Histogram,
    /// From what made a controller change a slice to the maps that follow it, in seconds.
    pub programming: Histogram,
    /// Rounds that failed.
    pub sync_failures: u64,
    /// Operations that only a check of everything found.
    pub missed: u64,
    /// When a round completed last, in seconds since 1970; zero: never.
    pub last_sync_s: f64,
    /// When something changed last, in seconds since 1970; zero: never.
    pub last_queued_s: f64,
    /// Each kind that is followed, with completed lists and failed requests.
    pub watches: Vec<(&'static str, u64, u64)>,
    /// Events that the API server took, and those that it did not.
    pub events: (u64, u64),
    /// What Kubernetes asks for.
    pub asked: ModelCounts,
    /// What the maps hold.
    pub served: Served,
    /// What is refused.
    pub refusals: BTreeMap<RefusalKind, usize>,
    /// The program for which this agent's own ones do not serve; none: they do.
    pub refused_program: Option<String>,
    /// What became of flows that were over.
    pub swept: Board,
    /// Open health ports.
    pub health_ports: usize,
    /// How often the configuration was read again while the agent ran: taken, and refused.
    pub reloads: (u64, u64),
    /// Answers of the health server by path and status.
    pub answers: BTreeMap<(&'static str, u16), u64>,
}

/// What the maps hold that the agent writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Service ports.
    pub services: usize,
    /// Addresses with port and protocol.
    pub frontends: usize,
    /// Pod ports.
    pub backends: usize,
    /// How full the maps are.
    pub fills: Vec<Fill>,
}

/// What only the kernel knows.
#[derive(Clone, Debug, Default)]
pub struct MapFacts {
    /// Packets and events by reason.
    pub counters: Vec<(Reason, u64)>,
    /// Completed updates of the maps.
    pub generation: u64,
    /// What was counted of services; none: they are not counted.
    pub services: Option<ServiceNumbers>,
    /// How full the maps are that the kernel fills.
    pub fills: Vec<Fill>,
}

impl Default for Facts {
    /// Before the first round.
    fn default() -> Self {
        Self {
            // 0.5 ms to 16 s, and 1 ms to 131 s.
            sync_duration: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
            programming: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            sync_failures: 0,
            missed: 0,
            last_sync_s: 0.0,
            last_queued_s: 0.0,
            watches: Vec::new(),
            events: (0, 0),
            asked: ModelCounts::default(),
            served: Served::default(),
            refusals: BTreeMap::new(),
            refused_program: None,
            swept: Board::default(),
            health_ports: 0,
            reloads: (0, 0),
            answers: BTreeMap::new(),
        }
    }
}

/// How many refusals there are of each kind.
#[must_use]
pub fn by_kind(refusals: &[Refusal]) -> BTreeMap<RefusalKind, usize> {
    let mut kinds = BTreeMap::new();
    for refusal in refusals {
        *kinds.entry(RefusalKind::of(refusal)).or_default() += 1;
    }
    kinds
}

impl Served {
    /// What the maps hold, as the agent knows it.
    #[must_use]
    pub fn of(observed: &Observed, limits: &Limits) -> Self {
        let in_use = observed.backends.values().filter(|backend| backend.is_in_use()).count();
        let regions = |length: fn(&crate::plan::observed::ObservedService) -> u32| {
            observed.services.values().map(|service| u64::from(length(service))).sum()
        };
        let fill = |map, entries: u64, capacity: u32| Fill { map, entries, capacity: capacity.into() };
        let (services, frontends) = (observed.services.len(), observed.frontends.len());
        let of = |family: Family| {
            let frontends = observed.frontends.keys().filter(|key| Family::of(key.socket.ip()) == family).count();
            let ranges = observed.source_ranges.values().flatten();
            (frontends as u64, ranges.filter(|range| Family::of(range.addr()) == family).count() as u64)
        };
        let inside = |family: Family| {
            let entries = observed.inside.entries.keys().filter(|key| key.family() == family).count();
            let regions = observed.inside.regions.range((family, 0)..=(family, u32::MAX));
            (entries as u64, regions.map(|(_, region)| region.endpoints.len() as u64).sum())
        };
        let ((inside_v4, endpoints_v4), (inside_v6, endpoints_v6)) = (inside(Family::V4), inside(Family::V6));
        let ((frontends_v4, ranges_v4), (frontends_v6, ranges_v6)) = (of(Family::V4), of(Family::V6));
        let fills = vec![
            fill("FRONTENDS_V4", frontends_v4, limits.frontends),
            fill("FRONTENDS_V6", frontends_v6, limits.frontends),
            fill("SOURCE_RANGES_V4", ranges_v4, limits.source_ranges),
            fill("SOURCE_RANGES_V6", ranges_v6, limits.source_ranges),
            fill("INSIDE_V4", inside_v4, limits.frontends),
            fill("INSIDE_V6", inside_v6, limits.frontends),
            fill("ENDPOINTS_V4", endpoints_v4, limits.endpoints),
            fill("ENDPOINTS_V6", endpoints_v6, limits.endpoints),
            fill("SERVICES", services as u64, limits.services),
            fill("SLOTS", regions(|service| service.slots), limits.slots),
            fill("MEMBERS", regions(|service| service.members), limits.members),
            fill("BACKENDS", in_use as u64, limits.backends),
        ];
        Self { services, frontends, backends: in_use, fills }
    }
}
