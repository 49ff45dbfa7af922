//! A large cluster from a seed: Services, their slices, and what changes in them, as Kubernetes objects and as the
//! model's. The same seed makes the same cluster and the same changes.

mod objects;

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;
use xlb_userspace::model::objects::Kind;
use xlb_userspace::model::{Event, Object, ObjectKey, ObjectName};
use xlb_userspace::source::translate;

use crate::api::ApiServer;
use crate::kernel::random::Random;

/// The node of the local endpoints.
pub const NODE: &str = "node";
/// Other nodes, over which the rest is spread.
const OTHER_NODES: u32 = 600;
/// Local pods from this address on.
const FIRST_LOCAL: u32 = 0x0ac8_0001; // 10.200.0.1
/// Pods of other nodes from this address on.
const FIRST_REMOTE: u32 = 0x0a40_0001; // 10.64.0.1
/// VIPs from this address on.
const FIRST_VIP: u32 = 0xc612_0100; // 198.18.1.0

/// How large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Services, each with one port, one VIP and one slice.
    pub services: u32,
    /// Endpoints of all of them together.
    pub endpoints: u32,
    /// How many of those are on this node.
    pub local: u32,
    /// Where chance begins.
    pub seed: u64,
}

impl Scale {
    /// The cluster of the performance targets.
    pub const TARGET: Scale = Scale { services: 10_000, endpoints: 150_000, local: 250, seed: 1 };
    /// A tenth of it.
    pub const TENTH: Scale = Scale { services: 1_000, endpoints: 15_000, local: 250, seed: 1 };
}

/// The cluster as it is now.
pub struct World {
    services: Vec<ServiceState>,
    random: Random,
}

#[derive(Clone, Debug)]
struct ServiceState {
    is_there: bool,
    vip: Ipv4Addr,
    endpoints: Vec<EndpointState>,
}

#[derive(Clone, Debug)]
struct EndpointState {
    address: Ipv4Addr,
    /// None: this one.
    node: Option<u32>,
    is_there: bool,
    is_ready: bool,
}

/// One change, as an API server is told of it.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is new or another.
    Put(Value),
    /// A Service is gone: its namespace and its name.
    RemoveService(String, String),
}

impl Change {
    /// Lets it happen on a server.
    pub fn send(&self, server: &ApiServer) {
        match self {
            Change::Put(object) => server.apply_all([object]),
            Change::RemoveService(namespace, name) => {
                server.delete("services", namespace, name);
            }
        }
    }

    /// As the model's event.
    ///
    /// # Panics
    /// If the object cannot be read.
    pub fn event(self) -> Event {
        match self {
            Change::Put(object) => event(object),
            Change::RemoveService(namespace, name) => {
                Event::Deleted(ObjectKey { kind: Kind::Service, name: ObjectName { namespace, name } })
            }
        }
    }
}

impl World {
    /// The cluster before any change.
    pub fn new(scale: Scale) -> World {
        let mut random = Random::new(scale.seed);
        let mut services: Vec<ServiceState> = (0..scale.services)
            .map(|number| ServiceState { is_there: true, vip: (FIRST_VIP + number).into(), endpoints: Vec::new() })
            .collect();
        for number in 0..scale.endpoints {
            // Local ones are the first: they are spread over as many Services.
            let is_local = number < scale.local;
            let first = if is_local { FIRST_LOCAL } else { FIRST_REMOTE };
            services[(number % scale.services) as usize].endpoints.push(EndpointState {
                address: (first + number).into(),
                node: (!is_local).then(|| random.below(OTHER_NODES as usize) as u32),
                is_there: true,
                is_ready: true,
            });
        }
        World { services, random }
    }

    /// All objects as they are now.
    pub fn objects(&self) -> impl Iterator<Item = Value> + '_ {
        let present = (0..self.services.len()).filter(|&number| self.services[number].is_there);
        present.map(|number| self.service(number)).chain((0..self.services.len()).map(|number| self.slice(number)))
    }

    /// All objects as the model's events, and that this is all.
    ///
    /// # Panics
    /// If an object cannot be read.
    pub fn events(&self) -> Vec<Event> {
        self.objects().map(event).chain([Event::Synced]).collect()
    }

    /// The addresses of this node's pods.
    pub fn local_pods(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        let endpoints = self.services.iter().flat_map(|service| &service.endpoints);
        endpoints.filter(|endpoint| endpoint.node.is_none()).map(|endpoint| endpoint.address)
    }

    /// A random change: mostly a pod becomes ready or unready, sometimes one comes or goes, or a Service does, or moves
    /// to another address.
    pub fn change(&mut self) -> Change {
        let number = self.random.below(self.services.len());
        let random = &mut self.random;
        let service = &mut self.services[number];
        match random.below(100) {
            0..4 => service.is_there = !service.is_there,
            4 => service.vip = (FIRST_VIP + random.below(0x8000) as u32).into(),
            chance => {
                let which = random.below(service.endpoints.len());
                let endpoint = &mut service.endpoints[which];
                let flag = if chance < 20 { &mut endpoint.is_there } else { &mut endpoint.is_ready };
                *flag = !*flag;
                return Change::Put(self.slice(number));
            }
        }
        if self.services[number].is_there {
            return Change::Put(self.service(number));
        }
        let (namespace, name) = objects::service_name(number);
        Change::RemoveService(namespace, name)
    }

    fn service(&self, number: usize) -> Value {
        objects::service(number, self.services[number].vip)
    }

    fn slice(&self, number: usize) -> Value {
        let endpoints = self.services[number].endpoints.iter().filter(|endpoint| endpoint.is_there);
        objects::slice(number, endpoints.map(|endpoint| (endpoint.address, endpoint.node, endpoint.is_ready)))
    }
}

fn event(object: Value) -> Event {
    let is_service = object["kind"] == "Service";
    Event::Applied(if is_service {
        let service: Service = serde_json::from_value(object).expect("a Service");
        translate::service(&service).expect("readable").object.into()
    } else {
        let slice: EndpointSlice = serde_json::from_value(object).expect("an EndpointSlice");
        Object::Slice(translate::slice(&slice).expect("readable").object)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_cluster_and_the_same_changes() {
        let (mut one, mut other) = (World::new(Scale::TENTH), World::new(Scale::TENTH));
        for _ in 0..500 {
            let (change, same) = (one.change(), other.change());
            assert_eq!(format!("{change:?}"), format!("{same:?}"));
        }
        assert_eq!(one.events(), other.events());
        assert_eq!(one.local_pods().count(), 250);
    }
}
