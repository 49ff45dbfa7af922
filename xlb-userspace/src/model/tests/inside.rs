//! Which endpoints clients inside get: the cluster set, whatever the policy says (semantics 3.1 and 6), and the local one, for
//! pods that are to be as clients outside are (6.2).

use std::net::SocketAddr;

use crate::model::fixtures::*;
use crate::model::objects::*;
use crate::model::{DeliveryChoice, Policy, desired};
use crate::plan::desired::DesiredInside;

/// Endpoints; those that are usable, by the last bytes of their addresses; and those that linger, if it is UDP.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str)] = &[
    ("", "", ""),
    ("10.1.0.1", "1", ""),
    ("10.9.0.7 remote, 10.1.0.1", "1 7", ""),
    ("10.9.0.7 remote", "7", ""),
    ("10.1.0.1 terminating, 10.9.0.7 remote", "7", "1"),
    ("10.1.0.1 unready, 10.9.0.7 remote", "7", ""),
    ("10.1.0.1 terminating, 10.9.0.7 remote terminating", "1 7", ""),
    ("10.1.0.1 terminating, 10.9.0.7 remote unready, 10.9.0.8 remote stopped", "1", ""),
    ("10.1.0.1 stopped, 10.1.0.2 unready", "", ""),
    // An address that a new pod got (semantics 2.5).
    ("10.9.0.7 remote terminating, 10.9.0.7 remote", "7", ""),
    ("10.9.0.7 remote, 10.9.0.7 remote terminating", "7", ""),
];

#[test]
fn clients_inside_get_the_ready_endpoints_of_the_whole_cluster_and_else_those_that_still_serve() {
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        for (text, usable, lingering) in ROWS {
            assert_eq!(inside(policy, UDP, &endpoints(text)), [*usable, *lingering], "{policy:?} {text}");
            assert_eq!(inside(policy, TCP, &endpoints(text)), [*usable, ""], "{policy:?} {text}");
        }
    }
}

/// The kernel runs no hook when an SCTP socket connects.
#[test]
fn clients_inside_of_an_sctp_service_are_left_to_kube_proxy() {
    assert_eq!(inside_of(TrafficPolicy::Cluster, SCTP, &endpoints("10.1.0.1")), None);
}

#[test]
fn hints_leave_endpoints_to_clients_elsewhere_under_either_policy() {
    let all = [hinted("10.1.0.1", "b"), hinted("10.9.0.7 remote", "a"), hinted("10.9.0.8 remote", "b")];
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        assert_eq!(inside(policy, UDP, &all), ["7", "1 8"]);
    }
}

/// Endpoints, and the local set with policy Local, if it is not the cluster's.
#[rustfmt::skip]
const LOCAL_ROWS: &[(&str, Option<&str>)] = &[
    ("", None),
    ("10.1.0.1, 10.1.0.2", None),
    ("10.1.0.1, 10.9.0.7 remote", Some("1")),
    ("10.9.0.7 remote", Some("")),
    ("10.1.0.1 terminating, 10.9.0.7 remote", Some("1")),
    ("10.1.0.1 terminating, 10.1.0.2, 10.9.0.7 remote", Some("2")),
    ("10.1.0.1 unready, 10.1.0.2 stopped, 10.9.0.7 remote", Some("")),
    ("10.1.0.1 terminating, 10.9.0.7 remote unready", None),
];

#[test]
fn pods_that_are_as_clients_outside_get_the_local_set_where_the_policy_says_so_and_it_differs() {
    for (text, expected) in LOCAL_ROWS {
        for protocol in [TCP, UDP] {
            let local = |policy| inside_of(policy, protocol.clone(), &endpoints(text)).expect("it is served").local;
            assert_eq!(local(TrafficPolicy::Local).as_deref().map(numbers), expected.map(str::to_owned), "{text}");
            assert_eq!(local(TrafficPolicy::Cluster), None, "{text}");
        }
    }
}

#[test]
fn hints_take_nothing_from_the_local_set() {
    let all = [hinted("10.1.0.1", "b"), hinted("10.9.0.7 remote", "a")];
    let inside = inside_of(TrafficPolicy::Local, TCP, &all).expect("it is served");
    assert_eq!((numbers(&inside.usable), inside.local.as_deref().map(numbers)), ("7".into(), Some("1".into())));
}

fn inside(policy: TrafficPolicy, protocol: PortProtocol, endpoints: &[Endpoint]) -> [String; 2] {
    let inside = inside_of(policy, protocol, endpoints).expect("it is served");
    [inside.usable, inside.lingering].map(|part| numbers(&part))
}

/// The zone of this node is `a`.
fn inside_of(policy: TrafficPolicy, protocol: PortProtocol, endpoints: &[Endpoint]) -> Option<DesiredInside> {
    let web = Service {
        external_traffic_policy: policy,
        ports: vec![ServicePort { protocol: protocol.clone(), ..service().ports[0].clone() }],
        ..service()
    };
    let ports = vec![TargetPort { protocol, ..slice("web-1", &[]).ports[0].clone() }];
    let model = model([web.into(), Slice { ports, ..slice("web-1", endpoints) }.into()]);
    let mut node = node();
    node.zone = Some("a".into());
    let desired = desired(&Policy::default(), &model, &node, DeliveryChoice::Auto);
    desired.services.into_values().next().expect("it is served").inside
}

/// An endpoint for a zone.
fn hinted(text: &str, zone: &str) -> Endpoint {
    let hints = Hints { zones: vec![zone.into()], ..Hints::default() };
    Endpoint { hints: Some(hints.into()), ..endpoint(text) }
}

fn numbers(endpoints: &[SocketAddr]) -> String {
    let numbers: Vec<String> = endpoints.iter().map(|socket| last_byte(socket.ip()).to_string()).collect();
    numbers.join(" ")
}
