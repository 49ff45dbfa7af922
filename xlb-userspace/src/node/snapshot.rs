//! The node at one moment: links, addresses, routes, neighbours and bridge tables, as plain data.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result};

use super::addresses::NodeAddress;

/// How many interface names an error message lists.
const NAMES_LISTED_MAX: usize = 20;

/// A picture of the node's links, addresses, routes, neighbours and bridge tables at one moment.
///
/// Two snapshots are equal when they answer every question alike: states and ages that change under traffic are left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Links by index.
    pub links: BTreeMap<u32, Link>,
    /// The addresses on this node's links, as the kernel lists them.
    pub addresses: Vec<NodeAddress>,
    /// Routes of the tables `local` and `main`.
    pub routes: Vec<Route>,
    /// MAC of a neighbour by link index and address; entries without a MAC are left out.
    pub neighbours: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// MAC of a router by link index and its IPv6 link-local address, which [`Self::neighbours`] leaves out.
    pub routers: BTreeMap<(u32, IpAddr), [u8; 6]>,
    /// Index of the port behind which a MAC was seen, by index of the bridge and MAC; a bridge's own MACs are left out.
    pub bridge_ports: BTreeMap<(u32, [u8; 6]), u32>,
}

/// One link of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The kernel's word for its kind (`veth`, `bridge`, ...); empty for hardware and the loopback link.
    pub kind: String,
    /// Its MAC; zeros for a link that has none.
    pub mac: [u8; 6],
    /// Id of the network namespace of its other end (IFLA_LINK_NETNSID); none: the other end is in this one.
    pub netns_id: Option<i32>,
    /// Index of its other end or lower link (IFLA_LINK), in the namespace of `netns_id`.
    pub peer_index: Option<u32>,
    /// Index of the bridge or bond it is a port of.
    pub master: Option<u32>,
    /// Whether an operator has set it up.
    pub is_up: bool,
    /// Whether its other end is up, too.
    pub has_carrier: bool,
    /// Largest packet it takes, in bytes.
    pub mtu: u32,
}

/// One route, of either family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// First address of what it covers.
    pub destination: IpAddr,
    /// Length of its prefix in bits.
    pub prefix_length: u8,
    /// What it does.
    pub kind: RouteKind,
    /// The next hop; none: the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// Index of the link it leads over.
    pub output: Option<u32>,
    /// Further links that it leads over, each packet by one, and the gateways there.
    pub others: Vec<(u32, Option<IpAddr>)>,
    /// Of two routes to the same prefix the one with the smaller metric counts.
    pub metric: u32,
}

/// What a route does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// Delivers it to this node itself.
    Local,
    /// Sends it over a link.
    Unicast,
    /// Drops it in silence.
    Blackhole,
    /// Refuses it: host unreachable.
    Unreachable,
    /// Refuses it: administratively prohibited.
    Prohibit,
}

impl Snapshot {
    /// The link of that name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The link of that name, or an error that says which links there are.
    pub fn require_link(&self, name: &str) -> Result<&Link> {
        self.link_by_name(name)
            .with_context(|| format!("no interface {name} on this node; there are {}", self.link_names()))
    }

    /// The route the kernel takes to an address, policy rules left aside: table `local` first, then the longest prefix
    /// of `main`.
    pub fn route_to(&self, address: IpAddr) -> Option<&Route> {
        let covering = self.routes.iter().filter(|route| route.covers(address));
        covering.max_by_key(|route| (route.kind == RouteKind::Local, route.prefix_length, Reverse(route.metric)))
    }

    /// Whether some route leads over this link to a gateway: then there is a network behind it, not one pod.
    pub fn is_uplink(&self, link: &Link) -> bool {
        self.routes.iter().any(|route| route.gateway.is_some() && route.output == Some(link.index))
    }

    /// Gateways that routes lead to over the link, each with a number of its family.
    #[must_use]
    pub fn gateways_by(&self, ifindex: u32) -> Vec<(u8, IpAddr)> {
        let hops = self.routes.iter().flat_map(Route::hops);
        let gateways = hops.filter(|(output, _)| *output == ifindex).filter_map(|(_, gateway)| gateway);
        gateways.map(|gateway| (u8::from(gateway.is_ipv6()), gateway)).collect()
    }

    /// The host's ends of pods' links: veths whose other end is in another network namespace, and that lead to no gateway.
    pub fn pod_links(&self) -> impl Iterator<Item = &Link> {
        let is_pods = |link: &&Link| link.kind == "veth" && link.netns_id.is_some() && !self.is_uplink(link);
        self.links.values().filter(is_pods)
    }

    /// Name of a link for a message, also when the link is gone.
    pub fn link_name(&self, index: Option<u32>) -> String {
        let Some(index) = index else { return "no link".to_owned() };
        self.links.get(&index).map_or_else(|| format!("a link that is gone (index {index})"), |link| link.name.clone())
    }

    fn link_names(&self) -> String {
        let listed: Vec<&str> = self.links.values().take(NAMES_LISTED_MAX).map(|link| link.name.as_str()).collect();
        match self.links.len().saturating_sub(NAMES_LISTED_MAX) {
            0 => listed.join(", "),
            more => format!("{} and {more} more", listed.join(", ")),
        }
    }
}

