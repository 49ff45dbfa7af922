//! How backends are reached, by what the operator chose, where the pod is, and what NetworkPolicies there are.

use crate::model::DeliveryChoice::{self, Auto, Direct, Stack};
use crate::model::fixtures::*;
use crate::model::objects::Object;
use crate::model::{Policy, desired};
use crate::node::Location;

/// Where the pod is; whether a NetworkPolicy restricts ingress; delivery for Auto, Direct and Stack.
fn rows() -> Vec<(Location, bool, [&'static str; 3])> {
    vec![
        (Location::Link(link(7, true)), false, ["direct pod7", "direct pod7", "stack pod7"]),
        (Location::Link(link(7, true)), true, ["stack pod7", "direct pod7", "stack pod7"]),
        (Location::Link(link(7, false)), false, ["stack pod7", "stack pod7 refused", "stack pod7"]),
        (Location::Host, false, ["stack", "stack refused", "stack"]),
        (Location::Routed, true, ["stack", "stack refused", "stack"]),
    ]
}

#[test]
fn location_choice_and_network_policies_decide_the_delivery() {
    for (location, is_restricted, expected) in rows() {
        for (choice, expected) in [Auto, Direct, Stack].into_iter().zip(expected) {
            let delivery = delivery_to(&location, choice, is_restricted, "default");
            assert_eq!(delivery, expected, "{choice:?} {location:?}, restricted: {is_restricted}");
        }
    }
}

#[test]
fn a_network_policy_counts_in_its_own_namespace_only() {
    let veth = Location::Link(link(7, true));
    assert_eq!(delivery_to(&veth, Auto, true, "other"), "direct pod7");
}

fn delivery_to(location: &Location, choice: DeliveryChoice, is_restricted: bool, namespace: &str) -> String {
    let mut node = node();
    node.pods.insert("10.1.0.1".parse().unwrap(), location.clone());
    let objects: [Object; 3] =
        [service().into(), slice("web-1", &endpoints("10.1.0.1")).into(), policy(namespace, is_restricted).into()];

    let desired = desired(&Policy::default(), &model(objects), &node, choice);

    let text = text(&desired);
    let line = text.lines().next().unwrap();
    let delivery = line.strip_prefix("default/web 192.0.2.10:80 pass | 10.1.0.1:8080 ").unwrap();
    format!("{delivery}{}", if desired.refusals.is_empty() { "" } else { " refused" })
}
