//! Facts about [`Snapshot::locate`] and [`Snapshot::locate_again`], on one hand-written node.

use super::super::addresses::NodeAddress;
use super::*;

const POD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];

const ETH0: u32 = 2;
const CNI0: u32 = 3;
const BRIDGED_VETH: u32 = 4;
const ROUTED_VETH: u32 = 5;
const TAP: u32 = 6;
const OTHER_VETH: u32 = 7;

#[test]
fn an_address_of_the_node_is_the_host() {
    assert_eq!(locate(&node(), "192.168.0.2"), Location::Host);
    assert_eq!(locate(&node(), "127.0.0.9"), Location::Host, "covered by a local route");
    assert_eq!(locate(&node(), "fd00::2"), Location::Host);
    assert_eq!(locate(&node(), "fd00::99"), Location::Host, "covered by a local route");
}

#[test]
fn an_address_without_a_specific_route_is_unreachable_and_the_sentence_says_why() {
    let without_default = Snapshot { routes: vec![], ..node() };
    let cases = [
        (&without_default, "10.9.0.1", "no route leads to 10.9.0.1"),
        (&node(), "10.9.0.1", "only the default route leads to 10.9.0.1"),
        (&node(), "10.1.3.77", "10.1.3.77 is under the blackhole route to 10.1.3.64/26"),
        (&node(), "10.2.4.5", "route to 10.2.0.0/16 leads via gateway 192.168.0.3 on eth0: a pod of another node"),
        (&node(), "192.168.0.3", "route to 192.168.0.0/24 is the network of uplink eth0: a neighbour of this node"),
        (&node(), "10.6.0.1", "route to 10.6.0.1/32 leads over a link that is gone (index 99)"),
        (&without_default, "fd00:9::1", "no route leads to fd00:9::1"),
        (&node(), "fd00:9::1", "only the default route leads to fd00:9::1"),
        (&node(), "fd00:1:3::77", "fd00:1:3::77 is under the blackhole route to fd00:1:3::40/122"),
        (&node(), "fd00:2::5", "route to fd00:2::/64 leads via gateway fe80::3 on eth0: a pod of another node"),
        (&node(), "fd00::3", "route to fd00::/64 is the network of uplink eth0: a neighbour of this node"),
    ];
    for (snapshot, address, sentence) in cases {
        assert_eq!(locate(snapshot, address), Location::Unreachable(sentence.to_owned()));
    }
}

#[test]
fn a_pod_with_a_host_route_is_behind_that_veth() {
    for pod in ROUTED {
        let Location::Link(link) = locate(&node(), pod) else { panic!("{pod} is not behind a link") };

        assert_eq!((link.ifindex, link.is_veth, link.netns_id), (ROUTED_VETH, true, Some(1)), "{pod}");
        assert_eq!((link.host_mac, link.pod_mac), ([2, 0, 0, 0, 0, ROUTED_VETH as u8], Some(POD_MAC)), "{pod}");
        assert!(!link.takes_xdp_frames);
    }
}

#[test]
fn a_routed_pod_without_a_neighbour_entry_is_found_without_its_mac() {
    let snapshot = Snapshot { neighbours: Default::default(), ..node() };

    for pod in ROUTED {
        let Location::Link(link) = locate(&snapshot, pod) else { panic!("{pod} is not behind a link") };

        assert_eq!((link.ifindex, link.pod_mac), (ROUTED_VETH, None), "{pod}");
    }
}

#[test]
fn a_pod_behind_a_bridge_is_found_by_neighbour_and_fdb() {
    for pod in [BRIDGED, BRIDGED_V6] {
        let Location::Link(link) = locate(&node(), pod) else { panic!("{pod} is not behind a link") };

        assert_eq!((link.ifindex, link.name.as_str(), link.netns_id), (BRIDGED_VETH, "veth4", Some(0)), "{pod}");
        assert_eq!(link.pod_mac, Some(POD_MAC));
    }
}

#[test]
fn a_pod_its_bridge_has_not_seen_is_not_yet_learned_and_can_be_provoked() {
    let no_neighbour = Snapshot { neighbours: Default::default(), ..node() };
    for (snapshot, pod) in [(&forgetful(), BRIDGED), (&no_neighbour, BRIDGED), (&no_neighbour, BRIDGED_V6)] {
        let expected = format!("cni0 has not yet learned behind which port {pod} is");
        assert_eq!(locate(snapshot, pod), Location::Unreachable(expected));
        assert!(snapshot.is_unlearned(address(pod)));
    }
    for pod in [BRIDGED, BRIDGED_V6, "10.9.0.1", "fd00:9::1"] {
        assert!(!node().is_unlearned(address(pod)), "{pod}");
    }
}