impl Route {
    /// Whether it is a route to one address.
    pub fn is_to_one_host(&self) -> bool {
        self.prefix_length == if self.destination.is_ipv4() { 32 } else { 128 }
    }

    /// The links that it leads over, with the gateways there.
    pub fn hops(&self) -> impl Iterator<Item = (u32, Option<IpAddr>)> + '_ {
        self.output.map(|output| (output, self.gateway)).into_iter().chain(self.others.iter().copied())
    }

    fn covers(&self, address: IpAddr) -> bool {
        let length = u32::from(self.prefix_length);
        match (self.destination, address) {
            (IpAddr::V4(destination), IpAddr::V4(address)) => {
                let differs = u32::from(destination) ^ u32::from(address);
                differs.leading_zeros() >= length
            }
            (IpAddr::V6(destination), IpAddr::V6(address)) => {
                let differs = u128::from(destination) ^ u128::from(address);
                differs.leading_zeros() >= length
            }
            _ => false,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Local => f.write_str("local ")?,
            RouteKind::Unicast => {}
            RouteKind::Blackhole => f.write_str("blackhole ")?,
            RouteKind::Unreachable => f.write_str("unreachable ")?,
            RouteKind::Prohibit => f.write_str("prohibit ")?,
        }
        write!(f, "route to {}/{}", self.destination, self.prefix_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_then_the_smaller_metric() {
        let snapshot = Snapshot {
            routes: vec![
                route("0.0.0.0", 0, 0),
                route("10.0.0.0", 8, 0),
                route("10.1.0.0", 16, 200),
                route("10.1.0.0", 16, 100),
            ],
            ..Snapshot::default()
        };

        let metric_and_length =
            |address: [u8; 4]| snapshot.route_to(address.into()).map(|route| (route.prefix_length, route.metric));

        assert_eq!(metric_and_length([10, 1, 2, 3]), Some((16, 100)));
        assert_eq!(metric_and_length([10, 2, 2, 3]), Some((8, 0)));
        assert_eq!(metric_and_length([11, 2, 2, 3]), Some((0, 0)));
    }

    #[test]
    fn a_route_covers_addresses_of_its_own_family_and_prefix_only() {
        let cases = [
            ("0.0.0.0", 0, "10.1.2.3", true),
            ("0.0.0.0", 0, "fd00::1", false),
            ("::", 0, "fd00::1", true),
            ("::", 0, "10.1.2.3", false),
            ("10.1.2.2", 31, "10.1.2.3", true),
            ("10.1.2.2", 32, "10.1.2.3", false),
            ("fd00:1:3::40", 122, "fd00:1:3::7f", true),
            ("fd00:1:3::40", 122, "fd00:1:3::80", false),
            ("fd00::5", 128, "fd00::5", true),
            ("fd00::5", 128, "fd00::4", false),
        ];
        for (destination, length, address, covers) in cases {
            let route = route(destination, length, 0);
            assert_eq!(route.covers(address.parse().unwrap()), covers, "{route} and {address}");
        }
    }

    #[test]
    fn a_route_to_one_host_has_all_bits_of_its_family() {
        let to_one_host = |destination, length| route(destination, length, 0).is_to_one_host();

        assert!(to_one_host("10.1.2.3", 32) && to_one_host("fd00::5", 128));
        assert!(!to_one_host("10.1.2.2", 31) && !to_one_host("fd00::", 32));
    }

    #[test]
    fn an_unknown_interface_is_refused_with_the_names_that_exist() {
        let links =
            (1..=22).map(|index| (index, Link { index, name: format!("eth{index}"), ..Link::default() })).collect();
        let snapshot = Snapshot { links, ..Snapshot::default() };

        let message = snapshot.require_link("ens3").map(|_| ()).unwrap_err().to_string();

        assert!(message.starts_with("no interface ens3 on this node; there are eth1, eth2, "), "{message}");
        assert!(message.ends_with("eth20 and 2 more"), "{message}");
    }

    #[test]
    fn pods_links_are_veths_into_other_namespaces_that_lead_to_no_gateway() {
        let veth = |index| Link { index, kind: "veth".into(), netns_id: Some(3), ..Link::default() };
        let links = [
            veth(1),
            veth(2),
            Link { netns_id: None, ..veth(3) },
            Link { kind: "vxlan".into(), ..veth(4) },
            Link { master: Some(9), ..veth(5) },
        ];
        let gateway = Some("192.0.2.1".parse().unwrap());
        let default = Route { gateway, output: Some(2), ..route("0.0.0.0", 0, 0) };
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        let snapshot = Snapshot { links, routes: vec![default], ..Snapshot::default() };

        let found: Vec<u32> = snapshot.pod_links().map(|link| link.index).collect();

        assert_eq!(found, [1, 5]);
    }

    fn route(destination: &str, prefix_length: u8, metric: u32) -> Route {
        let destination = destination.parse().unwrap();
        Route {
            destination,
            prefix_length,
            kind: RouteKind::Unicast,
            gateway: None,
            output: Some(1),
            others: Vec::new(),
            metric,
        }
    }
}
