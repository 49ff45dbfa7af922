//! Reading the maps when somebody asks for metrics, and not more often than it pays.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::debug;
use xlb_common::Reason;

use super::facts::MapFacts;
use crate::maps::fill::{Fill, fill};
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;

/// Whoever asks sooner is told the same counters again.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(1);
/// The same for how full the maps are: looking costs some milliseconds with large maps.
const FILLS_INTERVAL: Duration = Duration::from_secs(15);

/// The maps that the kernel fills.
pub const FILLED_MAPS: [&str; 20] = [
    "FLOWS_V4",
    "PENDING_V4",
    "UDP_FLOWS_V4",
    "UDP_PENDING_V4",
    "SCTP_FLOWS_V4",
    "SCTP_PENDING_V4",
    "FLOWS_V6",
    "PENDING_V6",
    "UDP_FLOWS_V6",
    "UDP_PENDING_V6",
    "SCTP_FLOWS_V6",
    "SCTP_PENDING_V6",
    "AFFINITY_V4",
    "AFFINITY_V6",
    "FRAGMENTS_V4",
    "FRAGMENTS_V6",
    "INSIDE_AFFINITY",
    "INSIDE_FLOWS",
    "INSIDE_UDP_FLOWS",
    "NETNS_ADDRESSES",
];

/// Reads the maps of a pin directory.
pub struct Scraper {
    pins: PinDirectory,
    counted_services: u32,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    read: Option<Instant>,
    filled: Option<Instant>,
    facts: Option<MapFacts>,
}

impl Scraper {
    /// Of this pin directory; it may hold nothing yet. So many services have numbers of their own; zero: none is counted.
    #[must_use]
    pub fn new(pins: PinDirectory, counted_services: u32) -> Self {
        Self { pins, counted_services, last: Mutex::default() }
    }

    /// What the maps say; none: they are not there yet, or cannot be read.
    #[must_use]
    pub fn facts(&self) -> Option<MapFacts> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |at: Option<Instant>, interval| at.is_none_or(|at: Instant| at.elapsed() >= interval);
        if !is_due(last.read, COUNTERS_INTERVAL) {
            return last.facts.clone();
        }
        let fills = match last.facts.take() {
            Some(facts) if !is_due(last.filled, FILLS_INTERVAL) => facts.fills,
            _ => {
                last.filled = Some(Instant::now());
                self.fills()
            }
        };
        last.facts = self.read(fills).inspect_err(|error| debug!("metrics: {error:#}")).ok();
        last.read = last.facts.is_some().then(Instant::now);
        last.facts.clone()
    }

    /// The counters alone, as they are now; none as above.
    #[must_use]
    pub fn counters(&self) -> Option<Vec<(Reason, u64)>> {
        let read = LiveMaps::open(&self.pins).and_then(|maps| maps.counters());
        read.inspect_err(|error| debug!("counters: {error:#}")).ok()
    }

    fn read(&self, fills: Vec<Fill>) -> Result<MapFacts> {
        let maps = LiveMaps::open(&self.pins)?;
        let counted = self.counted_services;
        let services = (counted > 0).then(|| maps.service_numbers(counted)).transpose()?;
        Ok(MapFacts { counters: maps.counters()?, generation: maps.config()?.generation, services, fills })
    }

    fn fills(&self) -> Vec<Fill> {
        let fill = |map| fill(&self.pins, map).inspect_err(|error| debug!("metrics: {error:#}")).ok();
        FILLED_MAPS.into_iter().filter_map(fill).collect()
    }
}