#[test]
fn a_bridge_port_whose_fdb_entry_aged_out_is_still_the_pods() {
    let forgot_neighbour_too = Snapshot { neighbours: Default::default(), ..forgetful() };
    for pod in [BRIDGED, BRIDGED_V6] {
        let before = locate(&node(), pod);

        assert_eq!(forgetful().locate_again(address(pod), &before), before);
        assert_eq!(forgot_neighbour_too.locate_again(address(pod), &before), before);
    }
}

#[test]
fn a_remembered_bridge_port_is_given_up_on_evidence() {
    let before = locate(&node(), BRIDGED);
    let mut port_gone = forgetful();
    port_gone.links.remove(&BRIDGED_VETH);
    let mut other_namespace = forgetful();
    link_mut(&mut other_namespace, BRIDGED_VETH).netns_id = Some(8);
    let mut left_the_bridge = forgetful();
    link_mut(&mut left_the_bridge, BRIDGED_VETH).master = None;
    let mut other_pod = forgetful();
    other_pod.neighbours.insert((CNI0, address(BRIDGED)), OTHER_MAC);

    for snapshot in [port_gone, other_namespace, left_the_bridge, other_pod] {
        let after = snapshot.locate_again(address(BRIDGED), &before);
        assert!(matches!(after, Location::Unreachable(_)), "{after:?}");
    }
}

#[test]
fn a_pod_that_moved_to_another_port_is_found_there() {
    let before = locate(&node(), BRIDGED);
    let mut moved = node();
    moved.neighbours.insert((CNI0, address(BRIDGED)), OTHER_MAC);
    moved.bridge_ports.insert((CNI0, OTHER_MAC), OTHER_VETH);

    let Location::Link(link) = moved.locate_again(address(BRIDGED), &before) else { panic!("not a link") };

    assert_eq!((link.ifindex, link.pod_mac), (OTHER_VETH, Some(OTHER_MAC)));
}

#[test]
fn what_was_known_of_the_pods_end_stays_known_for_the_same_link_only() {
    let Location::Link(link) = locate(&node(), "10.1.3.70") else { panic!("not a link") };
    let before = Location::Link(PodLink { takes_xdp_frames: true, ..link });
    let forgot_neighbour = Snapshot { neighbours: Default::default(), ..node() };

    assert_eq!(forgot_neighbour.locate_again(address("10.1.3.70"), &before), before);

    let mut other_namespace = node();
    link_mut(&mut other_namespace, ROUTED_VETH).netns_id = Some(8);
    let Location::Link(after) = other_namespace.locate_again(address("10.1.3.70"), &before) else {
        panic!("not a link")
    };
    assert!(!after.takes_xdp_frames);
}

#[test]
fn a_link_that_does_not_carry_says_what_it_lacks() {
    let rows = [
        (true, true, LinkState::Carries),
        (true, false, LinkState::WithoutCarrier),
        (false, false, LinkState::Down),
        (false, true, LinkState::Down),
    ];
    for (is_up, has_carrier, expected) in rows {
        for (pod, index) in [(ROUTED[0], ROUTED_VETH), (ROUTED[1], ROUTED_VETH), (BRIDGED, BRIDGED_VETH)] {
            let mut snapshot = node();
            let link = link_mut(&mut snapshot, index);
            (link.is_up, link.has_carrier) = (is_up, has_carrier);
            assert_eq!(state_of(&locate(&snapshot, pod)), Some(expected), "{pod}");
            assert_eq!(locate(&snapshot, pod).is_cut_off(), expected != LinkState::Carries);
        }
    }
}

