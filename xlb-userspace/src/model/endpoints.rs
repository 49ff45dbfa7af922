//! Which endpoints of a Service port are on this node, and which of them get new connections (semantics 2 and 3).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::frontends::Grant;
use super::objects::{Endpoint, Slice, TrafficPolicy};
use crate::node::NodeView;
use crate::plan::desired::{Family, Protocol};

/// The endpoints of one Service port in one family, as far as they matter on this node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Those on this node, in order of address.
    pub local: Vec<LocalEndpoint>,
    /// Whether the whole cluster has one that may get connections, whatever the policy says (semantics 3.4).
    pub is_any_usable: bool,
    /// UDP: whether an endpoint that no longer serves loses its flows, as others serve (semantics 11.2 and 11.3).
    pub forgets_departed: bool,
}

/// An endpoint on this node.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Address and target port.
    pub socket: SocketAddr,
    /// Whether it is in the set for new connections.
    pub takes_new: bool,
}

/// The endpoints of a Service port.
///
/// The set for new connections is the ready ones or, where there are none, those that terminate but still serve
/// (KEP-1669). `Local` looks for ready ones on this node, `Cluster` in the whole cluster: there a ready pod elsewhere
/// is better than one that is shutting down here, and hints may leave pods of this node to others.
pub fn endpoints_of(slices: &[&Slice], grant: &Grant, policy: TrafficPolicy, node: &NodeView) -> Endpoints {
    let all = || candidates(slices, grant);
    let is_any_usable = all().any(|(_, endpoint)| endpoint.ready || (endpoint.serving && endpoint.terminating));
    let forgets_departed = grant.name.protocol == Protocol::Udp && all().any(|(_, endpoint)| endpoint.serving);
    // Most Services have no pod on this node, and some have thousands elsewhere.
    let has_local = all().any(|(_, endpoint)| is_on(endpoint, &node.node_name));
    let mut local = if has_local { local_endpoints(&distinct(all()), policy, node) } else { Vec::new() };
    if forgets_departed {
        let serves = |address: IpAddr| all().any(|(socket, endpoint)| endpoint.serving && socket.ip() == address);
        local.retain(|endpoint| endpoint.takes_new || serves(endpoint.socket.ip()));
    }
    Endpoints { local, is_any_usable, forgets_departed }
}

fn local_endpoints(
    everywhere: &BTreeMap<SocketAddr, &Endpoint>,
    policy: TrafficPolicy,
    node: &NodeView,
) -> Vec<LocalEndpoint> {
    let is_local = |endpoint: &Endpoint| is_on(endpoint, &node.node_name);
    let ready = everywhere.values().copied().filter(|endpoint| endpoint.ready);
    let ready: Vec<&Endpoint> = match policy {
        TrafficPolicy::Cluster => ready.collect(),
        TrafficPolicy::Local => ready.filter(|endpoint| is_local(endpoint)).collect(),
    };
    let filter = match policy {
        TrafficPolicy::Cluster => HintFilter::of(&ready, node),
        TrafficPolicy::Local => HintFilter::All,
    };
    let takes_new = |endpoint: &Endpoint| match ready.is_empty() {
        true => endpoint.serving && endpoint.terminating,
        false => endpoint.ready && filter.keeps(endpoint),
    };
    let local = everywhere.iter().filter(|(_, endpoint)| is_local(endpoint));
    local.map(|(socket, endpoint)| LocalEndpoint { socket: *socket, takes_new: takes_new(endpoint) }).collect()
}

/// Which of the ready endpoints are meant for this node (semantics 3.3). Hints count only if every ready endpoint has
/// them, and one is for this node: else they are half written, or leave nothing.
#[derive(Clone, Copy)]
enum HintFilter<'a> {
    Node(&'a str),
    Zone(&'a str),
    All,
}

impl<'a> HintFilter<'a> {
    fn of(ready: &[&Endpoint], node: &'a NodeView) -> Self {
        let zone = node.zone.as_deref().filter(|zone| !zone.is_empty());
        let candidates = [Some(Self::Node(&node.node_name)), zone.map(Self::Zone)];
        let counts = |filter: &Self| {
            ready.iter().all(|endpoint| !filter.hints(endpoint).is_empty())
                && ready.iter().any(|endpoint| filter.keeps(endpoint))
        };
        candidates.into_iter().flatten().find(counts).unwrap_or(Self::All)
    }

    fn keeps(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Node(name) | Self::Zone(name) => self.hints(endpoint).iter().any(|hint| hint == name),
            Self::All => true,
        }
    }

    fn hints(self, endpoint: &Endpoint) -> &[String] {
        let hints = endpoint.hints.as_deref();
        match self {
            Self::Node(_) => hints.map_or(&[], |hints| &hints.nodes),
            Self::Zone(_) => hints.map_or(&[], |hints| &hints.zones),
            Self::All => &[],
        }
    }
}

/// Whether an endpoint runs on the node of that name (semantics 2.4).
pub fn is_on(endpoint: &Endpoint, node_name: &str) -> bool {
    endpoint.node_name.as_deref() == Some(node_name)
}

/// Every endpoint of the port and family, in the whole cluster.
fn candidates<'a>(slices: &[&'a Slice], grant: &Grant) -> impl Iterator<Item = (SocketAddr, &'a Endpoint)> {
    let (port, family) = (grant.port, grant.name.family);
    slices.iter().flat_map(move |slice| {
        let targets =
            slice.ports.iter().filter(move |target| target.name == port.name && target.protocol == port.protocol);
        let endpoints = slice.endpoints.iter().filter(move |endpoint| Family::of(endpoint.address) == family);
        targets.flat_map(move |target| {
            endpoints.clone().map(move |endpoint| (SocketAddr::new(endpoint.address, target.port), endpoint))
        })
    })
}

/// Of two with the same address and port the first stays, unless a later one is not terminating: the pod network may have
/// given the address of a terminating pod to a new one (semantics 2.5).
fn distinct<'a>(candidates: impl Iterator<Item = (SocketAddr, &'a Endpoint)>) -> BTreeMap<SocketAddr, &'a Endpoint> {
    let mut distinct: BTreeMap<SocketAddr, &Endpoint> = BTreeMap::new();
    for (socket, endpoint) in candidates {
        let kept = distinct.entry(socket).or_insert(endpoint);
        if !endpoint.terminating {
            *kept = endpoint;
        }
    }
    distinct
}
