//! Single facts about clients inside: which endpoints their entries lead to, and in which order things happen.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use xlb_common::abi::{Inside, inside_flags as flags};

use super::maps::Node;
use super::openness::check_openness;
use super::world::{desired, pod, range_of, service, vip};
use crate::plan::desired::{Desired, DesiredInside, DesiredService, Family, SourceFilter};
use crate::plan::observed::QUARANTINE_MS;
use crate::plan::{Limits, Op, Plan};

#[test]
fn endpoints_are_written_before_what_leads_to_them_and_rest_after_it() {
    let mut node = Node::default();
    let first = node.reach(&web(&[1, 2], &[]));
    assert_eq!(inside_ops(&first), ["put endpoints 0+2", "put inside 192.0.2.1:80/tcp"]);
    assert_eq!(entry(&node), Inside { endpoints: 2, ..Inside::default() });

    let second = node.reach(&web(&[1, 2, 3], &[]));
    assert_eq!(inside_ops(&second), ["put endpoints 2+3", "put inside 192.0.2.1:80/tcp"]);
    let third = node.reach(&web(&[2], &[]));
    assert_eq!(inside_ops(&third), ["put endpoints 5+1", "put inside 192.0.2.1:80/tcp"], "the others rest");
    node.now_ms += QUARANTINE_MS;
    let fourth = node.reach(&web(&[1], &[]));
    assert_eq!(inside_ops(&fourth), ["put endpoints 0+1", "put inside 192.0.2.1:80/tcp"]);
    let last = node.reach(&Desired::default());
    assert_eq!(inside_ops(&last), ["remove inside 192.0.2.1:80/tcp"]);
}

#[test]
fn endpoints_that_stay_the_same_are_not_written_again_also_by_another_agent() {
    let mut node = Node::default();
    let wanted = web(&[1, 2], &[3]);
    node.reach(&wanted);
    node.restart();
    assert_eq!(node.plan(&wanted), Plan::default());
    let mut affine = wanted;
    affine.services.values_mut().for_each(|web| web.affinity_s = 60);
    assert_eq!(inside_ops(&node.reach(&affine)), ["put inside 192.0.2.1:80/tcp"]);
    assert_eq!(entry(&node), Inside { endpoints: 2, lingering: 1, affinity_s: 60, ..Inside::default() });
}

#[test]
fn an_endpoint_that_lingers_is_not_one_that_is_usable() {
    let mut node = Node::default();
    node.reach(&web(&[1, 2], &[]));
    node.reach(&web(&[1], &[2]));
    assert_eq!(led_to(&node), DesiredInside { usable: vec![pod(1)], lingering: vec![pod(2)], local: None });
    node.reach(&web(&[], &[1, 2]));
    assert_eq!(led_to(&node), DesiredInside { usable: vec![], lingering: vec![pod(1), pod(2)], local: None });
}

#[test]
fn what_clients_in_pods_get_is_beside_what_others_get_and_may_be_nothing() {
    let mut node = Node::default();
    for (local, put) in [(None, 0), (Some(vec![pod(1), pod(3)]), 3), (Some(vec![]), 8), (None, 11)] {
        let mut wanted = web(&[1, 2], &[3]);
        let inside = wanted.services.values_mut().find_map(|web| web.inside.as_mut()).unwrap();
        inside.local = local.clone();
        let wanted_inside = inside.clone();
        let written = 3 + local.iter().flatten().count();
        let ops = [format!("put endpoints {put}+{written}"), "put inside 192.0.2.1:80/tcp".into()];
        assert_eq!(inside_ops(&node.reach(&wanted)), ops);
        assert_eq!(led_to(&node), wanted_inside);
        let mut next = node.clone();
        next.restart();
        assert_eq!([node.plan(&wanted), next.plan(&wanted)], [Plan::default(), Plan::default()], "{local:?}");
    }
}

#[test]
fn several_vips_of_a_service_share_their_endpoints() {
    let mut node = Node::default();
    let two = |vips: &[u8]| {
        let mut wanted = web(&[1, 2], &[]);
        wanted.services.values_mut().for_each(|web| web.vips = vips.iter().map(|&last| vip(last)).collect());
        wanted
    };
    node.reach(&two(&[1]));
    assert_eq!(inside_ops(&node.reach(&two(&[1, 2]))), ["put inside 192.0.2.2:80/tcp"]);
    assert_eq!(inside_ops(&node.reach(&two(&[2]))), ["remove inside 192.0.2.1:80/tcp"]);
    assert_eq!(inside_ops(&node.reach(&two(&[2, 3]))), ["put inside 192.0.2.3:80/tcp"]);
}

#[test]
fn a_service_without_a_usable_endpoint_has_an_entry_that_rejects_and_one_that_is_not_for_inside_has_none() {
    let mut node = Node::default();
    assert_eq!(inside_ops(&node.reach(&web(&[], &[]))), ["put inside 192.0.2.1:80/tcp"]);
    assert_eq!(entry(&node).endpoints, 0);
    let plan = node.reach(&desired([("web", service(1, [1]))]));
    assert_eq!(inside_ops(&plan), ["remove inside 192.0.2.1:80/tcp"]);
}

