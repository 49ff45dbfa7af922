//! Endpoints that are meant for some nodes or zones only (semantics 3.3).

use crate::model::Policy;
use std::sync::Arc;

use crate::model::fixtures::*;
use crate::model::objects::*;
use crate::model::{DeliveryChoice, desired};

/// Endpoints as `POD[~remote|~unready|~terminating][ HINTS]`, hints as `n:NODE` and `z:ZONE`; zone of this node; pods
/// that take new connections, under policy Cluster.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str)] = &[
    // Zone hints.
    ("1 z:a, 2 z:b", "a", "1"),
    ("1 z:a, 2 z:b z:a", "a", "1 2"),
    ("1 z:b, 2~remote z:a", "a", ""),
    ("1 z:b, 2~remote z:b", "a", "1"),
    ("1 z:a, 2 z:b", "", "1 2"),
    ("1 z:a, 2 z:b", "-", "1 2"),
    ("1 z:a, 2", "a", "1 2"),
    ("1 z:b, 2~remote", "a", "1"),
    // Only ready endpoints decide.
    ("1 z:a, 2 z:b, 3~unready", "a", "1"),
    ("1~unready z:a, 2 z:b", "a", "2"),
    ("1~terminating z:a, 2~terminating z:b", "a", "1 2"),
    ("1~terminating z:a, 2~remote z:b", "a", ""),
    // Node hints come first, and zones count where they do not.
    ("1 n:node-a z:b, 2 n:node-b z:a", "a", "1"),
    ("1 n:node-b z:b, 2 n:node-b z:a", "a", "2"),
    ("1 n:node-a z:b, 2 z:a", "a", "2"),
    ("1 n:node-a, 2 n:node-b", "-", "1"),
    ("1 n:Node-A, 2 n:node-b", "-", "1 2"),
    ("1 n:node-b, 2~remote n:node-a", "-", ""),
];

#[test]
fn hints_say_which_ready_endpoints_are_for_this_node() {
    for (endpoints, zone, expected) in ROWS {
        assert_eq!(takes_new(TrafficPolicy::Cluster, endpoints, zone), *expected, "{endpoints}, zone {zone}");
    }
}

#[test]
fn hints_never_apply_to_local_traffic_policy() {
    assert_eq!(takes_new(TrafficPolicy::Local, "1 z:a, 2 z:b, 3~remote z:a", "a"), "1 2");
}

/// The last bytes of the addresses of the backends that take new connections; zone `-` is no zone.
fn takes_new(policy: TrafficPolicy, endpoints: &str, zone: &str) -> String {
    let mut node = node();
    node.zone = Some(zone.to_owned()).filter(|zone| zone != "-");
    let service = Service { external_traffic_policy: policy, ..service() };
    let endpoints: Vec<Endpoint> = endpoints.split(", ").map(hinted).collect();
    let desired = desired(
        &Policy::default(),
        &model([service.into(), slice("web-1", &endpoints).into()]),
        &node,
        DeliveryChoice::Auto,
    );
    let backends = desired.services.values().flat_map(|service| &service.backends);
    let taking = backends.filter(|(_, backend)| backend.takes_new);
    taking.map(|(socket, _)| last_byte(socket.ip()).to_string()).collect::<Vec<_>>().join(" ")
}

fn hinted(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let pod = words.next().unwrap().replace('~', " ");
    let mut hints = Hints::default();
    for word in words {
        match word.split_once(':').unwrap() {
            ("n", node) => hints.nodes.push(node.into()),
            (_, zone) => hints.zones.push(zone.into()),
        }
    }
    let hints = (hints != Hints::default()).then(|| Arc::new(hints));
    Endpoint { hints, ..endpoint(&format!("10.1.0.{pod}")) }
}
