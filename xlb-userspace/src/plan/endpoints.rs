//! What the maps for clients inside hold: services as such clients see them, and the parts of `ENDPOINTS_V4` and
//! `ENDPOINTS_V6` that these lead to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use xlb_common::abi::{Inside, inside_flags};

use super::desired::{DesiredInside, Family};
use super::endpoint::Endpoint;
use super::observed::{RestingRegion, rests};

/// What they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedInside {
    /// `INSIDE_V4` and `INSIDE_V6`.
    pub entries: BTreeMap<Endpoint, Inside>,
    /// Parts of `ENDPOINTS_V4` and `ENDPOINTS_V6`, by their first index. Written once, then never changed.
    pub regions: BTreeMap<(Family, u32), EndpointRegion>,
    /// Not in the maps: parts that must not be written again yet, by their first index.
    pub resting: BTreeMap<(Family, u32), RestingRegion>,
}

/// A part of `ENDPOINTS_V4` or `ENDPOINTS_V6`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointRegion {
    /// Usable ones, then lingering ones, then those for clients in pods, each in order.
    pub endpoints: Vec<SocketAddr>,
    /// How many entries of `INSIDE_V4` or `INSIDE_V6` lead here. None: it is free.
    pub users: u32,
}

impl ObservedInside {
    /// What a new agent finds: the entries, and what each of them leads to.
    ///
    /// # Errors
    /// The first of `endpoint`'s, which reads one.
    pub fn read<E>(
        entries: BTreeMap<Endpoint, Inside>,
        endpoint: impl Fn(Family, u32) -> Result<SocketAddr, E>,
    ) -> Result<Self, E> {
        let mut regions: BTreeMap<(Family, u32), EndpointRegion> = BTreeMap::new();
        for (key, entry) in entries.iter().filter(|(_, entry)| length(entry) > 0) {
            let (family, base) = (key.family(), entry.endpoints_base);
            let region = regions.entry((family, base)).or_default();
            region.users += 1;
            for index in base + region.endpoints.len() as u32..base + length(entry) {
                region.endpoints.push(endpoint(family, index)?);
            }
        }
        Ok(Self { entries, regions, resting: BTreeMap::new() })
    }

    /// Whether an entry leads to just these endpoints.
    pub(super) fn leads_to(&self, family: Family, entry: &Inside, wanted: &DesiredInside) -> bool {
        let region = self.regions.get(&(family, entry.endpoints_base));
        let endpoints = region.map_or(&[][..], |region| &region.endpoints);
        let (usable, lingering) = (entry.endpoints as usize, entry.lingering as usize);
        let (local, wanted_local) = (local_of(entry), wanted.local.as_deref());
        (usable, lingering) == (wanted.usable.len(), wanted.lingering.len())
            && local.map(|local| local as usize) == wanted_local.map(<[_]>::len)
            && (length(entry) == 0
                || endpoints.get(..usable) == Some(&wanted.usable)
                    && endpoints.get(usable..usable + lingering) == Some(&wanted.lingering)
                    && endpoints.get(usable + lingering..length(entry) as usize)
                        == Some(wanted_local.unwrap_or_default()))
    }

    /// The parts of a family's endpoints that must not be written, with their lengths, in order; they may overlap.
    pub(super) fn used(&self, family: Family, now_ms: u64) -> impl Iterator<Item = (u32, u32)> {
        let of_family = self.regions.range((family, 0)..=(family, u32::MAX));
        let led_to = of_family.filter(|(_, region)| region.users > 0);
        let mut led_to = led_to.map(|(&(_, base), region)| (base, region.endpoints.len() as u32)).peekable();
        let mut resting = self.resting(family, now_ms).map(|region| (region.base, region.length)).peekable();
        std::iter::from_fn(move || match (led_to.peek(), resting.peek()) {
            (Some(led_to_next), Some(resting_next)) if resting_next < led_to_next => resting.next(),
            (None, _) => resting.next(),
            _ => led_to.next(),
        })
    }

    /// The parts of a family's endpoints that rest.
    pub(super) fn resting(&self, family: Family, now_ms: u64) -> impl Iterator<Item = &RestingRegion> {
        let of_family = self.resting.range((family, 0)..=(family, u32::MAX)).map(|(_, region)| region);
        of_family.filter(move |region| rests(region.since_ms, now_ms))
    }

    pub(super) fn put_endpoints(&mut self, base: u32, endpoints: &[SocketAddr]) {
        let Some(first) = endpoints.first() else { return };
        let family = Family::of(first.ip());
        let end = base.saturating_add(endpoints.len() as u32);
        // What an update that did not come to its end has written there is gone.
        let overlaps = |(&(_, other), region): (&(Family, u32), &EndpointRegion)| {
            (other.saturating_add(region.endpoints.len() as u32) > base).then_some(other)
        };
        let gone: Vec<u32> = self.regions.range((family, 0)..(family, end)).rev().map_while(overlaps).collect();
        for other in gone {
            self.regions.remove(&(family, other));
        }
        self.regions.insert((family, base), EndpointRegion { endpoints: endpoints.to_vec(), users: 0 });
    }

    pub(super) fn put(&mut self, key: Endpoint, entry: Inside, now_ms: u64) {
        if length(&entry) > 0 {
            let region = self.regions.entry((key.family(), entry.endpoints_base)).or_default();
            region.users += 1;
        }
        if let Some(was) = self.entries.insert(key, entry) {
            self.release(key.family(), &was, now_ms);
        }
    }

    pub(super) fn remove(&mut self, key: &Endpoint, now_ms: u64) {
        if let Some(was) = self.entries.remove(key) {
            self.release(key.family(), &was, now_ms);
        }
    }

    pub(super) fn forget_rested(&mut self, now_ms: u64) {
        self.resting.retain(|_, region| rests(region.since_ms, now_ms));
    }

    fn release(&mut self, family: Family, entry: &Inside, now_ms: u64) {
        let key = (family, entry.endpoints_base);
        let Some(region) = self.regions.get_mut(&key).filter(|_| length(entry) > 0) else { return };
        region.users = region.users.saturating_sub(1);
        if region.users == 0 {
            let length = region.endpoints.len() as u32;
            self.regions.remove(&key);
            self.resting.insert(key, RestingRegion { base: entry.endpoints_base, length, since_ms: now_ms });
        }
    }
}

/// Entries of the endpoints that a service leads to.
fn length(entry: &Inside) -> u32 {
    entry.endpoints.saturating_add(entry.lingering).saturating_add(entry.local)
}

/// How many of them are for clients in pods, if these get others.
pub(super) fn local_of(entry: &Inside) -> Option<u32> {
    (entry.flags & inside_flags::LOCAL_FOR_PODS != 0).then_some(entry.local)
}