#[test]
fn a_service_whose_endpoints_do_not_fit_is_served_to_clients_outside_only() {
    let mut node = Node { limits: Limits { endpoints: 3, ..Limits::default() }, ..Node::default() };
    let mut wanted = web(&[1, 2, 3, 4], &[]);
    wanted.services.extend(desired([("tiny", with_inside(service(2, [1]), &[1], &[]))]).services);
    node.reach(&wanted);
    let plan = node.reach(&wanted);
    let [refusal] = plan.refusals.as_slice() else { panic!("{plan:?}") };
    assert_eq!(refusal.object, "Service default/web");
    let why =
        "is not served to clients inside, because no free part of the endpoint table (3 of a family) is large enough";
    assert!(refusal.why.starts_with(why), "{}", refusal.why);
    let led: Vec<String> = node.observed.inside.entries.keys().map(ToString::to_string).collect();
    assert_eq!((led, node.observed.frontends.len()), (vec!["192.0.2.2:80/tcp".to_owned()], 2));
}

#[test]
fn endpoints_of_before_are_led_to_until_what_rests_makes_room() {
    let mut node = Node { limits: Limits { endpoints: 4, ..Limits::default() }, ..Node::default() };
    node.reach(&web(&[1, 2], &[]));
    node.reach(&web(&[1, 3], &[]));
    let wanted = web(&[3, 4], &[]);
    let waits = node.reach(&wanted);
    assert_eq!((inside_ops(&waits), waits.retry_at_ms), (vec![], Some(QUARANTINE_MS)));
    assert!(waits.waiting[0].why.starts_with("leads clients inside to its endpoints of before"), "{waits:?}");
    node.now_ms += QUARANTINE_MS;
    assert_eq!(inside_ops(&node.reach(&wanted)), ["put endpoints 0+2", "put inside 192.0.2.1:80/tcp"]);
}

#[test]
fn clients_inside_are_filtered_where_the_others_are() {
    let mut node = Node::default();
    let mut wanted = web(&[1], &[]);
    let sources = SourceFilter { vips: [vip(1)].into(), ranges: [range_of(Family::V4, 0)].into() };
    wanted.services.values_mut().for_each(|web| web.sources = sources.clone());
    let plan = node.reach(&wanted);
    let position = |part: &str| plan.ops.iter().position(|op| op.to_string().starts_with(part)).unwrap();
    assert!(position("put source range") < position("put inside"));
    assert_eq!(entry(&node).flags, flags::SOURCE_RANGES);
}

#[test]
fn a_vip_that_comes_to_a_service_which_changes_its_ranges_lets_in_nobody_else_meanwhile() {
    let before = [("api", filtered(&[1], &[3])), ("web", filtered(&[2], &[0]))];
    let after = [("api", filtered(&[1, 2], &[4])), ("web", filtered(&[5], &[0]))];
    lets_in_nobody_else(before, after);
}

#[test]
fn a_vip_that_leaves_a_service_which_gets_more_ranges_lets_in_nobody_else_meanwhile() {
    let before = [("api", filtered(&[1, 2], &[0])), ("web", filtered(&[3], &[4]))];
    lets_in_nobody_else(before.clone(), [("api", filtered(&[1], &[0, 1])), ("web", filtered(&[3], &[4]))]);
    lets_in_nobody_else(before, [("api", filtered(&[1], &[0, 1])), ("web", filtered(&[2, 3], &[4]))]);
}

/// The endpoints of before rest, though they are the same: the entry that led to them goes early.
#[test]
fn a_vip_that_changes_hands_leads_to_endpoints_of_its_new_service() {
    let before = [("api", filtered(&[1], &[0])), ("web", filtered(&[2], &[4]))];
    lets_in_nobody_else(before, [("api", filtered(&[3], &[0, 1])), ("web", filtered(&[1, 2], &[4]))]);
}

type Services = [(&'static str, DesiredService); 2];

fn lets_in_nobody_else(before: Services, after: Services) {
    let mut node = Node::default();
    node.reach(&desired(before));
    let was = node.clone();
    let plan = node.reach(&desired(after.clone()));
    check_openness(&was, &plan.ops).unwrap();
    assert_eq!(node.plan(&desired(after)), Plan::default());
}

/// A service whose VIPs are all open to these ranges, and lead clients inside to the same two pods as any other.
fn filtered(vips: &[u8], ranges: &[u8]) -> DesiredService {
    let vips: BTreeSet<IpAddr> = vips.iter().map(|&last| vip(last)).collect();
    let ranges = ranges.iter().map(|&number| range_of(Family::V4, number)).collect();
    let sources = SourceFilter { vips: vips.clone(), ranges };
    with_inside(DesiredService { vips, sources, ..service(0, [1]) }, &[1, 2], &[])
}

/// `default/web` at 192.0.2.1:80 whose clients inside get these pods.
fn web(usable: &[u16], lingering: &[u16]) -> Desired {
    desired([("web", with_inside(service(1, [1]), usable, lingering))])
}

fn with_inside(service: DesiredService, usable: &[u16], lingering: &[u16]) -> DesiredService {
    let sockets = |pods: &[u16]| pods.iter().map(|&number| pod(number)).collect::<Vec<SocketAddr>>();
    let inside = DesiredInside { usable: sockets(usable), lingering: sockets(lingering), local: None };
    DesiredService { inside: Some(inside), ..service }
}

fn led_to(node: &Node) -> DesiredInside {
    node.maps.tables.inside.led_to(Family::V4, &entry(node))
}

fn entry(node: &Node) -> Inside {
    *node.observed.inside.entries.values().next().expect("one entry")
}

/// The operations for clients inside, up to what they say.
fn inside_ops(plan: &Plan) -> Vec<String> {
    let is_inside = |op: &&Op| matches!(op, Op::PutEndpoints { .. } | Op::PutInside { .. } | Op::RemoveInside { .. });
    let text = |op: &Op| op.to_string().split(" = ").next().unwrap_or_default().to_owned();
    plan.ops.iter().filter(is_inside).map(text).collect()
}