/// The kernel takes the routes of a link that is set down (`fib_disable_ip` of net/ipv4, `rt6_disable_ip` of net/ipv6), and
/// the entries of a bridge's port. When it is up again, a CNI plugin may still have to bring them back.
#[test]
fn a_pod_without_a_route_is_still_behind_its_link_and_cut_off() {
    for (pod, index) in [(ROUTED[0], ROUTED_VETH), (ROUTED[1], ROUTED_VETH), (BRIDGED, BRIDGED_VETH)] {
        let before = locate(&node(), pod);
        let mut down = forgetful();
        down.routes.retain(|route| !route.is_to_one_host());
        down.neighbours.clear();
        let link = link_mut(&mut down, index);
        (link.is_up, link.has_carrier) = (false, false);
        let mut up = down.clone();
        let link = link_mut(&mut up, index);
        (link.is_up, link.has_carrier) = (true, true);
        let is_routed = index == ROUTED_VETH;

        let then = down.locate_again(address(pod), &before);
        assert_eq!(state_of(&then), Some(LinkState::Down), "{pod}");
        let then = up.locate_again(address(pod), &then);
        let expected = if is_routed { LinkState::WithoutRoute } else { LinkState::Carries };
        assert_eq!(state_of(&then), Some(expected), "{pod}");
        assert_eq!(node().locate_again(address(pod), &then), before, "{pod}");
    }
}

#[test]
fn a_routed_pod_whose_link_is_gone_or_whose_address_leads_elsewhere_is_given_up() {
    let before = locate(&node(), "10.1.3.70");
    let mut without_route = node();
    without_route.routes.retain(|route| !route.is_to_one_host());
    let mut gone = without_route.clone();
    gone.links.remove(&ROUTED_VETH);
    let mut other_namespace = without_route.clone();
    link_mut(&mut other_namespace, ROUTED_VETH).netns_id = Some(8);
    let under = Location::Unreachable("10.1.3.70 is under the blackhole route to 10.1.3.64/26".to_owned());
    for snapshot in [gone, other_namespace] {
        assert_eq!(snapshot.locate_again(address("10.1.3.70"), &before), under);
    }

    let mut elsewhere = without_route.clone();
    elsewhere.routes.push(Route { gateway: gateway("192.168.0.3"), ..route("10.1.3.70", 32, ETH0) });
    assert!(matches!(elsewhere.locate_again(address("10.1.3.70"), &before), Location::Unreachable(_)));
    let mut moved = without_route;
    moved.routes.push(route("10.1.3.70", 32, OTHER_VETH));
    let Location::Link(link) = moved.locate_again(address("10.1.3.70"), &before) else { panic!("not a link") };
    assert_eq!((link.ifindex, link.state), (OTHER_VETH, LinkState::Carries));
}

#[test]
fn a_host_route_over_another_link_is_a_link_that_is_no_veth() {
    for pod in ["10.5.0.1", "fd00:5::1"] {
        let Location::Link(link) = locate(&node(), pod) else { panic!("{pod} is not behind a link") };

        assert_eq!((link.ifindex, link.is_veth), (TAP, false), "{pod}");
    }
}

#[test]
fn a_network_on_another_link_is_routed() {
    assert_eq!(locate(&node(), "10.4.0.1"), Location::Routed);
    assert_eq!(locate(&node(), "fd00:4::1"), Location::Routed);
}

#[test]
fn a_gateway_that_is_the_node_itself_is_routed() {
    let mut snapshot = node();
    snapshot.routes.push(Route { gateway: gateway("10.1.1.1"), ..route("10.7.0.0", 24, TAP) });
    snapshot.routes.push(Route { gateway: gateway("fd00:1:1::1"), ..route("fd00:7::", 64, TAP) });

    assert_eq!(locate(&snapshot, "10.7.0.9"), Location::Routed);
    assert_eq!(locate(&snapshot, "fd00:7::9"), Location::Routed);
}

#[test]
fn an_address_behind_a_bridge_port_that_leads_off_the_node_is_unreachable() {
    let mut snapshot = node();
    link_mut(&mut snapshot, BRIDGED_VETH).kind = "vxlan".to_owned();

    let expected = format!("{BRIDGED} is behind veth4, a port of cni0 that leads off this node");
    assert_eq!(locate(&snapshot, BRIDGED), Location::Unreachable(expected));
}

const BRIDGED: &str = "10.1.1.5";
const BRIDGED_V6: &str = "fd00:1:1::5";
const ROUTED: [&str; 2] = ["10.1.3.70", "fd00:1:3::70"];

