//! Which endpoints become backends, and which of those take new connections.

use std::net::IpAddr;

use crate::model::fixtures::*;
use crate::model::objects::*;
use crate::model::{DeliveryChoice, Policy, desired, pods_of_interest};
use crate::node::Location;
use crate::plan::desired::WhenEmpty;

/// Endpoints; backends under policy Local; backends under policy Cluster.
#[rustfmt::skip]
const CONDITIONS: &[(&str, &str, &str)] = &[
    // Ready pods of this node take connections, others of this node keep theirs.
    ("10.1.0.1, 10.1.0.2", "1 2", "1 2"),
    ("10.1.0.1, 10.1.0.2 unready", "1 (2)", "1 (2)"),
    ("10.1.0.1, 10.1.0.2 terminating", "1 (2)", "1 (2)"),
    ("10.1.0.1, 10.9.0.2 remote", "1", "1"),
    // KEP-1669: without a ready pod, those that terminate and still serve.
    ("10.1.0.1 terminating, 10.1.0.2 terminating", "1 2", "1 2"),
    ("10.1.0.1 terminating, 10.1.0.2 stopped", "1 (2)", "1 (2)"),
    ("10.1.0.1 terminating, 10.1.0.2 unready", "1 (2)", "1 (2)"),
    ("10.1.0.1 terminating, 10.9.0.2 remote terminating", "1", "1"),
    // A ready pod elsewhere: Local does not look there, Cluster prefers it.
    ("10.1.0.1 terminating, 10.9.0.2 remote", "1", "(1)"),
    // Not serving and not ready is never used, not even as the last.
    ("10.1.0.1 unready", "(1)", "(1)"),
    ("10.1.0.1 stopped", "(1)", "(1)"),
    ("10.9.0.2 remote", "", ""),
    ("", "", ""),
];

#[test]
fn conditions_decide_who_takes_new_connections() {
    for (text, local, cluster) in CONDITIONS {
        for (policy, expected) in [(TrafficPolicy::Local, local), (TrafficPolicy::Cluster, cluster)] {
            let service = Service { external_traffic_policy: policy, ..service() };
            let backends = backends_of([service.into(), slice("web-1", &endpoints(text)).into()]);
            assert_eq!(backends, *expected, "{policy:?}: {text}");
        }
    }
}

/// Endpoints of a UDP port; backends. Nobody serves: everything stays (semantics 11.3).
const UDP_CONDITIONS: &[(&str, &str)] = &[
    ("10.1.0.1, 10.1.0.2 unready", "1"),
    ("10.1.0.1, 10.1.0.2 terminating", "1 (2)"),
    ("10.1.0.1, 10.1.0.2 stopped", "1"),
    ("10.1.0.1 unready, 10.9.0.2 remote", ""),
    ("10.1.0.1 unready, 10.9.0.2 remote terminating", ""),
    ("10.1.0.1 unready, 10.1.0.2 stopped", "(1) (2)"),
    ("10.1.0.1 unready, 10.9.0.2 remote unready", "(1)"),
];

#[test]
fn a_udp_endpoint_that_no_longer_serves_loses_its_flows_if_another_serves() {
    for (text, expected) in UDP_CONDITIONS {
        let mut service = service();
        service.ports[0].protocol = UDP;
        let mut slice = slice("web-1", &endpoints(text));
        slice.ports[0].protocol = UDP;
        assert_eq!(backends_of([service.into(), slice.into()]), *expected, "{text}");
    }
}

/// Semantics 11.5.
#[test]
fn an_sctp_endpoint_keeps_its_associations_as_one_of_tcp_keeps_its_connections() {
    for (text, _) in UDP_CONDITIONS {
        let kept = |protocol: PortProtocol| {
            let mut service = service();
            service.ports[0].protocol = protocol.clone();
            let mut slice = slice("web-1", &endpoints(text));
            slice.ports[0].protocol = protocol;
            backends_of([service.into(), slice.into()])
        };
        assert_eq!(kept(SCTP), kept(TCP), "{text}");
    }
}

/// What counts is the address (semantics 11.2), whichever port it serves on.
#[test]
fn a_udp_endpoint_that_serves_on_another_port_keeps_its_flows() {
    let mut service = service();
    service.ports[0].protocol = UDP;
    let (mut old, mut new) = (slice("web-1", &endpoints("10.1.0.1 unready")), slice("web-2", &endpoints("10.1.0.1")));
    (old.ports[0].protocol, new.ports[0].protocol, new.ports[0].port) = (UDP, UDP, 9090);
    assert_eq!(backends_of([service.into(), old.into(), new.into()]), "(1) 1");
}

#[test]
fn the_first_of_two_equal_endpoints_stays_unless_a_later_one_is_not_terminating() {
    for (first, second, expected) in [
        ("10.1.0.1 terminating", "10.1.0.1", "1"),
        ("10.1.0.1", "10.1.0.1 terminating", "1"),
        ("10.1.0.1 terminating", "10.1.0.1 stopped", "1"),
        ("10.1.0.1 stopped", "10.1.0.1 terminating", "(1)"),
        ("10.1.0.1 remote terminating", "10.1.0.1", "1"),
        ("10.1.0.1 terminating", "10.1.0.1 remote", ""),
    ] {
        let (first, second) = (endpoint(first), endpoint(second));
        let within = slice("web-1", &[first.clone(), second.clone()]);
        assert_eq!(backends_of([service().into(), within.into()]), expected, "within a slice: {first:?} {second:?}");

        let across = [slice("web-1", &[first]).into(), slice("web-2", &[second]).into(), service().into()];
        assert_eq!(backends_of(across), expected, "across slices");
    }
}

