//! Single facts about what services ask of their clients: families, source ranges, affinity.

use std::collections::BTreeSet;

use xlb_common::abi::{Frontend, frontend_flags as flags};

use super::maps::Node;
use super::world::{desired, draining, name_of, pod, pod_of, range_of, ready, service, vip, vip_of};
use crate::plan::desired::{Desired, DesiredService, Family, SourceFilter, WhenEmpty};
use crate::plan::{Limits, Op, Plan};

#[test]
fn both_families_of_a_service_are_laid_out_for_themselves() {
    let mut wanted = desired([("web", service(1, [1, 2]))]);
    let backends = [3, 4].map(|number| (pod_of(Family::V6, number), ready(number)));
    let of_v6 = DesiredService { vips: [vip_of(Family::V6, 1)].into(), backends: backends.into(), ..service(1, []) };
    wanted.services.insert(name_of(Family::V6, "web"), of_v6);

    let mut node = Node::default();
    node.reach(&wanted);

    let names: Vec<&str> = node.observed.services.values().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["default/web", "default/web/ipv6"]);
    let keys: Vec<String> = node.observed.frontends.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["192.0.2.1:80/tcp", "[2001:db8::1]:80/tcp"]);
    let families: Vec<u8> = node.observed.backends.values().map(|backend| backend.family).collect();
    assert_eq!(families, [4, 4, 6, 6]);
    assert_eq!(node.plan(&wanted), Plan::default());
}

#[test]
fn ranges_are_there_before_the_filter_and_go_after_it() {
    let open = desired([("web", service(1, [1]))]);
    let closed = desired([("web", filtered(service(1, [1]), &[0, 1]))]);
    let mut node = Node::default();
    node.reach(&open);

    let closing = kinds(&node.reach(&closed));
    let opening = kinds(&node.reach(&open));

    assert_eq!(closing, ["put source range", "put source range", "put frontend", "put config"]);
    assert_eq!(opening, ["put frontend", "remove source range", "remove source range", "put config"]);
    assert!(node.observed.source_ranges.is_empty());
}

#[test]
fn other_ranges_take_over_without_a_gap_and_without_a_moment_open_to_all() {
    let mut node = Node::default();
    node.reach(&desired([("web", filtered(service(1, [1]), &[0, 1]))]));
    let plan = node.reach(&desired([("web", filtered(service(1, [1]), &[1, 2]))]));
    assert_eq!(kinds(&plan), ["put source range", "remove source range", "put config"]);
}

#[test]
fn a_service_takes_its_ranges_with_it_when_it_goes() {
    let mut node = Node::default();
    node.reach(&desired([("web", filtered(service(1, [1]), &[0]))]));
    let plan = node.reach(&Desired::default());
    let order = [
        "remove vip",
        "remove frontend",
        "remove source range",
        "remove service",
        "remove backend id",
        "put backend",
        "put config",
    ];
    assert_eq!(kinds(&plan), order);
}

/// The agent died after it had removed the record and before it had removed the ranges.
#[test]
fn an_id_with_ranges_of_another_service_is_not_given_away() {
    let mut node = Node::default();
    node.maps.tables.source_ranges.insert(0, [range_of(Family::V4, 0)].into());
    node.restart();
    node.reach(&desired([("web", filtered(service(1, [1]), &[2]))]));
    assert_eq!(node.observed.source_ranges, [(1, [range_of(Family::V4, 2)].into())].into());
}

#[test]
fn a_new_service_whose_ranges_do_not_fit_is_not_served_at_all() {
    let mut node = Node { limits: Limits { source_ranges: 2, ..Limits::default() }, ..Node::default() };
    let wanted = desired([("web", filtered(service(1, [1]), &[0, 1, 2])), ("open", service(2, [1]))]);

    node.reach(&wanted);
    let plan = node.reach(&wanted);

    let [refusal] = plan.refusals.as_slice() else { panic!("{plan:?}") };
    let why =
        "is not served, because the table of source ranges is full (2 of a family): list fewer ranges, or wider ones";
    assert_eq!((refusal.object.as_str(), refusal.why.as_str()), ("Service default/web", why));
    assert_eq!((node.observed.frontends.len(), node.observed.source_ranges.len()), (1, 0));
}

