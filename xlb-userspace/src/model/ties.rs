//! Which Services have to be decided together: those that ask for the same frontend, of which one gets it, and those with
//! pods at the same address, which share backends.
//!
//! A Service that takes a frontend over from another is tied to it by that frontend: whatever else depends on who had
//! something before belongs here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::objects::ObjectName;
use crate::plan::Endpoint;

/// What ties a Service to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tie {
    /// The frontends that it asks for or has.
    pub frontends: BTreeSet<Endpoint>,
    /// The addresses of its pods on this node, also of those that left it.
    pub pods: BTreeSet<IpAddr>,
}

/// The ties of every Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    frontends: Index<Endpoint>,
    pods: Index<IpAddr>,
}

/// Who has which keys, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Index<K> {
    /// In order of names. Mostly there is one.
    holders: BTreeMap<K, Vec<ObjectName>>,
    keys: BTreeMap<ObjectName, Vec<K>>,
}

impl Ties {
    /// The ties of a Service from now on.
    pub fn set(&mut self, service: &ObjectName, tie: &Tie) {
        self.frontends.set(service, &tie.frontends);
        self.pods.set(service, &tie.pods);
    }

    /// The ties of a Service beside those it has.
    pub fn add(&mut self, service: &ObjectName, tie: &Tie) {
        self.frontends.add(service, &tie.frontends);
        self.pods.add(service, &tie.pods);
    }

    /// Some Services, and all that are tied to one of them or to another one that is. None: more than `limit`.
    pub fn closure(&self, services: BTreeSet<ObjectName>, limit: usize) -> Option<BTreeSet<ObjectName>> {
        let mut rest: Vec<ObjectName> = services.iter().cloned().collect();
        let mut closure = services;
        while let Some(service) = rest.pop() {
            if closure.len() > limit {
                return None;
            }
            for other in self.frontends.tied_to(&service).chain(self.pods.tied_to(&service)) {
                if !closure.contains(other) {
                    closure.insert(other.clone());
                    rest.push(other.clone());
                }
            }
        }
        Some(closure)
    }

    /// The Services with a pod at this address.
    pub fn with_pod(&self, address: &IpAddr) -> impl Iterator<Item = &ObjectName> {
        self.pods.holders.get(address).into_iter().flatten()
    }

    /// The addresses of a Service's pods.
    pub fn pods_of(&self, service: &ObjectName) -> &[IpAddr] {
        self.pods.keys_of(service)
    }

    /// The frontends of a Service.
    pub fn frontends_of(&self, service: &ObjectName) -> &[Endpoint] {
        self.frontends.keys_of(service)
    }

    /// The addresses of all pods.
    pub fn pods(&self) -> impl Iterator<Item = &IpAddr> {
        self.pods.holders.keys()
    }

    /// Whether it is the address of a pod of some Service.
    pub fn has_pod(&self, address: &IpAddr) -> bool {
        self.pods.holders.contains_key(address)
    }
}

impl<K: Ord + Clone> Index<K> {
    fn set(&mut self, service: &ObjectName, keys: &BTreeSet<K>) {
        let was = self.keys.remove(service).unwrap_or_default();
        for key in was.iter().filter(|key| !keys.contains(key)) {
            self.release(key, service);
        }
        keys.iter().for_each(|key| self.hold(key, service));
        if !keys.is_empty() {
            self.keys.insert(service.clone(), keys.iter().cloned().collect());
        }
    }

    fn add(&mut self, service: &ObjectName, keys: &BTreeSet<K>) {
        let both: BTreeSet<K> = keys.iter().chain(self.keys_of(service)).cloned().collect();
        self.set(service, &both);
    }

    fn keys_of(&self, service: &ObjectName) -> &[K] {
        self.keys.get(service).map_or(&[], Vec::as_slice)
    }

    fn tied_to(&self, service: &ObjectName) -> impl Iterator<Item = &ObjectName> {
        self.keys_of(service).iter().filter_map(|key| self.holders.get(key)).flatten()
    }

    fn hold(&mut self, key: &K, service: &ObjectName) {
        match self.holders.get_mut(key) {
            None => drop(self.holders.insert(key.clone(), vec![service.clone()])),
            Some(holders) => {
                if let Err(at) = holders.binary_search(service) {
                    holders.insert(at, service.clone());
                }
            }
        }
    }

    fn release(&mut self, key: &K, service: &ObjectName) {
        let Some(holders) = self.holders.get_mut(key) else { return };
        holders.retain(|holder| holder != service);
        if holders.is_empty() {
            self.holders.remove(key);
        }
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { holders: BTreeMap::new(), keys: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::name;
    use crate::plan::desired::Protocol;

    #[test]
    fn services_are_tied_by_frontends_and_pods_however_far_apart() {
        let ties = ties(&[("a", &[1], &[]), ("b", &[1, 2], &[5]), ("c", &[3], &[5, 6]), ("d", &[4], &[7])]);
        assert_eq!(closure(&ties, "a"), ["a", "b", "c"]);
        assert_eq!(closure(&ties, "d"), ["d"]);
        assert_eq!(ties.closure([name("a")].into(), 2), None);
    }

    #[test]
    fn a_tie_ends_with_what_made_it() {
        let mut ties = ties(&[("a", &[1], &[5]), ("b", &[1], &[5])]);
        ties.add(&name("a"), &tie(&[2], &[]));
        assert_eq!(closure(&ties, "a"), ["a", "b"]);
        ties.set(&name("a"), &tie(&[2], &[]));
        assert_eq!(closure(&ties, "a"), ["a"]);
        for service in ["a", "b"] {
            ties.set(&name(service), &Tie::default());
        }
        assert_eq!(ties, Ties::default());
    }

    fn ties(services: &[(&str, &[u16], &[u8])]) -> Ties {
        let mut ties = Ties::default();
        for (service, ports, pods) in services {
            ties.set(&name(service), &tie(ports, pods));
        }
        ties
    }

    fn tie(ports: &[u16], pods: &[u8]) -> Tie {
        let frontend = |&port| Endpoint { socket: ([192, 0, 2, 1], port).into(), protocol: Protocol::Tcp };
        let pod = |&pod| IpAddr::from([10, 1, 0, pod]);
        Tie { frontends: ports.iter().map(frontend).collect(), pods: pods.iter().map(pod).collect() }
    }

    fn closure(ties: &Ties, service: &str) -> Vec<String> {
        let closure = ties.closure([name(service)].into(), 10).unwrap();
        closure.into_iter().map(|service| service.name).collect()
    }
}