#[test]
fn slices_add_up_and_each_may_have_its_own_target_port() {
    let mut other = slice("web-2", &endpoints("10.1.0.1, 10.1.0.2"));
    other.ports[0].port = 9090;
    let text = served([service().into(), slice("web-1", &endpoints("10.1.0.1")).into(), other.into()]);
    assert_eq!(
        text,
        "default/web 192.0.2.10:80 pass | 10.1.0.1:8080 direct pod1 | 10.1.0.1:9090 direct pod1 \
         | 10.1.0.2:9090 direct pod2\n"
    );
}

#[test]
fn port_name_and_protocol_must_both_match() {
    for (name, protocol, expected) in [("", TCP, "1"), ("", UDP, ""), ("http", TCP, ""), ("http", UDP, "")] {
        let mut slice = slice("web-1", &endpoints("10.1.0.1"));
        slice.ports[0].name = name.into();
        slice.ports[0].protocol = protocol;
        assert_eq!(backends_of([service().into(), slice.into()]), expected, "{name:?}");
    }
}

#[test]
fn an_endpoint_without_a_node_name_and_a_slice_without_a_service_are_nobodys() {
    let mut homeless = slice("web-1", &endpoints("10.1.0.1"));
    homeless.endpoints[0].node_name = None;
    let mut orphan = slice("web-2", &endpoints("10.1.0.2"));
    orphan.service = None;
    let mut neighbours = slice("web-3", &endpoints("10.1.0.3"));
    neighbours.service = Some(ObjectName { namespace: "other".into(), name: "web".into() });
    assert_eq!(backends_of([service().into(), homeless.into(), orphan.into(), neighbours.into()]), "");
}

#[test]
fn an_endpoint_that_is_not_reachable_is_refused_only_if_it_would_take_connections() {
    let mut node = node();
    node.pods.insert("10.1.0.1".parse().unwrap(), Location::Unreachable("only the default route leads there".into()));
    let endpoints = endpoints("10.1.0.1, 10.1.0.2, 10.1.0.77, 10.1.0.78 unready");
    let model = model([service().into(), slice("web-1", &endpoints).into()]);

    let desired = desired(&Policy::default(), &model, &node, DeliveryChoice::Auto);

    assert_eq!(
        text(&desired),
        "default/web 192.0.2.10:80 pass | 10.1.0.2:8080 direct pod2\n\
         ! endpoint 10.1.0.1 of default/web: not reachable from this node: only the default route leads there; \
         check that the pod runs here and that its nodeName, \"node-a\", is meant\n\
         ! endpoint 10.1.0.77 of default/web: not reachable from this node: it was not found on any link of this node; \
         check that the pod runs here and that its nodeName, \"node-a\", is meant\n"
    );
}

#[test]
fn backends_beyond_the_limit_are_left_out_by_address_and_told_of() {
    let all: Vec<Endpoint> =
        (0..=257u16).rev().map(|pod| endpoint(&format!("10.2.{}.{}", pod / 256, pod % 256))).collect();
    let mut node = node();
    node.pods.extend((0..=257u16).map(|pod| (IpAddr::from([10, 2, (pod / 256) as u8, pod as u8]), Location::Routed)));
    let model = model([service().into(), slice("web-1", &all).into()]);

    let desired = desired(&Policy::default(), &model, &node, DeliveryChoice::Auto);

    let web = desired.services.values().next().unwrap();
    assert_eq!(web.backends.len(), 255);
    assert_eq!(web.backends.keys().last().unwrap().to_string(), "10.2.0.254:8080");
    assert_eq!(web.when_empty, WhenEmpty::Pass);
    assert_eq!(
        desired.refusals[0].why,
        "3 endpoints, from 10.2.0.255:8080 on, get no traffic: a service can have 255 endpoints on one node; \
         spread its pods over more nodes"
    );
}

#[test]
fn the_locator_is_asked_for_local_pods_of_services_with_a_vip() {
    let mut internal = Service { name: name("internal"), vips: vec![], ..service() };
    internal.service_type = ServiceType::ClusterIp;
    let mut of_internal = slice("internal-1", &endpoints("10.1.0.5"));
    of_internal.service = Some(name("internal"));
    let slice = slice("web-1", &endpoints("10.1.0.1, 10.1.0.2 unready, 10.9.0.3 remote, fd00::1"));

    let asked = pods_of_interest(
        &Policy::default(),
        &model([service().into(), slice.into(), internal.into(), of_internal.into()]),
        "node-a",
    );

    let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
    assert_eq!(asked, ["10.1.0.1", "10.1.0.2", "fd00::1"]);
}

/// The last byte of each backend's address, in brackets if it takes no new connections.
fn backends_of(objects: impl IntoIterator<Item = Object>) -> String {
    let desired = desired(&Policy::default(), &model(objects), &node(), DeliveryChoice::Auto);
    let backends = desired.services.values().flat_map(|service| &service.backends);
    let numbers = backends.map(|(socket, backend)| match (last_byte(socket.ip()), backend.takes_new) {
        (number, true) => number.to_string(),
        (number, false) => format!("({number})"),
    });
    numbers.collect::<Vec<_>>().join(" ")
}
