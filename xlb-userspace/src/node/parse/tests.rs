//! Facts about what of a netlink message counts.

use netlink_packet_route::address::AddressHeaderFlags;
use netlink_packet_route::link::InfoKind;

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 5);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

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
        has_carrier: false,
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

    let expected = NodeAddress { address: own.into(), ifindex: 0, is_universal: true, is_secondary: false };
    assert_eq!(address(&message), Some(expected));
}

#[test]
fn only_lasting_addresses_count_and_link_local_ones_do_not() {
    let cases = [
        ("fd00::2", AddressFlags::Permanent, true),
        ("fd00::2", AddressFlags::Secondary, true),
        ("fd00::2", AddressFlags::Tentative, false),
        ("fd00::2", AddressFlags::Tentative | AddressFlags::Dadfailed, false),
        ("fd00::2", AddressFlags::Deprecated, false),
        ("fe80::2", AddressFlags::Permanent, false),
        ("10.1.1.5", AddressFlags::Deprecated, false),
        ("169.254.20.10", AddressFlags::Permanent, true),
    ];
    for (text, flags, counts) in cases {
        let mut message = AddressMessage::default();
        message.header.index = 4;
        message.attributes = vec![AddressAttribute::Address(text.parse().unwrap()), AddressAttribute::Flags(flags)];

        let found = address(&message);

        assert_eq!(found.map(|own| own.ifindex), counts.then_some(4), "{text} {flags:?}");
        assert!(found.is_none_or(|own| own.is_secondary == (flags == AddressFlags::Secondary)), "{text} {flags:?}");
    }
}

#[test]
fn flags_are_read_from_the_header_where_there_are_no_others() {
    let mut message = AddressMessage::default();
    message.attributes = vec![AddressAttribute::Address("fd00::2".parse().unwrap())];
    assert!(address(&message).is_some());

    message.header.flags = AddressHeaderFlags::Tentative;
    assert_eq!(address(&message), None);
}

#[test]
fn only_live_routes_of_main_and_local_count() {
    type Change = fn(&mut RouteMessage);
    let cases: [(&str, Change, bool); 8] = [
        ("main", |_| {}, true),
        ("local", |message| message.header.table = libc::RT_TABLE_LOCAL, true),
        ("another table", |message| message.attributes.push(RouteAttribute::Table(100)), false),
        ("path MTU exception", |message| message.header.flags = RouteFlags::Cloned, false),
        ("dead next hop", |message| message.header.flags = RouteFlags::Dead, false),
        ("type of service", |message| message.header.tos = 16, false),
        ("some sources", |message| message.header.source_prefix_length = 64, false),
        ("broadcast", |message| message.header.kind = RouteType::Broadcast, false),
    ];
    for (name, change, counts) in cases {
        let mut message = route_message();
        change(&mut message);
        assert_eq!(route(&message).is_some(), counts, "{name}");
    }
}

#[test]
fn an_ipv6_route_keeps_its_destination_unless_it_is_one_that_every_link_has() {
    let cases = [
        (Some(("fd00:1::", 64)), Some(("fd00:1::", 64))),
        (Some(("fd00:1::5", 128)), Some(("fd00:1::5", 128))),
        (None, Some(("::", 0))),
        (Some(("fe80::", 64)), None),
        (Some(("ff00::", 8)), None),
    ];
    for (given, expected) in cases {
        let mut message = route_message();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = given.map_or(0, |(_, length)| length);
        let destination =
            given.map(|(text, _)| RouteAttribute::Destination(RouteAddress::Inet6(text.parse().unwrap())));
        message.attributes =
            destination.into_iter().chain([RouteAttribute::Gateway(RouteAddress::Inet6(ROUTER))]).collect();

        let found = route(&message);

        let expected = expected.map(|(text, length)| (text.parse().unwrap(), length, Some(IpAddr::V6(ROUTER))));
        assert_eq!(found.map(|route| (route.destination, route.prefix_length, route.gateway)), expected, "{given:?}");
    }
}

#[test]
fn a_route_of_another_family_is_no_route() {
    let mut message = route_message();
    message.header.address_family = AddressFamily::Mpls;

    assert_eq!(route(&message), None);
}

#[test]
fn a_route_through_an_ipv6_gateway_has_a_gateway() {
    let mut message = route_message();
    message.attributes.push(RouteAttribute::Via(RouteVia::Inet6(ROUTER)));

    assert_eq!(route(&message).and_then(|route| route.gateway), Some(IpAddr::V6(ROUTER)));
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
    assert_eq!(neighbour(&message), Some(((3, POD.into()), MAC)));
}

#[test]
fn an_ipv6_neighbour_counts_unless_its_address_is_one_that_every_link_has() {
    for (text, counts) in [("fd00:1::5", true), ("fe80::5", false), ("ff02::1:ff00:5", false)] {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.ifindex = 3;
        let address = text.parse().unwrap();
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)),
            NeighbourAttribute::LinkLayerAddress(MAC.to_vec()),
        ];

        assert_eq!(neighbour(&message), counts.then_some(((3, address.into()), MAC)), "{text}");
    }
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
