//! With which backends the remembered flows are: of large maps by a sample, as [`fill`](crate::maps::fill) counts them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aya::maps::MapData;
use bytemuck::pod_read_unaligned;
use xlb_common::abi::FlowEntry;

use crate::maps::batch::{Page, Shape};
use crate::maps::fill::{SAMPLE_ENTRIES, estimate};
use crate::maps::pins::PinDirectory;

/// The maps of accepted flows.
const MAPS: [&str; 6] = ["FLOWS_V4", "FLOWS_V6", "UDP_FLOWS_V4", "UDP_FLOWS_V6", "SCTP_FLOWS_V4", "SCTP_FLOWS_V6"];

/// Flows by service and backend, about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread(BTreeMap<(u32, u32), u64>);

impl Spread {
    /// Of a service with one of its backends.
    #[must_use]
    pub fn of(&self, service: u32, backend: u32) -> u64 {
        self.0.get(&(service, backend)).copied().unwrap_or(0)
    }

    /// The same of these.
    #[must_use]
    pub fn from_counts(counts: impl IntoIterator<Item = ((u32, u32), u64)>) -> Self {
        Self(counts.into_iter().collect())
    }
}

/// Looks at the pinned maps.
///
/// # Errors
/// When one cannot be read.
pub fn spread(pins: &PinDirectory) -> Result<Spread> {
    let mut spread = Spread::default();
    for map in MAPS {
        add(pins, map, &mut spread).with_context(|| format!("sampling {map}"))?;
    }
    Ok(spread)
}

fn add(pins: &PinDirectory, map: &str, spread: &mut Spread) -> Result<()> {
    let pinned = MapData::from_pin(pins.map(map)).context("opening the pinned map")?;
    let info = pinned.info().context("reading its shape")?;
    let mut page = Page::new(Shape::of(&info)?, SAMPLE_ENTRIES);
    page.read(&pinned)?;
    let next_bucket = (!page.is_last()).then(|| page.next_bucket());
    let mut found = BTreeMap::<_, u32>::new();
    for entry in page.iter().map(|(_, entry)| pod_read_unaligned::<FlowEntry>(entry)).filter(|entry| !entry.is_closed())
    {
        *found.entry((entry.service, entry.backend.into())).or_default() += 1;
    }
    for (whom, count) in found {
        *spread.0.entry(whom).or_default() += estimate(count, next_bucket, info.max_entries());
    }
    Ok(())
}
