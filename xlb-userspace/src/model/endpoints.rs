//! Which endpoints of a Service port are on this node, and which of them get new connections (semantics 2 and 3).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddrV4};

use super::objects::{Endpoint, ServicePort, Slice, TrafficPolicy};
use crate::node::NodeView;

/// An endpoint on this node.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// Address and target port.
    pub socket: SocketAddrV4,
    /// Whether it is in the set for new connections.
    pub takes_new: bool,
}

/// The endpoints of one Service port on this node, in order of address.
///
/// The set for new connections is the ready ones or, where there are none, those that terminate but still serve
/// (KEP-1669). `Local` looks for ready ones on this node, `Cluster` in the whole cluster: there a ready pod elsewhere
/// is better than one that is shutting down here, and hints may leave pods of this node to others.
pub fn local_endpoints(
    slices: &[&Slice],
    port: &ServicePort,
    policy: TrafficPolicy,
    node: &NodeView,
) -> Vec<LocalEndpoint> {
    let is_local = |endpoint: &Endpoint| is_on(endpoint, &node.node_name);
    // Most Services have no pod on this node, and some have thousands elsewhere.
    if !slices.iter().flat_map(|slice| &slice.endpoints).any(is_local) {
        return Vec::new();
    }
    let everywhere = endpoints_of(slices, port);
    let ready: Vec<&Endpoint> = match policy {
        TrafficPolicy::Cluster => everywhere.values().copied().filter(|endpoint| endpoint.ready).collect(),
        TrafficPolicy::Local => {
            everywhere.values().copied().filter(|endpoint| endpoint.ready && is_local(endpoint)).collect()
        }
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

/// Every IPv4 endpoint of the port, in the whole cluster. Of two with the same address and port the first stays, unless
/// a later one is not terminating: the pod network may have given the address of a terminating pod to a new one
/// (semantics 2.5).
fn endpoints_of<'a>(slices: &[&'a Slice], port: &ServicePort) -> BTreeMap<SocketAddrV4, &'a Endpoint> {
    let mut endpoints: BTreeMap<SocketAddrV4, &Endpoint> = BTreeMap::new();
    for slice in slices {
        for target in slice.ports.iter().filter(|target| target.name == port.name && target.protocol == port.protocol) {
            for endpoint in &slice.endpoints {
                let IpAddr::V4(address) = endpoint.address else { continue };
                let kept = endpoints.entry(SocketAddrV4::new(address, target.port)).or_insert(endpoint);
                if !endpoint.terminating {
                    *kept = endpoint;
                }
            }
        }
    }
    endpoints
}
