//! Which endpoints of a Service port are on this node, which of them get new connections, and which ones of the whole
//! cluster do from clients inside (semantics 2 and 3).

use std::net::{IpAddr, SocketAddr};

use super::frontends::Grant;
use super::objects::{Endpoint, Slice, TrafficPolicy};
use crate::node::NodeView;
use crate::plan::desired::{DesiredInside, Family, Protocol};

/// The endpoints of one Service port in one family, as far as they matter on this node.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Those on this node, in order of address.
    pub local: Vec<LocalEndpoint>,
    /// Those on this node that nothing gets through to, and whether the API would have them in the set.
    pub lost: Vec<LocalEndpoint>,
    /// Whether the whole cluster has one that may get connections, whatever the policy says (semantics 3.4).
    pub is_any_usable: bool,
    /// UDP: whether an endpoint that no longer serves loses its flows, as others serve (semantics 11.2 and 11.3).
    pub forgets_departed: bool,
    /// Those of the whole cluster for clients inside, whatever the policy says, and what it says (semantics 6).
    pub inside: DesiredInside,
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
///
/// The API server learns late of a pod of this node that nothing gets through to ([`NodeView::has_lost`]): the choice is
/// made as if it were no endpoint. Whether there is anybody in the cluster stays the API's word, and so does everything
/// for clients inside when all are lost.
pub fn endpoints_of(slices: &[&Slice], grant: &Grant, policy: TrafficPolicy, node: &NodeView) -> Endpoints {
    let everywhere = distinct(slices, grant);
    let asked = chosen(&everywhere, grant, policy, node);
    let is_lost = |(_, endpoint): &&Candidate| is_on(endpoint, &node.node_name) && node.has_lost(endpoint.address);
    if !everywhere.iter().any(|candidate| is_lost(&candidate)) {
        return asked;
    }
    let present: Vec<Candidate> = everywhere.iter().filter(|candidate| !is_lost(candidate)).copied().collect();
    let chosen = chosen(&present, grant, policy, node);
    let lost = asked.local.into_iter().filter(|endpoint| node.has_lost(endpoint.socket.ip())).collect();
    let inside = if chosen.inside.usable.is_empty() { asked.inside } else { chosen.inside };
    Endpoints { lost, inside, is_any_usable: asked.is_any_usable, ..chosen }
}

fn chosen(everywhere: &[Candidate], grant: &Grant, policy: TrafficPolicy, node: &NodeView) -> Endpoints {
    let all = || everywhere.iter().map(|(_, endpoint)| *endpoint);
    let is_udp = grant.name.protocol == Protocol::Udp;
    let forgets_departed = is_udp && all().any(|endpoint| endpoint.serving);
    let everyone = Choice::of(everywhere, node);
    let mut local = local_endpoints(everywhere, policy, &everyone, node);
    if forgets_departed {
        let serves = |address: IpAddr| all().any(|endpoint| endpoint.serving && endpoint.address == address);
        local.retain(|endpoint| endpoint.takes_new || serves(endpoint.socket.ip()));
    }
    let mut inside = inside(everywhere, &everyone, is_udp);
    inside.local = local_set(&local, policy).filter(|set| *set != inside.usable);
    Endpoints { local, lost: Vec::new(), is_any_usable: !inside.usable.is_empty(), forgets_departed, inside }
}

fn local_endpoints(
    everywhere: &[Candidate],
    policy: TrafficPolicy,
    everyone: &Choice,
    node: &NodeView,
) -> Vec<LocalEndpoint> {
    let local = || everywhere.iter().filter(|(_, endpoint)| is_on(endpoint, &node.node_name));
    let here = Choice { has_ready: local().any(|(_, endpoint)| endpoint.ready), filter: HintFilter::All };
    let choice = match policy {
        TrafficPolicy::Cluster => everyone,
        TrafficPolicy::Local => &here,
    };
    local().map(|&(socket, endpoint)| LocalEndpoint { socket, takes_new: choice.takes_new(endpoint) }).collect()
}

/// What clients outside get where the policy is Local (semantics 3.2).
fn local_set(local: &[LocalEndpoint], policy: TrafficPolicy) -> Option<Vec<SocketAddr>> {
    let takers = local.iter().filter(|endpoint| endpoint.takes_new).map(|endpoint| endpoint.socket);
    (policy == TrafficPolicy::Local).then(|| takers.collect())
}

/// The cluster set. A socket's datagrams go on to an endpoint that serves, also when it left the set (semantics 11.2);
/// a connection needs nobody to say where it goes.
fn inside(everywhere: &[Candidate], everyone: &Choice, is_udp: bool) -> DesiredInside {
    let mut inside = DesiredInside { usable: Vec::with_capacity(everywhere.len()), lingering: Vec::new(), local: None };
    for &(socket, endpoint) in everywhere {
        if everyone.takes_new(endpoint) {
            inside.usable.push(socket);
        } else if is_udp && endpoint.serving {
            inside.lingering.push(socket);
        }
    }
    inside
}

/// The endpoints that get new connections, out of some.
struct Choice<'a> {
    has_ready: bool,
    filter: HintFilter<'a>,
}

impl<'a> Choice<'a> {
    /// Out of the whole cluster's (semantics 3.1).
    fn of(everywhere: &[Candidate], node: &'a NodeView) -> Self {
        let ready = || everywhere.iter().map(|(_, endpoint)| *endpoint).filter(|endpoint| endpoint.ready);
        Self { has_ready: ready().next().is_some(), filter: HintFilter::of(ready, node) }
    }

    fn takes_new(&self, endpoint: &Endpoint) -> bool {
        if self.has_ready { endpoint.ready && self.filter.keeps(endpoint) } else { is_last_resort(endpoint) }
    }
}

/// Gets new connections where nobody is ready (KEP-1669).
fn is_last_resort(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
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
    fn of<'e, I: Iterator<Item = &'e Endpoint>>(ready: impl Fn() -> I, node: &'a NodeView) -> Self {
        let zone = node.zone.as_deref().filter(|zone| !zone.is_empty());
        let candidates = [Some(Self::Node(&node.node_name)), zone.map(Self::Zone)];
        let counts = |filter: &Self| {
            ready().all(|endpoint| !filter.hints(endpoint).is_empty()) && ready().any(|endpoint| filter.keeps(endpoint))
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

/// An endpoint at its target port.
type Candidate<'a> = (SocketAddr, &'a Endpoint);

/// Every endpoint of the port and family, in the whole cluster.
fn candidates<'a>(slices: &[&'a Slice], grant: &Grant) -> impl Iterator<Item = Candidate<'a>> {
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

/// In order of address and port. Of two with the same the first stays, unless a later one is not terminating: the pod
/// network may have given the address of a terminating pod to a new one (semantics 2.5).
fn distinct<'a>(slices: &[&'a Slice], grant: &Grant) -> Vec<Candidate<'a>> {
    let mut distinct: Vec<Candidate> = Vec::with_capacity(slices.iter().map(|slice| slice.endpoints.len()).sum());
    distinct.extend(candidates(slices, grant));
    // Stable: those of one address stay in the order of their slices.
    distinct.sort_by_key(|(socket, _)| *socket);
    distinct.dedup_by(|later, kept| {
        let is_same = later.0 == kept.0;
        if is_same && !later.1.terminating {
            kept.1 = later.1;
        }
        is_same
    });
    distinct
}
