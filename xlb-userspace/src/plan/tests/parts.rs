//! What is planned for some services is what a plan for all of them does.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::events::{World, event};
use super::histories::limits;
use super::maps::Node;
use super::world::{desired, service};
use crate::plan::desired::{Desired, DesiredService, ServiceName};
use crate::plan::observed::Observed;
use crate::plan::part::Scope;
use crate::plan::{Endpoint, Plan, plan_part};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_plan_for_what_changed_is_the_plan_for_everything(
        limits in limits(),
        rounds in prop::collection::vec((prop::collection::vec(event(), 0..4), prop::sample::select(vec![0u64, 3_000, 11_000])), 1..14),
    ) {
        let mut world = World::default();
        let mut node = Node { limits, ..Node::default() };
        let mut is_settled = true;
        for (events, pause_ms) in rounds {
            let before = world.desired.clone();
            events.iter().for_each(|event| world.happen(event));
            node.now_ms += pause_ms;
            let whole = node.plan(&world.desired);
            if is_settled {
                let part = plan_for_changes(&before, &world.desired, &node);
                prop_assert_eq!(words(&part), words(&whole));
                prop_assert_eq!((&part.refusals, part.retry_at_ms), (&whole.refusals, whole.retry_at_ms));
                prop_assert!(part.waiting.iter().all(|waiting| whole.waiting.contains(waiting)));
            }
            node.apply(&whole.ops).map_err(TestCaseError::fail)?;
            is_settled = whole.refusals.is_empty() && whole.retry_at_ms.is_none();
        }
    }
}

#[test]
fn a_part_that_is_not_whole_is_in_doubt() {
    let mut node = Node::default();
    node.reach(&desired([("a", service(1, [1, 2])), ("b", service(2, [2]))]));
    let wanted = desired([("a", service(1, [1, 2]))]);
    let scope = scope_of(&wanted);

    assert!(node.observed.part(&scope).is_some());
    let without_a_pod = Scope { pods: scope.pods.iter().skip(1).copied().collect(), ..scope.clone() };
    assert_eq!(node.observed.part(&without_a_pod), None);
    let mut with_anothers = scope;
    with_anothers.frontends.extend(scope_of(&desired([("b", service(2, []))])).frontends);
    assert_eq!(node.observed.part(&with_anothers), None);
}

fn words(plan: &Plan) -> Vec<String> {
    plan.ops.iter().map(|op| format!("{op} {op:?}")).collect()
}

fn plan_for_changes(before: &Desired, after: &Desired, node: &Node) -> Plan {
    let is_same = |name: &ServiceName| before.services.get(name) == after.services.get(name);
    let names = before.services.keys().chain(after.services.keys());
    let mut names: BTreeSet<ServiceName> = names.filter(|name| !is_same(name)).cloned().collect();
    let mut scope = Scope::default();
    loop {
        for (name, service) in services(before, after).filter(|(name, _)| names.contains(name)) {
            extend(&mut scope, name, service);
            extend_with_pods_behind(&mut scope, &node.observed);
        }
        let tied = services(before, after).filter(|(name, service)| is_tied(&scope, name, service));
        let tied: BTreeSet<ServiceName> = tied.map(|(name, _)| name.clone()).chain(names.clone()).collect();
        if tied == names {
            break;
        }
        names = tied;
    }
    let part = node.observed.part(&scope).expect("nothing is in doubt");
    let of_part = after.services.iter().filter(|(name, _)| names.contains(name));
    let of_part = of_part.map(|(name, service)| (name.clone(), service.clone())).collect();
    let desired = Desired { services: of_part, refusals: Vec::new() };
    plan_part(&desired, &part, &node.observed, &node.limits, node.now_ms)
}

fn services<'a>(
    before: &'a Desired,
    after: &'a Desired,
) -> impl Iterator<Item = (&'a ServiceName, &'a DesiredService)> {
    before.services.iter().chain(&after.services)
}

fn scope_of(desired: &Desired) -> Scope {
    let mut scope = Scope::default();
    desired.services.iter().for_each(|(name, service)| extend(&mut scope, name, service));
    scope
}

fn extend(scope: &mut Scope, name: &ServiceName, service: &DesiredService) {
    scope.add_name(name);
    scope.frontends.extend(frontends(name, service));
    scope.pods.extend(service.backends.keys().map(|socket| socket.ip()));
}

fn extend_with_pods_behind(scope: &mut Scope, observed: &Observed) {
    let frontends = scope.frontends.iter().filter_map(|key| observed.frontends.get(key));
    let pods: Vec<_> = frontends.flat_map(|frontend| observed.pods_behind(frontend)).collect();
    scope.pods.extend(pods);
}

fn is_tied(scope: &Scope, name: &ServiceName, service: &DesiredService) -> bool {
    frontends(name, service).any(|key| scope.frontends.contains(&key))
        || service.backends.keys().any(|socket| scope.pods.contains(&socket.ip()))
}

fn frontends(name: &ServiceName, service: &DesiredService) -> impl Iterator<Item = Endpoint> {
    let (port, protocol) = (service.port, name.protocol);
    service.vips.iter().map(move |&vip| Endpoint { socket: (vip, port).into(), protocol })
}
