//! What happened between two looks.

use std::net::SocketAddr;

use serde::Serialize;
use xlb_common::Reason;
use xlb_common::abi::ServiceStats;
use xlb_common::reason::Disposition;

use super::look::{Look, ServiceLook};
use crate::maps::fill::Fill;

/// All that is shown at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Round {
    /// How far apart the two looks are.
    pub interval_s: f64,
    /// All services together.
    pub total: Rates,
    /// Service ports.
    pub services: Vec<ServiceRates>,
    /// Services without numbers of their own, together; absent: there is no traffic to them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<Rates>,
    /// Packets that were dropped or refused.
    pub drops: Vec<Drops>,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
}

/// What happens in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Packets from clients outside to pods.
    pub packets_to_pods: f64,
    /// Bytes of these, from the IP header on.
    pub bytes_to_pods: f64,
    /// Packets back.
    pub packets_to_clients: f64,
    /// Bytes of these.
    pub bytes_to_clients: f64,
    /// Connections that pods accepted, and UDP flows that began.
    pub new_flows: f64,
    /// Sockets of clients inside that were directed to an endpoint.
    pub inside_flows: f64,
}

/// A Service port.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServiceRates {
    /// `namespace/name:port`.
    pub name: String,
    /// What happens; absent: it has no numbers of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// Its slots; zero: the only backend gets everything.
    pub slots: u32,
    /// Its backends.
    pub backends: Vec<Share>,
}

/// A backend's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The pod's address and port.
    pub address: SocketAddr,
    /// Slots that it owns.
    pub slots: u32,
    /// Slots that it owned before, and may hold connections of.
    pub former_slots: u32,
    /// Its part of new connections, of 1.
    pub share: f64,
    /// Flows that are open at it; absent: there are too many to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
}

/// Packets that went no further.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drops {
    /// Why.
    pub reason: &'static str,
    /// How many in a second.
    pub rate: f64,
    /// How many so far.
    pub count: u64,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MapFill {
    /// Its name.
    pub map: &'static str,
    /// Entries, about.
    pub entries: u64,
    /// Entries that it can hold.
    pub capacity: u64,
}

/// What happened since `before`.
#[must_use]
pub fn round(before: &Look, now: &Look) -> Round {
    let interval_s = now.at_s - before.at_s;
    let services: Vec<ServiceRates> = now
        .services
        .iter()
        .map(|(name, service)| service_rates(name, before.services.get(name), service, interval_s))
        .collect();
    let others = rates(before.others, now.others, interval_s).filter(|rates| *rates != Rates::default());
    let counted = services.iter().filter_map(|service| service.rates).chain(others);
    Round {
        interval_s,
        total: counted.fold(Rates::default(), Rates::plus),
        services,
        others,
        drops: drops(before, now, interval_s),
        maps: now.fills.iter().filter(|fill| fill.entries > 0).map(map_fill).collect(),
    }
}

fn service_rates(name: &str, before: Option<&ServiceLook>, now: &ServiceLook, interval_s: f64) -> ServiceRates {
    let share = |(share, flows): &(crate::cli::services::ShareView, Option<u64>)| Share {
        address: share.address,
        slots: share.slots,
        former_slots: share.former_slots,
        share: if now.slots == 0 { 1.0 } else { f64::from(share.slots) / f64::from(now.slots) },
        flows: *flows,
    };
    ServiceRates {
        name: name.into(),
        rates: rates(before.and_then(|before| before.stats), now.stats, interval_s),
        slots: now.slots,
        backends: now.backends.iter().map(share).collect(),
    }
}

/// A service that was not there before, or whose numbers began anew, had none.
fn rates(before: Option<ServiceStats>, now: Option<ServiceStats>, interval_s: f64) -> Option<Rates> {
    let now = now?;
    let before = before.filter(|before| before.generation == now.generation).unwrap_or_default();
    let rate = |of: fn(&ServiceStats) -> u64| per_second(of(&before), of(&now), interval_s);
    Some(Rates {
        packets_to_pods: rate(|it| it.packets_to_pods),
        bytes_to_pods: rate(|it| it.bytes_to_pods),
        packets_to_clients: rate(|it| it.packets_to_clients),
        bytes_to_clients: rate(|it| it.bytes_to_clients),
        new_flows: rate(|it| it.new_flows),
        inside_flows: rate(|it| it.inside_flows),
    })
}

fn per_second(before: u64, now: u64, interval_s: f64) -> f64 {
    if interval_s > 0.0 { now.saturating_sub(before) as f64 / interval_s } else { 0.0 }
}

/// Those that ever were, the most frequent first.
fn drops(before: &Look, now: &Look, interval_s: f64) -> Vec<Drops> {
    let is_end = |reason: &Reason| matches!(reason.disposition(), Disposition::Drop | Disposition::Reply);
    let counted = now.counters.iter().filter(|(reason, count)| is_end(reason) && **count > 0);
    let drops = counted.map(|(reason, &count)| Drops {
        reason: reason.label(),
        rate: per_second(before.counters.get(reason).copied().unwrap_or_default(), count, interval_s),
        count,
    });
    let mut drops: Vec<Drops> = drops.collect();
    drops.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(b.count.cmp(&a.count)));
    drops
}

fn map_fill(fill: &Fill) -> MapFill {
    MapFill { map: fill.map, entries: fill.entries, capacity: fill.capacity }
}

impl Rates {
    fn plus(self, other: Self) -> Self {
        Self {
            packets_to_pods: self.packets_to_pods + other.packets_to_pods,
            bytes_to_pods: self.bytes_to_pods + other.bytes_to_pods,
            packets_to_clients: self.packets_to_clients + other.packets_to_clients,
            bytes_to_clients: self.bytes_to_clients + other.bytes_to_clients,
            new_flows: self.new_flows + other.new_flows,
            inside_flows: self.inside_flows + other.inside_flows,
        }
    }
}