#[test]
fn a_served_service_is_closed_to_the_ranges_that_do_not_fit() {
    let mut node = Node { limits: Limits { source_ranges: 2, ..Limits::default() }, ..Node::default() };
    node.reach(&desired([("web", service(1, [1]))]));
    let wanted = desired([("web", filtered(service(1, [1]), &[0, 1, 2]))]);

    node.reach(&wanted);
    let plan = node.reach(&wanted);

    assert!(plan.refusals[0].why.starts_with("is closed to 1 of its source ranges, because "), "{plan:?}");
    assert_eq!(frontend(&node).flags & flags::SOURCE_RANGES, flags::SOURCE_RANGES);
    assert_eq!(node.observed.source_ranges[&0].len(), 2);
}

#[test]
fn a_filter_without_ranges_is_open_to_nobody() {
    let mut node = Node::default();
    node.reach(&desired([("web", filtered(service(1, [1]), &[]))]));
    assert_eq!(node.maps.open_to(&frontend(&node)), Some(BTreeSet::new()));
}

#[test]
fn switching_affinity_while_a_service_is_there_is_remembered_until_it_goes() {
    let affine = |affinity_s| desired([("web", DesiredService { affinity_s, ..service(1, [1]) })]);
    let mut node = Node::default();
    let mut state = |affinity_s| {
        node.reach(&affine(affinity_s));
        let frontend = frontend(&node);
        (frontend.affinity_s, frontend.flags & flags::REHASHED != 0)
    };
    assert_eq!(state(60), (60, false), "it was never without");
    assert_eq!(state(90), (90, false), "another time is no other hash");
    assert_eq!(state(0), (0, true));
    assert_eq!(state(0), (0, true));
    assert_eq!(state(60), (60, true));

    node.restart();
    let mut moved = affine(60);
    moved.services.values_mut().for_each(|web| web.vips = [vip(9)].into());
    node.reach(&moved);
    assert_eq!(node.observed.frontends.values().map(|it| it.flags & flags::REHASHED).max(), Some(flags::REHASHED));

    node.reach(&Desired::default());
    node.reach(&affine(0));
    assert_eq!(frontend(&node).flags & flags::REHASHED, 0);
}

#[test]
fn what_happens_without_a_backend_is_a_flag() {
    for (when_empty, flag) in
        [(WhenEmpty::Pass, 0), (WhenEmpty::Drop, flags::DROP_WHEN_EMPTY), (WhenEmpty::Reject, flags::REJECT_WHEN_EMPTY)]
    {
        let mut node = Node::default();
        node.reach(&desired([("web", DesiredService { when_empty, ..service(1, []) })]));
        assert_eq!(frontend(&node).flags, flag);
    }
}

#[test]
fn a_member_says_whether_its_backend_takes_new_connections() {
    let mut node = Node::default();
    node.reach(&desired([("web", service(1, [1, 2, 3]))]));
    let mut web = service(1, [1, 3]);
    web.backends.insert(pod(2), draining(2));

    let plan = node.reach(&desired([("web", web)]));

    assert_eq!(plan.ops[0].to_string(), "put member 1 = backend 1 generation 1 takes no new");
    let taking: Vec<bool> = node.maps.members(&frontend(&node)).into_values().collect();
    assert_eq!(taking, [true, false, true]);
    let plan = node.reach(&desired([("web", service(1, [1, 2, 3]))]));
    assert_eq!(plan.ops[0].to_string(), "put member 1 = backend 1 generation 1");
}

/// Open to these ranges only.
fn filtered(service: DesiredService, ranges: &[u8]) -> DesiredService {
    let ranges = ranges.iter().map(|&number| range_of(Family::V4, number)).collect();
    DesiredService { sources: SourceFilter { vips: service.vips.clone(), ranges }, ..service }
}

/// The frontend at 192.0.2.1:80.
fn frontend(node: &Node) -> Frontend {
    let found = node.observed.frontends.iter().find(|(key, _)| key.socket.ip() == vip(1));
    *found.unwrap().1
}

/// The first words of each operation.
fn kinds(plan: &Plan) -> Vec<String> {
    let is_name = |word: &&str| word.chars().all(|letter| letter.is_ascii_lowercase());
    let kind = |op: &Op| op.to_string().split(' ').take_while(is_name).take(3).collect::<Vec<_>>().join(" ");
    plan.ops.iter().map(|op| kind(op).replace(" generation", "")).collect()
}
