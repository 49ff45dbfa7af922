//! One look at the maps.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use xlb_common::Reason;
use xlb_common::abi::{COUNTED_SERVICES_MAX, ServiceStats};
use xlb_common::tables::FlowTable;

use crate::agent::report::Report;
use crate::cli::services::{self, ShareView};
use crate::maps::fill::{Fill, fill};
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::metrics::scrape::FILLED_MAPS;
use crate::plan::Observed;

/// How full the maps are, and which flows there are, is looked at so often: that costs more than the rest.
const FLOWS_INTERVAL: Duration = Duration::from_secs(5);
/// Reading all services anew takes a while on a node with many: so many times that long they are left alone.
const OBSERVED_RESTS: u32 = 10;
/// Flows of one table that are told apart by their pods. With more, only their number is told.
const FLOWS_MAX: usize = 20_000;

/// What the maps say at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Seconds since the first look.
    pub at_s: f64,
    /// Service ports, by name.
    pub services: BTreeMap<String, ServiceLook>,
    /// What was counted of the services without numbers of their own; none: no service is counted.
    pub others: Option<ServiceStats>,
    /// Packets and events by reason.
    pub counters: BTreeMap<Reason, u64>,
    /// How full the maps of flows are.
    pub fills: Vec<Fill>,
}

/// A Service port.
#[derive(Clone, Debug, Default)]
pub struct ServiceLook {
    /// What was counted; none: it has no numbers of its own.
    pub stats: Option<ServiceStats>,
    /// Its slots; zero: the only backend gets everything.
    pub slots: u32,
    /// Its backends, with flows that are open at each; none: there are too many to count.
    pub backends: Vec<(ShareView, Option<u64>)>,
}

/// Looks again and again, and remembers what seldom changes.
pub struct Looker {
    pins: PinDirectory,
    began: Instant,
    maps: LiveMaps,
    observed: Observed,
    observed_again_at: Instant,
    flows: BTreeMap<SocketAddr, u64>,
    are_flows_counted: bool,
    fills: Vec<Fill>,
    flows_at: Option<Instant>,
}

impl Looker {
    /// Opens the maps.
    ///
    /// # Errors
    /// When there is no dataplane, or this process may not read it.
    pub fn open(pins: PinDirectory) -> Result<Self> {
        let maps = LiveMaps::open(&pins)?;
        let observed = maps.observed()?;
        Ok(Self {
            pins,
            began: Instant::now(),
            maps,
            observed,
            observed_again_at: Instant::now(),
            flows: BTreeMap::new(),
            are_flows_counted: false,
            fills: Vec::new(),
            flows_at: None,
        })
    }

    /// What the maps say now.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn look(&mut self) -> Result<Look> {
        let is_due = Instant::now() >= self.observed_again_at;
        if is_due && self.maps.config()?.generation != self.observed.generation {
            let began = Instant::now();
            self.observed = self.maps.observed()?;
            self.observed_again_at = Instant::now() + began.elapsed() * OBSERVED_RESTS;
        }
        if self.flows_at.is_none_or(|at| at.elapsed() >= FLOWS_INTERVAL) {
            self.look_at_flows();
        }
        // An agent that starts may count other services than the one before it.
        let counted = Report::read(self.pins.root()).map_or(COUNTED_SERVICES_MAX, |report| report.counted_services);
        let views = services::views(&self.observed, |_| None);
        let services = self.observed.services.keys().zip(views).map(|(&id, view)| {
            let backends = view.backends.into_iter().map(|share| {
                let flows = self.are_flows_counted.then(|| self.flows.get(&share.address).copied().unwrap_or_default());
                (share, flows)
            });
            let stats = self.maps.service_stats(id, counted);
            (view.name, ServiceLook { stats, slots: view.slots, backends: backends.collect() })
        });
        Ok(Look {
            services: services.collect(),
            others: (counted > 0).then(|| self.maps.service_numbers(0)).transpose()?.map(|numbers| numbers.others),
            counters: self.maps.counters()?.into_iter().collect(),
            fills: self.fills.clone(),
            at_s: self.began.elapsed().as_secs_f64(),
        })
    }

    fn look_at_flows(&mut self) {
        self.fills = FILLED_MAPS.into_iter().filter_map(|map| fill(&self.pins, map).ok()).collect();
        self.flows.clear();
        self.are_flows_counted = true;
        for table in [FlowTable::Tcp, FlowTable::Udp, FlowTable::Sctp] {
            let seen: Vec<_> = self.maps.flows(table).take(FLOWS_MAX + 1).collect();
            self.are_flows_counted &= seen.len() <= FLOWS_MAX;
            for flow in seen.iter().filter(|flow| !flow.entry.is_closed()) {
                *self.flows.entry(flow.pod).or_default() += 1;
            }
        }
        self.flows_at = Some(Instant::now());
    }
}
