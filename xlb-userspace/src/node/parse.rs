//! Netlink messages become a [`Snapshot`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::addresses::NodeAddress;
use super::snapshot::{Link, Route, RouteKind, Snapshot};

/// Tables whose routes count; `default` and those that policy rules choose do not lead to pods.
const TABLES: [u32; 2] = [libc::RT_TABLE_LOCAL as u32, libc::RT_TABLE_MAIN as u32];

/// The snapshot that the answers to the dump requests describe; what does not concern it is skipped.
pub fn snapshot(messages: impl IntoIterator<Item = RouteNetlinkMessage>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for message in messages {
        add(&mut snapshot, &message);
    }
    snapshot
}

fn add(snapshot: &mut Snapshot, message: &RouteNetlinkMessage) {
    match message {
        RouteNetlinkMessage::NewLink(message) => {
            snapshot.links.insert(message.header.index, link(message));
        }
        RouteNetlinkMessage::NewAddress(message) => snapshot.addresses.extend(address(message)),
        RouteNetlinkMessage::NewRoute(message) => snapshot.routes.extend(route(message)),
        RouteNetlinkMessage::NewNeighbour(message) if message.header.family == AddressFamily::Bridge => {
            snapshot.bridge_ports.extend(bridge_port(message));
        }
        RouteNetlinkMessage::NewNeighbour(message) => {
            snapshot.neighbours.extend(neighbour(message));
            snapshot.routers.extend(router(message));
        }
        _ => {}
    }
}

fn link(message: &LinkMessage) -> Link {
    let is_up = message.header.flags.contains(LinkFlags::Up);
    let has_carrier = message.header.flags.contains(LinkFlags::LowerUp);
    let mut link = Link { index: message.header.index, is_up, has_carrier, ..Link::default() };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = mac(bytes).unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.peer_index = Some(*index),
            LinkAttribute::LinkNetNsId(id) => link.netns_id = Some(*id).filter(|id| *id >= 0),
            LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
            _ => {}
        }
    }
    link
}

fn kind(infos: &[LinkInfo]) -> String {
    let kind =
        infos.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind.to_string()) } else { None });
    kind.unwrap_or_default()
}

/// IFA_LOCAL is the node's own address; IFA_ADDRESS is the peer's on a point-to-point link. Tentative addresses, among
/// them those that another machine turned out to have, are no addresses yet, and deprecated ones no longer.
fn address(message: &AddressMessage) -> Option<NodeAddress> {
    let flags = address_flags(message);
    let address = own_address(message).filter(|address| !is_link_local_or_multicast_v6(*address))?;
    if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed | AddressFlags::Deprecated) {
        return None;
    }
    Some(NodeAddress {
        address,
        ifindex: message.header.index,
        is_universal: message.header.scope == AddressScope::Universe,
        is_secondary: flags.contains(AddressFlags::Secondary),
    })
}

/// The header has room for the first eight flags only; all of them, where the kernel tells, are in an attribute.
fn address_flags(message: &AddressMessage) -> AddressFlags {
    let all = message
        .attributes
        .iter()
        .find_map(|a| if let AddressAttribute::Flags(flags) = a { Some(*flags) } else { None });
    all.unwrap_or_else(|| AddressFlags::from_bits_retain(message.header.flags.bits().into()))
}

fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message
        .attributes
        .iter()
        .find_map(|a| if let AddressAttribute::Local(address) = a { Some(*address) } else { None });
    let other = message
        .attributes
        .iter()
        .find_map(|a| if let AddressAttribute::Address(address) = a { Some(*address) } else { None });
    local.or(other)
}

