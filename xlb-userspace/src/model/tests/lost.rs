//! Pods of this node to which nothing gets through, while the API calls them ready.

use crate::model::fixtures::*;
use crate::model::objects::*;
use crate::model::{DeliveryChoice, Policy, desired};
use crate::node::{LinkState, Location, NodeView, PodLink};
use crate::plan::desired::{Desired, DesiredService, WhenEmpty};

/// Endpoints of a TCP port; pods whose link is down; backends under policy Local, under Cluster, those of a UDP port under
/// Cluster; what clients inside get under Cluster.
type Row = (&'static str, &'static [u8], &'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const CUT_OFF: &[Row] = &[
    // Nothing new, and for TCP what it has; UDP goes on elsewhere.
    ("10.1.0.1, 10.1.0.2",                          &[1],    "(1) 2",  "(1) 2",  "2",       "2"),
    ("10.1.0.1, 10.1.0.2 terminating",              &[2],    "1 (2)",  "1 (2)",  "1",       "1"),
    ("10.1.0.1, 10.1.0.2 stopped",                  &[2],    "1 (2)",  "1 (2)",  "1",       "1"),
    // One that shuts down here is better than one that cannot be reached, and a ready one elsewhere better than that.
    ("10.1.0.1, 10.1.0.2 terminating",              &[1],    "(1) 2",  "(1) 2",  "2",       "2"),
    ("10.1.0.1, 10.1.0.2 terminating, 10.9.0.3 remote", &[1], "(1) 2", "(1) (2)", "(2)",    "3"),
    // Nobody is left here, or nowhere: then clients inside get whom the API names.
    ("10.1.0.1, 10.9.0.3 remote",                   &[1],    "(1)",    "(1)",    "",        "3"),
    ("10.1.0.1, 10.1.0.2",                          &[1, 2], "(1) (2)", "(1) (2)", "(1) (2)", "1 2"),
    // A pod of another node is not looked for here.
    ("10.1.0.1, 10.1.0.2 remote",                   &[2],    "1",      "1",      "1",       "1 2"),
];

#[test]
fn a_pod_that_nothing_gets_through_to_is_no_choice_and_keeps_what_it_has() {
    for (text, cut_off, local, cluster, udp, inside) in CUT_OFF {
        let node = node_with(cut_off, |link| Location::Link(PodLink { state: LinkState::Down, ..link }));
        let decided = |policy, protocol| decide(text, &node, policy, protocol).0;
        assert_eq!(backends(&decided(TrafficPolicy::Local, TCP)), *local, "Local: {text}");
        assert_eq!(backends(&decided(TrafficPolicy::Cluster, TCP)), *cluster, "Cluster: {text}");
        assert_eq!(backends(&decided(TrafficPolicy::Cluster, UDP)), *udp, "UDP: {text}");
        let usable = decided(TrafficPolicy::Cluster, TCP).inside.expect("it is served").usable;
        let numbers: Vec<String> = usable.iter().map(|socket| last_byte(socket.ip()).to_string()).collect();
        assert_eq!(numbers.join(" "), *inside, "inside: {text}");
    }
}

#[test]
fn one_whose_link_is_gone_is_no_choice_and_keeps_nothing() {
    for (text, gone, ..) in CUT_OFF {
        let down = node_with(gone, |link| Location::Link(PodLink { state: LinkState::Down, ..link }));
        let gone = node_with(gone, |_| Location::Unreachable("no route leads there".into()));
        for policy in [TrafficPolicy::Local, TrafficPolicy::Cluster] {
            let (down, gone) = (decide(text, &down, policy, TCP).0, decide(text, &gone, policy, TCP).0);
            let kept = down.backends.into_iter().filter(|(socket, _)| gone.backends.contains_key(socket));
            assert_eq!(kept.collect::<Vec<_>>(), gone.backends.into_iter().collect::<Vec<_>>(), "{policy:?}: {text}");
            assert_eq!(down.inside, gone.inside, "{policy:?}: {text}");
        }
    }
}

/// Nobody here does not mean nobody in the cluster: only the API can say that.
#[test]
fn a_service_whose_pods_are_all_cut_off_refuses_nobody() {
    let node = node_with(&[1], |_| Location::Unreachable("no route leads there".into()));
    for (policy, expected) in [(TrafficPolicy::Local, WhenEmpty::Drop), (TrafficPolicy::Cluster, WhenEmpty::Pass)] {
        assert_eq!(decide("10.1.0.1", &node, policy, TCP).0.when_empty, expected);
    }
}

#[test]
fn what_is_wrong_with_the_link_is_told() {
    for (state, what) in [
        (LinkState::Down, "pod1 is down"),
        (LinkState::WithoutCarrier, "pod1 has no carrier: the pod's end is down"),
        (LinkState::WithoutRoute, "pod1 is there, but no route leads to the pod any more"),
    ] {
        let node = node_with(&[1], |link| Location::Link(PodLink { state, ..link }));
        let (_, desired) = decide("10.1.0.1, 10.1.0.2", &node, TrafficPolicy::Cluster, TCP);
        let told: Vec<String> =
            desired.refusals.iter().map(|refusal| format!("{}: {}", refusal.object, refusal.why)).collect();
        let why = format!("gets no new connections as long as its link does not carry: {what}");
        assert_eq!(told, [format!("endpoint 10.1.0.1 of default/web: {why}")]);
    }
    let node = node_with(&[1], |link| Location::Link(PodLink { state: LinkState::Down, ..link }));
    let (_, desired) = decide("10.1.0.1 terminating, 10.1.0.2", &node, TrafficPolicy::Cluster, TCP);
    assert_eq!(desired.refusals, [], "it would get none anyway");
}

/// The usual node, with these pods somewhere else.
fn node_with(pods: &[u8], location: impl Fn(PodLink) -> Location) -> NodeView {
    let mut node = node();
    for &pod in pods {
        node.pods.insert([10, 1, 0, pod].into(), location(link(pod.into(), true)));
    }
    node
}

/// The only service of what the node should serve, and all of it.
fn decide(text: &str, node: &NodeView, policy: TrafficPolicy, protocol: PortProtocol) -> (DesiredService, Desired) {
    let mut service = Service { external_traffic_policy: policy, ..service() };
    service.ports[0].protocol = protocol.clone();
    let mut slice = slice("web-1", &endpoints(text));
    slice.ports[0].protocol = protocol;
    let desired = desired(&Policy::default(), &model([service.into(), slice.into()]), node, DeliveryChoice::Auto);
    (desired.services.values().next().expect("it is served").clone(), desired)
}

/// The last byte of each backend's address, in brackets if it takes no new connections.
fn backends(service: &DesiredService) -> String {
    let numbers = service.backends.iter().map(|(socket, backend)| match (last_byte(socket.ip()), backend.takes_new) {
        (number, true) => number.to_string(),
        (number, false) => format!("({number})"),
    });
    numbers.collect::<Vec<_>>().join(" ")
}
