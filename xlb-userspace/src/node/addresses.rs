//! The node's own addresses: all of them, and the one per family that stands for a link or for the node.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::snapshot::{RouteKind, Snapshot};

/// An address on one of the node's links.
///
/// Not among them: tentative addresses (not the node's yet, RFC 4862 chapter 5.4), deprecated ones (not to be used for
/// what is new, chapter 5.5.4), and the IPv6 link-local ones that every link has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    /// The address.
    pub address: IpAddr,
    /// Index of the link it is on.
    pub ifindex: u32,
    /// Whether the kernel lets it be used everywhere (scope universe).
    pub is_universal: bool,
    /// Whether it comes second: an IPv4 address in the subnet of another one, or a temporary IPv6 address (RFC 8981).
    pub is_secondary: bool,
}

/// At most one address of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyAddresses {
    /// The IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl Snapshot {
    /// Every address on this node's links; see [`NodeAddress`] for those that do not count.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.addresses.iter().map(|own| own.address).collect()
    }

    /// Whether the address is on one of this node's links.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.address == address)
    }

    /// The node's primary addresses, as the kubelet and kube-proxy find them where nobody names one: of each family the
    /// address of the link that the default route leads over, else the first global one of the node.
    pub fn primary_addresses(&self) -> FamilyAddresses {
        FamilyAddresses { v4: self.primary(ipv4_of), v6: self.primary(ipv6_of) }
    }

    /// The addresses a link speaks with: of each family the first global one on it.
    pub fn addresses_of(&self, ifindex: u32) -> FamilyAddresses {
        FamilyAddresses { v4: self.first(Some(ifindex), ipv4_of), v6: self.first(Some(ifindex), ipv6_of) }
    }

    fn primary<A>(&self, family: fn(IpAddr) -> Option<A>) -> Option<A> {
        let defaults = self.routes.iter().filter(|route| {
            route.kind == RouteKind::Unicast && route.prefix_length == 0 && family(route.destination).is_some()
        });
        let default_link = defaults.min_by_key(|route| route.metric).and_then(|route| route.output);
        default_link.and_then(|link| self.first(Some(link), family)).or_else(|| self.first(None, family))
    }

    /// The first global address of the family, of one link or of all in the order of their indexes; a secondary one
    /// only where there is no other.
    fn first<A>(&self, ifindex: Option<u32>, family: fn(IpAddr) -> Option<A>) -> Option<A> {
        let candidates = self.addresses.iter().filter(|own| {
            own.is_global() && ifindex.is_none_or(|index| index == own.ifindex) && family(own.address).is_some()
        });
        candidates.min_by_key(|own| (own.is_secondary, own.ifindex)).and_then(|own| family(own.address))
    }
}

impl NodeAddress {
    /// Whether it means this node everywhere. The kernel gives scope universe also to link-local IPv4 addresses that
    /// were set by hand, as some networks of pods do for their own use.
    fn is_global(&self) -> bool {
        let is_local = match self.address {
            IpAddr::V4(address) => address.is_link_local() || address.is_loopback(),
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_loopback(),
        };
        self.is_universal && !is_local
    }
}

fn ipv4_of(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn ipv6_of(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Route;
    use super::*;

    const LO: u32 = 1;
    const ETH0: u32 = 2;
    const CNI0: u32 = 3;
    const ETH1: u32 = 4;

    #[test]
    fn a_link_speaks_with_its_first_global_address_that_is_not_secondary() {
        let snapshot = Snapshot {
            addresses: vec![
                own("10.1.1.1", CNI0),
                own("169.254.169.2", ETH0),
                NodeAddress { is_secondary: true, ..own("192.168.0.3", ETH0) },
                own("192.168.0.2", ETH0),
                own("192.168.9.9", ETH0),
                NodeAddress { is_universal: false, ..own("fec0::2", ETH0) },
                NodeAddress { is_secondary: true, ..own("fd00::abcd", ETH0) },
            ],
            ..Snapshot::default()
        };

        assert_eq!(snapshot.addresses_of(ETH0), pair("192.168.0.2", "fd00::abcd"));
        assert_eq!(snapshot.addresses_of(LO), FamilyAddresses::default());
    }

    #[test]
    fn the_primary_address_is_on_the_link_of_the_default_route_of_its_family() {
        let routes = vec![
            default_route("0.0.0.0", ETH0, 100),
            default_route("0.0.0.0", ETH1, 50),
            default_route("::", ETH0, 1024),
            Route { prefix_length: 8, ..default_route("0.0.0.0", CNI0, 0) },
            Route { kind: RouteKind::Unreachable, ..default_route("::", CNI0, 1) },
        ];
        let snapshot = Snapshot { addresses: both_everywhere(), routes, ..Snapshot::default() };

        assert_eq!(snapshot.primary_addresses(), pair("192.168.4.1", "fd00:2::1"));
    }

    #[test]
    fn without_a_default_route_or_an_address_on_its_link_the_first_global_address_is_primary() {
        let no_routes = Snapshot { addresses: both_everywhere(), ..Snapshot::default() };
        let unnumbered = Snapshot {
            routes: vec![default_route("0.0.0.0", 9, 0), default_route("::", 9, 0)],
            addresses: both_everywhere().into_iter().rev().collect(),
            ..Snapshot::default()
        };

        for snapshot in [no_routes, unnumbered] {
            assert_eq!(snapshot.primary_addresses(), pair("192.168.2.1", "fd00:2::1"));
        }
        assert_eq!(Snapshot::default().primary_addresses(), FamilyAddresses::default());
    }

    /// Of each link one address per family, which names its index.
    fn both_everywhere() -> Vec<NodeAddress> {
        let of_links = [ETH0, CNI0, ETH1]
            .into_iter()
            .flat_map(|index| [own(&format!("192.168.{index}.1"), index), own(&format!("fd00:{index}::1"), index)]);
        [own("127.0.0.1", LO), own("::1", LO)].into_iter().chain(of_links).collect()
    }

    fn own(address: &str, ifindex: u32) -> NodeAddress {
        NodeAddress { address: address.parse().unwrap(), ifindex, is_universal: true, is_secondary: false }
    }

    fn default_route(destination: &str, output: u32, metric: u32) -> Route {
        let destination = destination.parse().unwrap();
        let output = Some(output);
        Route {
            destination,
            prefix_length: 0,
            kind: RouteKind::Unicast,
            gateway: None,
            output,
            others: Vec::new(),
            metric,
        }
    }

    fn pair(v4: &str, v6: &str) -> FamilyAddresses {
        FamilyAddresses { v4: v4.parse().ok(), v6: v6.parse().ok() }
    }
}