/// A route that decides where a pod's packet goes. Left out: other tables, routes for one type of service or some
/// sources, dead ones, the exceptions (path MTU, redirects) that the kernel dumps among them, and the link-local ones
/// that every link has.
fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let is_exception = header.flags.intersects(RouteFlags::Cloned | RouteFlags::Dead);
    let is_partial = header.tos != 0 || header.source_prefix_length != 0;
    if is_partial || is_exception || !TABLES.contains(&table(message)) {
        return None;
    }
    let destination = destination(message).filter(|address| !is_link_local_or_multicast_v6(*address))?;
    let kind = route_kind(header.kind)?;
    let prefix_length = header.destination_prefix_length;
    let mut route =
        Route { destination, prefix_length, kind, gateway: None, output: None, others: Vec::new(), metric: 0 };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(hops) => {
                // One pod is never behind several links: the first hop serves to name what was found.
                for hop in hops {
                    let gateway = hop.attributes.iter().find_map(gateway);
                    match route.output {
                        None => (route.output, route.gateway) = (Some(hop.interface_index), gateway),
                        Some(_) => route.others.push((hop.interface_index, gateway)),
                    }
                }
            }
            attribute => add_hop(&mut route, attribute),
        }
    }
    Some(route)
}

/// A default route comes without one; other families (multicast routing, MPLS) have none that counts.
fn destination(message: &RouteMessage) -> Option<IpAddr> {
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let given = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(destination) => ip_address(destination),
        _ => None,
    });
    Some(given.unwrap_or(unspecified))
}

fn ip_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn add_hop(route: &mut Route, attribute: &RouteAttribute) {
    match attribute {
        RouteAttribute::Oif(index) => route.output = Some(*index),
        attribute => route.gateway = gateway(attribute).or(route.gateway),
    }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(gateway) => ip_address(gateway),
        RouteAttribute::Via(RouteVia::Inet(gateway)) => Some((*gateway).into()),
        RouteAttribute::Via(RouteVia::Inet6(gateway)) => Some((*gateway).into()),
        _ => None,
    }
}

fn table(message: &RouteMessage) -> u32 {
    let attribute =
        message.attributes.iter().find_map(|a| if let RouteAttribute::Table(table) = a { Some(*table) } else { None });
    attribute.unwrap_or(message.header.table.into())
}

fn route_kind(kind: RouteType) -> Option<RouteKind> {
    match kind {
        RouteType::Local => Some(RouteKind::Local),
        RouteType::Unicast => Some(RouteKind::Unicast),
        RouteType::BlackHole => Some(RouteKind::Blackhole),
        RouteType::Unreachable => Some(RouteKind::Unreachable),
        RouteType::Prohibit => Some(RouteKind::Prohibit),
        _ => None,
    }
}

/// The kernel gives the MAC only in states in which it is valid.
fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), [u8; 6])> {
    any_neighbour(message).filter(|((_, address), _)| !is_link_local_or_multicast_v6(*address))
}

/// A router, by the link-local address that IPv6 routers have (RFC 4861 chapter 6.1.2).
fn router(message: &NeighbourMessage) -> Option<((u32, IpAddr), [u8; 6])> {
    let is_router = message.header.flags.contains(NeighbourFlags::Router);
    any_neighbour(message).filter(|((_, address), _)| is_router && is_link_local_or_multicast_v6(*address))
}

fn any_neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), [u8; 6])> {
    let mac = neighbour_mac(message)?;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some(IpAddr::from(*address)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(IpAddr::from(*address)),
        _ => None,
    })?;
    Some(((message.header.ifindex, address), mac))
}

/// An entry of a bridge's table that says where a MAC was seen: not the bridge's own MACs (permanent), not a port's
/// filter (self).
fn bridge_port(message: &NeighbourMessage) -> Option<((u32, [u8; 6]), u32)> {
    let header = &message.header;
    if header.state == NeighbourState::Permanent || header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let mac = neighbour_mac(message)?;
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Controller(bridge) => Some(((*bridge, mac), header.ifindex)),
        _ => None,
    })
}

fn neighbour_mac(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    })
}

/// What every link has of its own (fe80::/10, ff00::/8): no pod has such an address, and traffic changes the entries.
fn is_link_local_or_multicast_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local() || address.is_multicast())
}

fn mac(bytes: &[u8]) -> Option<[u8; 6]> {
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests;
