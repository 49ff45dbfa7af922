//! What one node should serve, given everything that Kubernetes asks for and what the node looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::delivery::{DeliveryChoice, delivery, namespaces_restricting_ingress};
use super::endpoints::{Endpoints, LocalEndpoint, endpoints_of, is_on};
use super::frontends::{Grant, claiming_services, effective_policy, grants};
use super::objects::{ObjectName, Slice, TrafficPolicy};
use super::policy::Policy;
use super::sources::source_filter;
use super::state::Model;
use crate::node::{Location, NodeView};
use crate::plan::desired::{Delivery, Desired, DesiredBackend, DesiredService, Refusal, WhenEmpty};

/// Backends that one service can have on one node: a slot names its owner by one byte.
pub const BACKENDS_PER_SERVICE_MAX: usize = 255;

/// What this node should serve. The same model and node give the same answer, in whatever order the model learned it.
pub fn desired(policy: &Policy, model: &Model, node: &NodeView, choice: DeliveryChoice) -> Desired {
    let mut refusals = Refusals::default();
    let slices = slices_by_service(model);
    let restricted = namespaces_restricting_ingress(model);
    let mut services = BTreeMap::new();
    for grant in grants(model, node, policy, &mut refusals) {
        let traffic_policy = effective_policy(grant.service);
        let slices = slices.get(&grant.service.name).map_or(&[][..], Vec::as_slice);
        let endpoints = endpoints_of(slices, &grant, traffic_policy, node);
        let placement = Placement {
            node,
            choice,
            ingress_is_restricted: restricted.contains(grant.service.name.namespace.as_str()),
        };
        let sources = source_filter(grant.service, &grant.vips, grant.name.family, (node, policy), &mut refusals);
        let service = DesiredService {
            vips: grant.vips.clone(),
            port: grant.port.port,
            when_empty: when_empty(traffic_policy, &endpoints),
            forgets_departed: endpoints.forgets_departed,
            backends: backends(&grant, endpoints.local, &placement, &mut refusals),
            inside: Some(endpoints.inside),
            sources,
            affinity_s: grant.service.affinity_s.unwrap_or_default(),
            host_before: vips_of_host(&grant),
        };
        services.insert(grant.name, service);
    }
    Desired { services, refusals: refusals.0.into_iter().collect() }
}

/// The addresses that the node has to find on its links before [`desired`] can use them: every endpoint on this
/// node of every Service that may get a VIP, whatever its conditions.
pub fn pods_of_interest(policy: &Policy, model: &Model, node_name: &str) -> BTreeSet<IpAddr> {
    let slices = slices_by_service(model);
    let of_interest = claiming_services(model, policy).filter_map(|service| slices.get(&service.name)).flatten();
    let local = of_interest.flat_map(|slice| &slice.endpoints).filter(|endpoint| is_on(endpoint, node_name));
    local.map(|endpoint| endpoint.address).collect()
}

/// What was refused so far; the same refusal for several ports of a Service counts once.
#[derive(Debug, Default)]
pub struct Refusals(BTreeSet<Refusal>);

impl Refusals {
    /// Notes one.
    pub fn add(&mut self, object: String, why: String) {
        self.0.insert(Refusal { object, why });
    }
}

/// The slices that count, by Service, each list in order of name.
fn slices_by_service(model: &Model) -> BTreeMap<&ObjectName, Vec<&Slice>> {
    let mut by_service: BTreeMap<&ObjectName, Vec<&Slice>> = BTreeMap::new();
    for slice in model.slices().filter(|slice| slice.labels.are_ours()) {
        if let Some(service) = &slice.service {
            by_service.entry(service).or_default().push(slice);
        }
    }
    by_service
}

/// The VIPs that kube-proxy serves where xlb does not: it leaves alone what is xlb's by label, and `ipMode: Proxy`.
fn vips_of_host(grant: &Grant) -> BTreeSet<IpAddr> {
    let service = grant.service;
    let is_hosts = |vip: &&IpAddr| service.vips.contains(vip) || service.external_ips.contains(vip);
    let is_ours_alone = service.labels.proxy_name.is_some();
    grant.vips.iter().filter(|vip| !is_ours_alone && is_hosts(vip)).copied().collect()
}

fn when_empty(policy: TrafficPolicy, endpoints: &Endpoints) -> WhenEmpty {
    match policy {
        _ if !endpoints.is_any_usable => WhenEmpty::Reject,
        TrafficPolicy::Cluster => WhenEmpty::Pass,
        TrafficPolicy::Local => WhenEmpty::Drop,
    }
}

/// What decides about delivery to the backends of one service.
struct Placement<'a> {
    node: &'a NodeView,
    choice: DeliveryChoice,
    ingress_is_restricted: bool,
}

fn backends(
    grant: &Grant,
    endpoints: Vec<LocalEndpoint>,
    placement: &Placement,
    refusals: &mut Refusals,
) -> BTreeMap<SocketAddr, DesiredBackend> {
    let mut backends = BTreeMap::new();
    for LocalEndpoint { socket, takes_new } in endpoints {
        let object = || format!("endpoint {} of {}", socket.ip(), grant.service.name);
        match deliver(socket.ip(), placement) {
            Ok(delivery) => {
                if placement.choice == DeliveryChoice::Direct && matches!(delivery, Delivery::Stack(_)) {
                    refusals.add(
                        object(),
                        "direct delivery is not possible: the pod is not behind a veth of this node; \
                                            its packets go through the host's stack instead"
                            .into(),
                    );
                }
                backends.insert(socket, DesiredBackend { takes_new, weight: 1, delivery });
            }
            Err(why) if takes_new => refusals.add(object(), format!("not reachable from this node: {why}")),
            Err(_) => {}
        }
    }
    cut_to_limit(grant, &mut backends, refusals);
    backends
}

fn deliver(address: IpAddr, placement: &Placement) -> Result<Delivery, String> {
    let location = placement.node.pods.get(&address);
    if let Some(delivery) = location.and_then(|at| delivery(at, placement.choice, placement.ingress_is_restricted)) {
        return Ok(delivery);
    }
    let found = match location {
        Some(Location::Unreachable(found)) => found,
        _ => "it was not found on any link of this node",
    };
    Err(format!(
        "{found}; check that the pod runs here and that its nodeName, {:?}, is meant",
        placement.node.node_name
    ))
}

fn cut_to_limit(grant: &Grant, backends: &mut BTreeMap<SocketAddr, DesiredBackend>, refusals: &mut Refusals) {
    let Some(&first_left_out) = backends.keys().nth(BACKENDS_PER_SERVICE_MAX) else { return };
    let left_out = backends.split_off(&first_left_out);
    let why = format!(
        "{} endpoints, from {first_left_out} on, get no traffic: a service can have {BACKENDS_PER_SERVICE_MAX} \
                       endpoints on one node; spread its pods over more nodes",
        left_out.len()
    );
    refusals.add(format!("Service {}", grant.name), why);
}
