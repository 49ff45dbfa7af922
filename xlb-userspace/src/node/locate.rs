//! Where a pod is, decided from a [`Snapshot`].

use std::net::IpAddr;

use super::snapshot::{Link, Route, RouteKind, Snapshot};
use super::{LinkState, Location, PodLink};

/// What a snapshot says of an address.
enum Finding<'a> {
    Known(Location),
    /// Nothing leads there but perhaps a default route, or a route that refuses it. The sentence says what was found.
    Nowhere(String),
    /// It is on this bridge, and the bridge has not seen it lately: traffic that does not pass the bridge lets the
    /// entry age out.
    Unlearned {
        bridge: &'a Link,
        pod_mac: Option<[u8; 6]>,
    },
}

impl Snapshot {
    /// Where the pod with this address is. `takes_xdp_frames` is false in every answer: see
    /// [`super::complete_with_xdp`].
    pub fn locate(&self, address: IpAddr) -> Location {
        match self.find(address) {
            Finding::Known(location) => location,
            Finding::Nowhere(sentence) => Location::Unreachable(sentence),
            Finding::Unlearned { bridge, .. } => not_yet_learned(address, bridge),
        }
    }

    /// Where the pod is, given the answer of an earlier snapshot.
    ///
    /// A bridge that forgot the pod's port is no news. The port gone, another namespace or another bridge behind it,
    /// another MAC for the address are. A route that went is no end of the pod while its link is there: the kernel takes
    /// the routes of a link that is set down, and does not bring them back. What was known of the pod's end of the same link (its MAC, whether it takes XDP
    /// frames) stays known.
    pub fn locate_again(&self, address: IpAddr, previous: &Location) -> Location {
        let Location::Link(before) = previous else { return self.locate(address) };
        match self.find(address) {
            Finding::Known(Location::Link(now)) => Location::Link(remember(now, before)),
            Finding::Known(location) => location,
            Finding::Nowhere(sentence) => match self.same_link(before) {
                Some(link) => Location::Link(without_route(remember(pod_link(link, before.pod_mac), before))),
                None => Location::Unreachable(sentence),
            },
            Finding::Unlearned { bridge, pod_mac } => match self.same_port(before, bridge, pod_mac) {
                Some(port) => Location::Link(remember(pod_link(port, before.pod_mac), before)),
                None => not_yet_learned(address, bridge),
            },
        }
    }

    /// Whether the pod is on a bridge that does not say behind which port: [`super::Netlink::provoke`] makes it learn.
    pub fn is_unlearned(&self, address: IpAddr) -> bool {
        matches!(self.find(address), Finding::Unlearned { .. })
    }

