//! Which endpoints of a Service port are on this node, and which of them get new connections (semantics 2 and 3).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddrV4};

use super::objects::{Endpoint, ServicePort, Slice, TrafficPolicy};

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
/// is better than one that is shutting down here.
pub fn local_endpoints(
    slices: &[&Slice],
    port: &ServicePort,
    policy: TrafficPolicy,
    node_name: &str,
) -> Vec<LocalEndpoint> {
    let everywhere = endpoints_of(slices, port);
    let is_local = |endpoint: &Endpoint| is_on(endpoint, node_name);
    let is_judged = |endpoint: &Endpoint| policy == TrafficPolicy::Cluster || is_local(endpoint);
    let some_are_ready = everywhere.values().any(|endpoint| is_judged(endpoint) && endpoint.ready);

    let takes_new = |endpoint: &Endpoint| match some_are_ready {
        true => endpoint.ready,
        false => endpoint.serving && endpoint.terminating,
    };
    let local = everywhere.into_iter().filter(|(_, endpoint)| is_local(endpoint));
    local.map(|(socket, endpoint)| LocalEndpoint { socket, takes_new: takes_new(endpoint) }).collect()
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
