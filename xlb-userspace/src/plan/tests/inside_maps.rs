//! The maps for clients inside, in memory: a part of the endpoints is not written while clients may be led there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;

use xlb_common::abi::{Inside, inside_flags};

use crate::plan::Endpoint;
use crate::plan::desired::{DesiredInside, Family};
use crate::plan::endpoints::ObservedInside;
use crate::plan::observed::QUARANTINE_MS;

/// The maps that the kernel reads.
#[derive(Clone, Default)]
pub struct InsideMaps {
    pub entries: BTreeMap<Endpoint, Inside>,
    endpoints: BTreeMap<(Family, u32), SocketAddr>,
    freed_ms: BTreeMap<(Family, u32), u64>,
}

impl InsideMaps {
    /// What a new agent learns from them.
    pub fn read_back(&self) -> ObservedInside {
        let endpoint = |family, index| Ok::<_, Infallible>(self.endpoints[&(family, index)]);
        ObservedInside::read(self.entries.clone(), endpoint).unwrap()
    }

    pub fn forget_what_rests(&mut self) {
        self.freed_ms.clear();
    }

    pub fn put_endpoints(&mut self, base: u32, endpoints: &[SocketAddr], now_ms: u64) {
        for (index, endpoint) in (base..).zip(endpoints) {
            let at = (Family::of(endpoint.ip()), index);
            assert!(!self.is_led_to(at), "{at:?} is written while clients are led there");
            let freed_ms = self.freed_ms.get(&at);
            assert!(freed_ms.is_none_or(|freed_ms| freed_ms + QUARANTINE_MS <= now_ms), "{at:?} did not rest");
            self.endpoints.insert(at, *endpoint);
        }
    }

    pub fn put(&mut self, key: Endpoint, inside: Option<Inside>, now_ms: u64) {
        for index in inside.iter().flat_map(indexes) {
            let freed_ms = self.freed_ms.remove(&(key.family(), index));
            assert!(freed_ms.is_none_or(|freed_ms| freed_ms + QUARANTINE_MS <= now_ms), "{key} leads to what rests");
        }
        let was = match inside {
            Some(inside) => self.entries.insert(key, inside),
            None => Some(self.entries.remove(&key).expect("it is there")),
        };
        for index in was.iter().flat_map(indexes) {
            let at = (key.family(), index);
            if !self.is_led_to(at) {
                self.freed_ms.insert(at, now_ms);
            }
        }
    }

    /// Whether all that an entry leads to was written, and is in order.
    pub fn leads_somewhere(&self, key: &Endpoint, inside: &Inside) -> bool {
        let DesiredInside { usable, lingering, local } = self.led_to(key.family(), inside);
        let parts = [usable, lingering, local.unwrap_or_default()];
        let is_in_order = |part: &Vec<SocketAddr>| part.is_sorted_by(|one, next| one < next);
        parts.iter().map(Vec::len).sum::<usize>() == indexes(inside).len() && parts.iter().all(is_in_order)
    }

    /// The endpoints of an entry.
    pub fn led_to(&self, family: Family, inside: &Inside) -> DesiredInside {
        let found = indexes(inside).filter_map(|index| self.endpoints.get(&(family, index)).copied());
        let mut usable: Vec<SocketAddr> = found.collect();
        let mut lingering = usable.split_off(usable.len().min(inside.endpoints as usize));
        let local = lingering.split_off(lingering.len().min(inside.lingering as usize));
        let local = (inside.flags & inside_flags::LOCAL_FOR_PODS != 0).then_some(local);
        DesiredInside { usable, lingering, local }
    }

    fn is_led_to(&self, (family, index): (Family, u32)) -> bool {
        let mut entries = self.entries.iter().filter(|(key, _)| key.family() == family);
        entries.any(|(_, inside)| indexes(inside).contains(&index))
    }
}

fn indexes(inside: &Inside) -> std::ops::Range<u32> {
    inside.endpoints_base..inside.endpoints_base + inside.endpoints + inside.lingering + inside.local
}