    fn find(&self, address: IpAddr) -> Finding<'_> {
        if self.has_address(address) {
            return Finding::Known(Location::Host);
        }
        let Some(route) = self.route_to(address) else {
            return Finding::Nowhere(format!("no route leads to {address}"));
        };
        match route.kind {
            RouteKind::Local => Finding::Known(Location::Host),
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit => {
                Finding::Nowhere(format!("{address} is under the {route}"))
            }
            RouteKind::Unicast if route.prefix_length == 0 => {
                Finding::Nowhere(format!("only the default route leads to {address}"))
            }
            RouteKind::Unicast => match route.gateway {
                Some(gateway) => self.through_gateway(route, gateway),
                None => self.on_link(address, route),
            },
        }
    }

    /// A route through a gateway leads off this node, unless the gateway is this node: Cilium routes its pods to an
    /// address of its own.
    fn through_gateway(&self, route: &Route, gateway: IpAddr) -> Finding<'_> {
        if self.has_address(gateway) {
            return Finding::Known(Location::Routed);
        }
        let link = self.link_name(route.output);
        unreachable(format!("{route} leads via gateway {gateway} on {link}: a pod of another node"))
    }

    fn on_link(&self, address: IpAddr, route: &Route) -> Finding<'_> {
        let Some(link) = route.output.and_then(|index| self.links.get(&index)) else {
            return unreachable(format!("{route} leads over {}", self.link_name(route.output)));
        };
        if link.kind == "bridge" {
            return self.on_bridge(address, link);
        }
        if !route.is_to_one_host() && self.is_uplink(link) {
            return unreachable(format!("{route} is the network of uplink {}: a neighbour of this node", link.name));
        }
        if link.kind != "veth" && !route.is_to_one_host() {
            return Finding::Known(Location::Routed);
        }
        Finding::Known(Location::Link(pod_link(link, self.neighbours.get(&(link.index, address)).copied())))
    }

    fn on_bridge<'a>(&'a self, address: IpAddr, bridge: &'a Link) -> Finding<'a> {
        let pod_mac = self.neighbours.get(&(bridge.index, address)).copied();
        let port =
            pod_mac.and_then(|mac| self.bridge_ports.get(&(bridge.index, mac))).and_then(|index| self.links.get(index));
        match port {
            None => Finding::Unlearned { bridge, pod_mac },
            Some(port) if may_be_a_pods(port) => Finding::Known(Location::Link(pod_link(port, pod_mac))),
            Some(port) => unreachable(format!(
                "{address} is behind {}, a port of {} that leads off this node",
                port.name, bridge.name
            )),
        }
    }

    /// The port of an earlier answer, if nothing speaks against it.
    fn same_port(&self, before: &PodLink, bridge: &Link, pod_mac: Option<[u8; 6]>) -> Option<&Link> {
        let is_same_pod = pod_mac.is_none() || pod_mac == before.pod_mac;
        self.same_link(before).filter(|port| port.master == Some(bridge.index) && is_same_pod)
    }

    /// The link of an earlier answer, if it leads to the same namespace.
    fn same_link(&self, before: &PodLink) -> Option<&Link> {
        self.links.get(&before.ifindex).filter(|link| link.netns_id == before.netns_id)
    }
}

/// A bridge port that ends in a pod or a virtual machine; hardware, VLANs and tunnels lead to other nodes.
fn may_be_a_pods(port: &Link) -> bool {
    matches!(port.kind.as_str(), "veth" | "tun")
}

fn pod_link(link: &Link, pod_mac: Option<[u8; 6]>) -> PodLink {
    PodLink {
        ifindex: link.index,
        name: link.name.clone(),
        is_veth: link.kind == "veth",
        netns_id: link.netns_id,
        hides_sockets: false,
        host_mac: link.mac,
        pod_mac,
        takes_xdp_frames: false,
        state: state(link),
    }
}

fn state(link: &Link) -> LinkState {
    match (link.is_up, link.has_carrier) {
        (false, _) => LinkState::Down,
        (true, false) => LinkState::WithoutCarrier,
        (true, true) => LinkState::Carries,
    }
}

/// A link that is down says more than the route that it took along.
fn without_route(link: PodLink) -> PodLink {
    match link.state {
        LinkState::Carries => PodLink { state: LinkState::WithoutRoute, ..link },
        _ => link,
    }
}

/// Carries over what an earlier answer knew of the pod's end, if it is the same link.
fn remember(now: PodLink, before: &PodLink) -> PodLink {
    if (now.ifindex, now.netns_id) != (before.ifindex, before.netns_id) {
        return now;
    }
    let PodLink { pod_mac, takes_xdp_frames, hides_sockets, .. } = *before;
    PodLink { pod_mac: now.pod_mac.or(pod_mac), takes_xdp_frames, hides_sockets, ..now }
}

fn not_yet_learned(address: IpAddr, bridge: &Link) -> Location {
    Location::Unreachable(format!("{} has not yet learned behind which port {address} is", bridge.name))
}

fn unreachable<'a>(sentence: String) -> Finding<'a> {
    Finding::Known(Location::Unreachable(sentence))
}

#[cfg(test)]
mod tests;
