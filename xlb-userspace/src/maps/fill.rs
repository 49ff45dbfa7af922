//! How full the maps are that the kernel fills: flows, affinity. Cheaply, at any size.
//!
//! Walking a million entries takes most of a second. A batch look-up walks a hash map bucket by bucket and says where it
//! stopped: entries are spread evenly over buckets, so what one batch finds in the first ones stands for the rest. A map
//! with fewer entries than a batch is counted exactly.

use anyhow::{Context, Result};
use aya::maps::MapData;

use crate::maps::batch::{Page, Shape};
use crate::maps::pins::PinDirectory;

/// Entries of a batch: 1.6 % off, one time in three, for a map that holds more.
pub(super) const SAMPLE_ENTRIES: u32 = 4096;

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its name.
    pub map: &'static str,
    /// Entries that it holds, about.
    pub entries: u64,
    /// Entries that it can hold.
    pub capacity: u64,
}

/// How full a pinned hash map is.
///
/// # Errors
/// When it cannot be opened, or is not a hash map.
pub fn fill(pins: &PinDirectory, map: &'static str) -> Result<Fill> {
    let pinned = MapData::from_pin(pins.map(map)).with_context(|| format!("opening the pinned map {map}"))?;
    let info = pinned.info().with_context(|| format!("reading the shape of {map}"))?;
    let capacity = info.max_entries();
    let (found, next) = sample(&pinned, Shape::of(&info)?).with_context(|| format!("sampling {map}"))?;
    Ok(Fill { map, entries: estimate(found, next, capacity), capacity: capacity.into() })
}

/// What so many entries before this bucket mean for the whole map, which has a power of two of buckets.
pub(super) fn estimate(found: u32, next_bucket: Option<u32>, capacity: u32) -> u64 {
    let buckets = u64::from(capacity).next_power_of_two();
    match next_bucket {
        Some(seen) if seen > 0 => (u64::from(found) * buckets / u64::from(seen)).min(capacity.into()),
        _ => found.into(),
    }
}

/// Entries of the first buckets, and the first bucket that was not looked at; none: there is no further one.
fn sample(map: &MapData, shape: Shape) -> Result<(u32, Option<u32>)> {
    let mut page = Page::new(shape, SAMPLE_ENTRIES);
    page.read(map)?;
    let next_bucket = (!page.is_last()).then(|| page.next_bucket());
    Ok((page.entries() as u32, next_bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_the_buckets_stands_for_the_rest() {
        assert_eq!(estimate(17, None, 1 << 20), 17, "the whole map was seen");
        assert_eq!(estimate(4096, Some(8192), 1 << 20), 1 << 19, "half full");
        assert_eq!(estimate(4096, Some(4000), 1 << 20), 1 << 20, "not more than it can hold");
        assert_eq!(estimate(4096, Some(1 << 16), 100_000), 8192, "buckets are a power of two");
    }
}
