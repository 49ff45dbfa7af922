//! Pod ports to which one frontend alone leads.

use std::collections::BTreeSet;

use super::histories::roomy;
use super::maps::Node;
use super::world::{desired, pod, service, vip};
use crate::plan::desired::Protocol;
use crate::plan::{Endpoint, Op};

#[test]
fn a_pod_with_one_frontend_has_it_alone_until_it_gains_a_second() {
    let mut node = Node { limits: roomy(), ..Node::default() };
    node.reach(&desired([("a", service(1, [1, 2]))]));
    assert_eq!(alone(&node), [(1, 1), (2, 1)]);

    let plan = node.reach(&desired([("a", service(1, [1, 2])), ("b", service(2, [2, 3]))]));
    assert_eq!(alone(&node), [(1, 1), (3, 2)]);
    assert!(matches!(plan.ops[0], Op::RemoveSoleFrontend { .. }), "{}", plan.ops[0]);
}

#[test]
fn a_pod_that_had_two_frontends_never_has_one_alone_again() {
    let mut node = Node { limits: roomy(), ..Node::default() };
    let both = [("a", service(1, [1])), ("b", service(2, [1]))];
    node.reach(&desired(both));
    node.reach(&desired([("a", service(1, [1]))]));
    assert_eq!(alone(&node), []);
    node.restart();
    node.reach(&desired([("a", service(1, [1]))]));
    assert_eq!(alone(&node), []);
}

#[test]
fn a_service_with_two_vips_leads_to_none_of_its_pods_alone() {
    let mut node = Node { limits: roomy(), ..Node::default() };
    let mut two = service(1, [1]);
    two.vips.insert(vip(2));
    node.reach(&desired([("a", two)]));
    assert_eq!(alone(&node), []);
}

#[test]
fn while_the_host_may_have_connections_no_frontend_is_alone() {
    let mut node = Node { limits: roomy(), ..Node::default() };
    let mut handed_over = service(1, [1]);
    handed_over.host_before = BTreeSet::from([vip(1)]);
    node.reach(&desired([("a", handed_over)]));
    assert_eq!(alone(&node), []);
    node.reach(&desired([("a", service(1, [1, 2]))]));
    assert_eq!(alone(&node), [(2, 1)], "pod 1 may have connections that came otherwise");
}

#[test]
fn a_restart_keeps_them_and_routed_pods_have_none() {
    let mut node = Node { limits: roomy(), ..Node::default() };
    let one = desired([("a", service(1, [1]))]);
    node.reach(&one);
    node.restart();
    assert_eq!(node.plan(&one).ops, []);
    node.limits.sole_frontends = 0;
    node.reach(&one);
    assert_eq!(alone(&node), []);
    node.limits = roomy();
    node.reach(&one);
    assert_eq!(alone(&node), [], "who led there meanwhile is not known");
}

/// Pods with the last number of their only VIP.
fn alone(node: &Node) -> Vec<(u16, u8)> {
    let of = |number: u16| {
        let key = Endpoint { socket: pod(number), protocol: Protocol::Tcp };
        node.maps.tables.sole_frontends.get(&key).map(|sole| (number, sole.vip[3]))
    };
    (1..10).filter_map(of).collect()
}
