//! What one node should serve, given everything that Kubernetes asks for and what the node looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::delivery::{DeliveryChoice, delivery};
use super::endpoints::{Endpoints, LocalEndpoint, endpoints_of, is_on};
use super::frontends::{Grant, claiming_services, effective_policy, grants};
use super::objects::{ObjectName, Service, Slice, TrafficPolicy};
use super::policy::Policy;
use super::sources::source_filter;
use super::state::Model;
use crate::node::{Location, NodeView};
use crate::plan::desired::{
    Delivery, Desired, DesiredBackend, DesiredService, Protocol, Refusal, ServiceName, WhenEmpty,
};

/// Backends that one service can have on one node: a slot names its owner by one byte.
pub const BACKENDS_PER_SERVICE_MAX: usize = 255;

/// What decides, beside the Services, about what this node should serve.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// What the operator says about addresses.
    pub policy: &'a Policy,
    /// What Kubernetes asks for.
    pub model: &'a Model,
    /// What the node looks like.
    pub node: &'a NodeView,
    /// What the operator says about delivery.
    pub choice: DeliveryChoice,
}

/// What this node should serve of some Services.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Their ports that are served.
    pub services: BTreeMap<ServiceName, DesiredService>,
    /// What each of them asks for and does not get.
    pub refusals: Refusals,
}

/// What this node should serve. The same model and node give the same answer, in whatever order the model learned it.
pub fn desired(policy: &Policy, model: &Model, node: &NodeView, choice: DeliveryChoice) -> Desired {
    let services = claiming_services(model, policy).collect();
    let Answer { services, refusals } = answer(services, Setting { policy, model, node, choice });
    Desired { services, refusals: in_order(refusals.0.into_values().flatten().collect()) }
}

/// What it should serve of just these Services. It is what [`desired()`] says of them if there is no other one that asks
/// for a frontend of theirs, and none of those whose externalIPs are in doubt is left out ([`super::ties`]).
pub fn answer(services: Vec<&Service>, setting: Setting) -> Answer {
    let Setting { policy, model, node, choice } = setting;
    let mut answer = Answer::default();
    for grant in grants(services, setting, &mut answer.refusals) {
        let traffic_policy = effective_policy(grant.service);
        let slices: Vec<&Slice> = model.slices_of(&grant.service.name).collect();
        let endpoints = endpoints_of(&slices, &grant, traffic_policy, node);
        let ingress_is_restricted = model.restricts_ingress(&grant.service.name.namespace);
        let placement = Placement { node, choice, ingress_is_restricted };
        let refusals = &mut answer.refusals;
        let sources = source_filter(grant.service, &grant.vips, grant.name.family, (node, policy), refusals);
        let service = DesiredService {
            vips: grant.vips.clone(),
            port: grant.port.port,
            when_empty: when_empty(traffic_policy, &endpoints),
            forgets_departed: endpoints.forgets_departed,
            backends: backends(&grant, &endpoints, &placement, refusals),
            inside: is_seen_inside(grant.name.protocol).then_some(endpoints.inside),
            sources,
            affinity_s: grant.service.affinity_s.unwrap_or_default(),
            host_before: vips_of_host(&grant),
            has_strays: false,
        };
        answer.services.insert(grant.name, service);
    }
    answer
}

/// Whether hooks see the sockets of clients inside: the kernel runs them for TCP and UDP (`pre_connect` of net/ipv4, which
/// net/sctp does not have).
const fn is_seen_inside(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Udp)
}

/// The addresses that the node has to find on its links before [`desired`] can use them: every endpoint on this
/// node of every Service that may get a VIP, whatever its conditions.
pub fn pods_of_interest(policy: &Policy, model: &Model, node_name: &str) -> BTreeSet<IpAddr> {
    claiming_services(model, policy).flat_map(|service| local_pods(model, &service.name, node_name)).collect()
}

/// The addresses of a Service's endpoints on this node.
pub fn local_pods<'a>(
    model: &'a Model,
    service: &'a ObjectName,
    node_name: &'a str,
) -> impl Iterator<Item = IpAddr> + 'a {
    let endpoints = model.slices_of(service).flat_map(|slice| &slice.endpoints);
    endpoints.filter(move |endpoint| is_on(endpoint, node_name)).map(|endpoint| endpoint.address)
}

/// What was refused so far, by Service; the same refusal for several ports of a Service counts once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Refusals(pub BTreeMap<ObjectName, BTreeSet<Refusal>>);

impl Refusals {
    /// Notes one.
    pub fn add(&mut self, service: &ObjectName, object: String, why: String) {
        self.0.entry(service.clone()).or_default().insert(Refusal { object, why });
    }
}

/// Refusals as they are told.
pub fn in_order(mut refusals: Vec<Refusal>) -> Vec<Refusal> {
    refusals.sort();
    refusals
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
    endpoints: &Endpoints,
    placement: &Placement,
    refusals: &mut Refusals,
) -> BTreeMap<SocketAddr, DesiredBackend> {
    let mut backends = BTreeMap::new();
    let object = |socket: SocketAddr| format!("endpoint {} of {}", socket.ip(), grant.service.name);
    for &LocalEndpoint { socket, takes_new } in &endpoints.local {
        match deliver(socket.ip(), placement) {
            Ok(delivery) => {
                if placement.choice == DeliveryChoice::Direct && matches!(delivery, Delivery::Stack(_)) {
                    refusals.add(
                        &grant.service.name,
                        object(socket),
                        "direct delivery is not possible: the pod is not behind a veth of this node; \
                                            its packets go through the host's stack instead"
                            .into(),
                    );
                }
                backends.insert(socket, DesiredBackend { takes_new, weight: 1, delivery });
            }
            Err(why) if takes_new => {
                refusals.add(&grant.service.name, object(socket), format!("not reachable from this node: {why}"));
            }
            Err(_) => {}
        }
    }
    for &LocalEndpoint { socket, takes_new } in &endpoints.lost {
        let (kept, why) = lost(socket.ip(), placement);
        if takes_new {
            refusals.add(&grant.service.name, object(socket), why);
        }
        // Nobody waits for the end of a UDP flow: it begins anew where somebody serves.
        if let Some(delivery) = kept.filter(|_| !endpoints.forgets_departed) {
            backends.insert(socket, DesiredBackend { takes_new: false, weight: 1, delivery });
        }
    }
    cut_to_limit(grant, &mut backends, refusals);
    backends
}

/// A pod that nothing gets through to. As long as its link is there its connections are its own: the link may carry again.
fn lost(address: IpAddr, placement: &Placement) -> (Option<Delivery>, String) {
    match deliver(address, placement) {
        Ok(delivery) => {
            let link = match &delivery {
                Delivery::Direct(link) | Delivery::Stack(Some(link)) => Some(link),
                Delivery::Stack(None) => None,
            };
            let found = link.and_then(|link| Some(format!("{} {}", link.name, link.state.complaint()?)));
            let why =
                format!("gets no new connections as long as its link does not carry: {}", found.unwrap_or_default());
            (Some(delivery), why)
        }
        Err(why) => (None, format!("not reachable from this node: {why}")),
    }
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
    refusals.add(&grant.service.name, format!("Service {}", grant.name), why);
}
