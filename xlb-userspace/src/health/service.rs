//! `healthCheckNodePort` (semantics chapter 12): which Service answers at which port, and what it counts.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::endpoints::is_on;
use crate::model::frontends::counts;
use crate::model::objects::{Service, ServiceType, TrafficPolicy};
use crate::model::{Model, ObjectName, Policy};
use crate::plan::desired::{Family, Refusal};

/// What is answered at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// The Service.
    pub service: ObjectName,
    /// For each family that the Service has: how many ready endpoints it has on this node.
    pub ready: BTreeMap<Family, usize>,
}

impl HealthPort {
    /// What a probe of this family is told. A Service of one family answers probes of either; families are never added
    /// up (semantics 12.7).
    #[must_use]
    pub fn count(&self, probe: Family) -> usize {
        let own = self.ready.get(&probe);
        own.or_else(|| self.ready.values().next().filter(|_| self.ready.len() == 1)).copied().unwrap_or(0)
    }
}

/// The ports that should be open, and the Services whose port another one has: the API server never gives a port twice,
/// but a manifest may.
#[must_use]
pub fn wanted(model: &Model, policy: &Policy, node_name: &str) -> (BTreeMap<u16, HealthPort>, Vec<Refusal>) {
    let mut ports: BTreeMap<u16, HealthPort> = BTreeMap::new();
    let mut refusals = Vec::new();
    for (service, port) in model.services().filter_map(|service| Some((service, health_port(service, policy)?))) {
        match ports.entry(port) {
            Entry::Vacant(free) => {
                let ready = service.cluster_ips.iter().map(|ip| (Family::of(*ip), 0)).collect();
                free.insert(HealthPort { service: service.name.clone(), ready });
            }
            Entry::Occupied(held) => {
                let why = format!(
                    "health check port {port} is not served: Service {} has it too; change spec.healthCheckNodePort of one",
                    held.get().service
                );
                refusals.push(Refusal { object: format!("Service {}", service.name), why });
            }
        }
    }
    count_ready(&mut ports, model, node_name);
    (ports, refusals)
}

/// Semantics 12.1: independent of whether it has an address yet.
fn health_port(service: &Service, policy: &Policy) -> Option<u16> {
    let is_asked = service.service_type == ServiceType::LoadBalancer
        && service.external_traffic_policy == TrafficPolicy::Local
        && policy.serves_class(service.load_balancer_class.as_deref());
    let is_handled = counts(service) && !service.cluster_ips.is_empty();
    service.health_check_node_port.filter(|_| is_asked && is_handled)
}

/// Distinct addresses over all ports of a Service (semantics 12.3). Ready is all that counts: what terminates is not.
fn count_ready(ports: &mut BTreeMap<u16, HealthPort>, model: &Model, node_name: &str) {
    for port in ports.values_mut() {
        let slices = model.slices_of(&port.service).filter(|slice| !slice.ports.is_empty());
        let endpoints = slices.flat_map(|slice| &slice.endpoints);
        let local = endpoints.filter(|endpoint| endpoint.ready && is_on(endpoint, node_name));
        let ready: BTreeSet<IpAddr> = local.map(|endpoint| endpoint.address).collect();
        for address in ready {
            if let Some(count) = port.ready.get_mut(&Family::of(address)) {
                *count += 1;
            }
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