/// A node with an uplink, a bridge with two pods, a routed pod and a virtual machine, all in both families.
fn node() -> Snapshot {
    let links = [
        link(ETH0, "eth0", "veth", None, Some(9)),
        link(CNI0, "cni0", "bridge", None, None),
        link(BRIDGED_VETH, "veth4", "veth", Some(CNI0), Some(0)),
        link(ROUTED_VETH, "veth5", "veth", None, Some(1)),
        link(TAP, "tap0", "tun", None, None),
        link(OTHER_VETH, "veth7", "veth", Some(CNI0), Some(2)),
    ];
    let pods = [(CNI0, BRIDGED), (CNI0, BRIDGED_V6), (ROUTED_VETH, ROUTED[0]), (ROUTED_VETH, ROUTED[1])];
    Snapshot {
        links: links.map(|link| (link.index, link)).into(),
        addresses: own_addresses(),
        routes: [ipv4_routes(), ipv6_routes()].concat(),
        neighbours: pods.map(|(link, pod)| ((link, address(pod)), POD_MAC)).into(),
        bridge_ports: [((CNI0, POD_MAC), BRIDGED_VETH)].into(),
        ..Snapshot::default()
    }
}

fn own_addresses() -> Vec<NodeAddress> {
    let own = [
        (1, "127.0.0.1"),
        (1, "::1"),
        (ETH0, "192.168.0.2"),
        (ETH0, "fd00::2"),
        (CNI0, "10.1.1.1"),
        (CNI0, "fd00:1:1::1"),
    ];
    let own = own.into_iter();
    own.map(|(ifindex, text)| NodeAddress { address: address(text), ifindex, is_universal: true, is_secondary: false })
        .collect()
}

fn ipv4_routes() -> Vec<Route> {
    vec![
        Route { kind: RouteKind::Local, ..route("127.0.0.0", 8, 1) },
        Route { gateway: gateway("192.168.0.1"), ..route("0.0.0.0", 0, ETH0) },
        Route { gateway: gateway("192.168.0.3"), ..route("10.2.0.0", 16, ETH0) },
        route("192.168.0.0", 24, ETH0),
        route("10.1.1.0", 24, CNI0),
        Route { kind: RouteKind::Blackhole, output: None, ..route("10.1.3.64", 26, 0) },
        route("10.1.3.70", 32, ROUTED_VETH),
        route("10.4.0.0", 24, TAP),
        route("10.5.0.1", 32, TAP),
        route("10.6.0.1", 32, 99),
    ]
}

/// The kernel gives IPv6 blackhole routes the loopback link.
fn ipv6_routes() -> Vec<Route> {
    vec![
        Route { kind: RouteKind::Local, ..route("fd00::99", 128, 1) },
        Route { gateway: gateway("fe80::1"), ..route("::", 0, ETH0) },
        Route { gateway: gateway("fe80::3"), ..route("fd00:2::", 64, ETH0) },
        route("fd00::", 64, ETH0),
        route("fd00:1:1::", 64, CNI0),
        Route { kind: RouteKind::Blackhole, ..route("fd00:1:3::40", 122, 1) },
        route("fd00:1:3::70", 128, ROUTED_VETH),
        route("fd00:4::", 64, TAP),
        route("fd00:5::1", 128, TAP),
    ]
}

/// The same node after the bridge's entries aged out.
fn forgetful() -> Snapshot {
    Snapshot { bridge_ports: Default::default(), ..node() }
}

fn state_of(location: &Location) -> Option<LinkState> {
    if let Location::Link(link) = location { Some(link.state) } else { None }
}

fn locate(snapshot: &Snapshot, pod: &str) -> Location {
    snapshot.locate(address(pod))
}

fn link(index: u32, name: &str, kind: &str, master: Option<u32>, netns_id: Option<i32>) -> Link {
    let mac = [2, 0, 0, 0, 0, index as u8];
    Link {
        index,
        name: name.to_owned(),
        kind: kind.to_owned(),
        mac,
        netns_id,
        peer_index: Some(2),
        master,
        is_up: true,
        has_carrier: true,
        mtu: 1500,
    }
}

fn link_mut(snapshot: &mut Snapshot, index: u32) -> &mut Link {
    snapshot.links.get_mut(&index).unwrap()
}

fn route(destination: &str, prefix_length: u8, output: u32) -> Route {
    let destination = address(destination);
    Route {
        destination,
        prefix_length,
        kind: RouteKind::Unicast,
        gateway: None,
        output: Some(output),
        others: Vec::new(),
        metric: 0,
    }
}

fn gateway(text: &str) -> Option<IpAddr> {
    Some(address(text))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}
