//! Facts about what of a netlink message counts.

use netlink_packet_route::link::InfoKind;

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 5);

#[test]
fn a_veth_keeps_its_namespace_peer_and_master() {
    let mut message = LinkMessage::default();
    message.header.index = 4;
    message.header.flags = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName("veth4".to_owned()),
        LinkAttribute::Address(MAC.to_vec()),
        LinkAttribute::Mtu(1450),
        LinkAttribute::Controller(3),
        LinkAttribute::Link(2),
        LinkAttribute::LinkNetNsId(0),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
    ];

    let expected = Link {
        index: 4,
        name: "veth4".to_owned(),
        kind: "veth".to_owned(),
        mac: MAC,
        netns_id: Some(0),
        peer_index: Some(2),
        master: Some(3),
        is_up: true,
        mtu: 1450,
    };
    assert_eq!(link(&message), expected);
}

#[test]
fn a_link_without_an_ethernet_address_has_zeros() {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::Address(vec![192, 168, 0, 2])];

    assert_eq!(link(&message).mac, [0; 6]);
}

#[test]
fn the_nodes_own_address_on_a_point_to_point_link_is_the_local_one() {
    let own = Ipv4Addr::new(10, 0, 0, 1);
    let mut message = AddressMessage::default();
    message.attributes = vec![AddressAttribute::Address(POD.into()), AddressAttribute::Local(own.into())];

    assert_eq!(address(&message), Some(own));
}

#[test]
fn only_live_routes_of_main_and_local_count() {
    type Change = fn(&mut RouteMessage);
    let cases: [(&str, Change, bool); 7] = [
        ("main", |_| {}, true),
        ("local", |message| message.header.table = libc::RT_TABLE_LOCAL, true),
        ("another table", |message| message.attributes.push(RouteAttribute::Table(100)), false),
        ("path MTU exception", |message| message.header.flags = RouteFlags::Cloned, false),
        ("dead next hop", |message| message.header.flags = RouteFlags::Dead, false),
        ("type of service", |message| message.header.tos = 16, false),
        ("broadcast", |message| message.header.kind = RouteType::Broadcast, false),
    ];
    for (name, change, counts) in cases {
        let mut message = route_message();
        change(&mut message);
        assert_eq!(route(&message).is_some(), counts, "{name}");
    }
}

#[test]
fn a_route_through_an_ipv6_gateway_has_a_gateway() {
    let gateway = "fe80::1".parse().unwrap();
    let mut message = route_message();
    message.attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)));

    assert_eq!(route(&message).and_then(|route| route.gateway), Some(IpAddr::V6(gateway)));
}

#[test]
fn an_entry_of_a_bridges_table_names_the_port() {
    let learned = bridge_message();
    let mut own = bridge_message();
    own.header.state = NeighbourState::Permanent;
    let mut filter = bridge_message();
    filter.header.flags = NeighbourFlags::Own;

    assert_eq!(bridge_port(&learned), Some(((3, MAC), 4)));
    assert_eq!(bridge_port(&own), None);
    assert_eq!(bridge_port(&filter), None);
}

#[test]
fn a_neighbour_without_a_mac_is_no_neighbour() {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = 3;
    message.attributes = vec![NeighbourAttribute::Destination(POD.into())];
    assert_eq!(neighbour(&message), None);

    message.attributes.push(NeighbourAttribute::LinkLayerAddress(MAC.to_vec()));
    assert_eq!(neighbour(&message), Some(((3, POD), MAC)));
}

fn route_message() -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.header.table = libc::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(POD)), RouteAttribute::Oif(4)];
    message
}

fn bridge_message() -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = 4;
    message.header.state = NeighbourState::Reachable;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(MAC.to_vec()), NeighbourAttribute::Controller(3)];
    message
}
