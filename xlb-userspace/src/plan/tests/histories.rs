//! Random histories: pods come, drain, go and come again at another's address, agents crash between two operations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use xlb_common::abi::vip_flags;

use super::events::{Event, State, World, event};
use super::maps::{Node, Owner, Owners};
use super::openness::{check_affinity, check_openness};
use crate::plan::endpoints::ObservedInside;
use crate::plan::entries::Entries;
use crate::plan::observed::Observed;
use crate::plan::{Endpoint, Limits, Plan, plan};

/// What happens before the agent plans, and how far it gets.
#[derive(Clone, Debug)]
struct Round {
    events: Vec<Event>,
    pause_ms: u64,
    /// The agent dies after this part (of 1000) of its operations.
    crash: Option<usize>,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn every_prefix_is_consistent_and_no_flow_loses_its_owner(limits in limits(), rounds in prop::collection::vec(round(), 1..14)) {
        check_history(limits, &rounds)?;
    }
}

/// Histories that chance found, each with what was wrong.
#[test]
fn what_was_wrong_once_stays_right() {
    let (ready, draining) = (State::Ready(1), State::Draining);
    let pods = |service, below| Event::Pods { service, below, state: ready };
    let vip = |service, vip| Event::Vip { service, vip };
    // Two services swap their addresses, and the agent dies before it is done: a word has no room for all who owned it.
    let swap = [
        (vec![pods(1, 1)], None),
        (vec![vip(1, 3)], None),
        (vec![vip(3, 2), Event::Pod { service: 1, pod: 0, state: draining }], None),
        (vec![pods(3, 8)], None),
        (vec![vip(1, 2), vip(3, 3)], Some(21)),
        (vec![Event::Pod { service: 0, pod: 0, state: ready }], None),
    ];
    // The members behind a service's own are those of another one: these tests took them for its own.
    let neighbours = [
        (vec![pods(3, 17)], None),
        (vec![vip(3, 5)], None),
        (vec![vip(1, 5), Event::Deleted { service: 3 }], None),
        (vec![vip(3, 5)], None),
    ];
    for history in [&swap[..], &neighbours] {
        let round = |(events, crash): &(Vec<Event>, _)| Round { events: events.clone(), pause_ms: 0, crash: *crash };
        check_history(roomy(), &history.iter().map(round).collect::<Vec<_>>()).unwrap();
    }
}

fn check_history(limits: Limits, rounds: &[Round]) -> Result<(), TestCaseError> {
    let mut world = World::default();
    let mut node = Node { limits, ..Node::default() };
    for round in rounds {
        round.events.iter().for_each(|event| world.happen(event));
        node.now_ms += round.pause_ms;
        linger_in_takers(&node, &mut world);
        let before = node.clone();
        let plan = node.plan(&world.desired);
        prop_assert_eq!(&plan, &plan_of_maps(&node, &world), "what is kept between rounds says the same");
        let done = round.crash.map_or(plan.ops.len(), |part| plan.ops.len() * part / 1000);
        node.apply(&plan.ops[..done]).map_err(TestCaseError::fail)?;
        check_owners_are_kept(&before, &node, &world)?;
        check_owners_outlive_takeovers(&before, &node, &world)?;
        check_openness(&before, &plan.ops)?;
        if round.crash.is_some() {
            node.restart();
            continue;
        }
        check_agent_knows_maps(&node)?;
        check_vips(&node)?;
        check_all_is_served(&node, &world, &plan)?;
        check_affinity(&before, &node, &world.desired)?;
        check_a_restart_changes_nothing(&before, &node, &world, &plan)?;
        let again = node.plan(&world.desired);
        prop_assert!(plan.retry_at_ms.is_some() || again.ops.is_empty(), "{:?}", again.ops);
    }
    check_it_comes_to_rest(&mut node, &world)
}

/// The plan of an agent that reads the maps, and knows what rests.
fn plan_of_maps(node: &Node, world: &World) -> Plan {
    let Observed { resting, unclaimed_slots, .. } = node.observed.clone();
    let mut read = Observed { resting, unclaimed_slots, ..node.maps.read_back() };
    read.inside.resting = node.observed.inside.resting.clone();
    plan(&world.desired, &read, &node.limits, node.now_ms)
}

/// Room for everything.
pub fn roomy() -> Limits {
    Limits { sole_frontends: xlb_common::abi::BACKENDS_MAX, ..Limits::default() }
}

pub fn limits() -> impl Strategy<Value = Limits> {
    let small = (2u32..6, 2u32..5, 0u32..1400, 0u32..80, 2u32..30, 0u32..6, 0u32..40);
    let small = small.prop_map(|(frontends, services, slots, members, backends, source_ranges, endpoints)| Limits {
        frontends,
        services,
        slots,
        members,
        backends,
        source_ranges,
        endpoints,
        sole_frontends: backends,
    });
    prop_oneof![Just(roomy()), small]
}

fn round() -> impl Strategy<Value = Round> {
    let events = prop::collection::vec(event(), 1..6);
    let crash = prop_oneof![3 => Just(None), 1 => (0usize..1000).prop_map(Some)];
    let round = (events, prop::sample::select(vec![0u64, 3_000, 11_000]), crash);
    round.prop_map(|(events, pause_ms, crash)| Round { events, pause_ms, crash })
}

/// Each frontend's service and the owners of its slots.
fn served(node: &Node) -> BTreeMap<Endpoint, (String, Owners)> {
    let tables = &node.maps.tables;
    let name = |id: &u32| node.maps.services[id].name.clone();
    tables
        .frontends
        .iter()
        .map(|(&key, frontend)| (key, (name(&frontend.service), node.maps.owners(frontend))))
        .collect()
}

/// Whether frontends of a service name several backends: an update did not come to its end. Without room for slots one
/// of them is chosen.
fn is_torn(node: &Node, service: &str) -> bool {
    let soles = served(node).into_values().filter(|(name, owners)| name == service && owners.len() == 1);
    soles.map(|(_, owners)| owners).collect::<BTreeSet<_>>().len() > 1
}

/// Whoever owned a slot and lives is still named there, or known as forgotten.
fn check_owners_are_kept(before: &Node, after: &Node, world: &World) -> Result<(), TestCaseError> {
    let after = served(after);
    for (key, (service, old)) in served(before) {
        let (alive, _) = world.pods(&service);
        let is_held = old.iter().flatten().flatten().any(|owner| alive.contains(owner));
        let has_no_room = before.limits != roomy() && is_torn(before, &service);
        if !world.wants(&service, &key) || !is_held || has_no_room {
            continue;
        }
        let Some((now, new)) = after.get(&key) else {
            return Err(TestCaseError::fail(format!("{service} lost {key:?}")));
        };
        prop_assert_eq!(now, &service);
        prop_assert!(
            old.len() == new.len() || old.len() == 1 || new.len() == 1,
            "{} to {} slots",
            old.len(),
            new.len()
        );
        let slots = old.len().max(new.len());
        for (old, new) in old.iter().cycle().zip(new.iter().cycle()).take(slots) {
            let lost = old.iter().flatten().find(|owner| alive.contains(*owner) && !new.contains(&Some(**owner)));
            prop_assert!(lost.is_none(), "{service} lost {lost:?}: {old:?} became {new:?}");
        }
    }
    Ok(())
}

/// The agent's part: whoever may have connections of an address lingers in the service that gets it.
fn linger_in_takers(node: &Node, world: &mut World) {
    for (key, (service, owners)) in served(node) {
        let taker = world.desired.services.iter().find(|(_, wanted)| wanted.vips.contains(&key.socket.ip()));
        if let Some((taker, _)) = taker.filter(|(name, _)| name.to_string() != service) {
            let taker = taker.clone();
            world.take_over(&taker, owners.into_iter().flatten().flatten());
        }
    }
}

/// Whoever owned any slot of an address for another service and lives is named in every slot, or known as forgotten.
fn check_owners_outlive_takeovers(before: &Node, after: &Node, world: &World) -> Result<(), TestCaseError> {
    let after = served(after);
    for (key, (former, old)) in served(before) {
        let Some((now, new)) = after.get(&key).filter(|(now, _)| *now != former) else { continue };
        let (alive, _) = world.pods(now);
        if before.limits != roomy() || !world.wants(now, &key) {
            continue;
        }
        let old: BTreeSet<Owner> = old.into_iter().flatten().flatten().filter(|owner| alive.contains(owner)).collect();
        for new in new {
            let lost = old.iter().find(|owner| !new.contains(&Some(**owner)));
            prop_assert!(lost.is_none(), "{now} took {key:?} of {former}, and lost {lost:?}");
        }
    }
    Ok(())
}

/// Without a shortage every address is served by exactly the backends that take new connections.
fn check_all_is_served(node: &Node, world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    if plan.retry_at_ms.is_some() || !plan.refusals.is_empty() {
        return Ok(());
    }
    let frontends = served(node);
    let wanted = world.desired.services.values().map(|service| service.vips.len()).sum::<usize>();
    prop_assert_eq!(frontends.len(), wanted);
    for (service, owners) in frontends.values() {
        let (_, takers) = world.pods(service);
        let current: BTreeSet<Option<Owner>> = owners.iter().map(|owners| owners[0]).collect();
        let expected = if takers.is_empty() { BTreeSet::from([None]) } else { takers.into_iter().map(Some).collect() };
        prop_assert_eq!(current, expected);
    }
    check_inside_is_served(node, world)?;
    for frontend in node.maps.tables.frontends.values() {
        let (_, takers) = world.pods(&node.maps.services[&frontend.service].name);
        let wrong =
            node.maps.members(frontend).into_iter().find(|(owner, takes_new)| *takes_new != takers.contains(owner));
        prop_assert!(wrong.is_none(), "who takes new connections: {wrong:?}");
    }
    Ok(())
}

/// Every address leads clients inside to the endpoints that are asked for, or has no entry.
fn check_inside_is_served(node: &Node, world: &World) -> Result<(), TestCaseError> {
    let maps = &node.maps.tables.inside;
    for (name, service) in &world.desired.services {
        for &vip in &service.vips {
            let key = Endpoint { socket: (vip, service.port).into(), protocol: name.protocol };
            let entry = maps.entries.get(&key);
            let found = entry.map(|inside| maps.led_to(name.family, inside));
            prop_assert_eq!(found.as_ref(), service.inside.as_ref());
            let affinity_s = entry.map_or(service.affinity_s, |inside| inside.affinity_s);
            prop_assert_eq!(affinity_s, service.affinity_s);
            let is_filtered = entry.map(|inside| node.maps.open_to_inside(inside).is_some());
            prop_assert_eq!(
                is_filtered.unwrap_or(service.sources.vips.contains(&vip)),
                service.sources.vips.contains(&vip)
            );
        }
    }
    Ok(())
}

/// A VIP is what has a frontend, and is usable if one of them has somebody for a new connection.
fn check_vips(node: &Node) -> Result<(), TestCaseError> {
    let mut expected = BTreeMap::new();
    for (key, (_, owners)) in served(node) {
        let usable = owners.iter().all(|owners| owners[0].is_some());
        *expected.entry(key.socket.ip()).or_insert(0) |= if usable { vip_flags::USABLE } else { 0 };
    }
    prop_assert_eq!(&node.maps.tables.vips, &expected);
    Ok(())
}

fn check_agent_knows_maps(node: &Node) -> Result<(), TestCaseError> {
    let read = node.maps.read_back();
    let known = |observed: &Observed| Observed {
        members: Entries::default(),
        resting: Default::default(),
        inside: ObservedInside { resting: BTreeMap::new(), ..observed.inside.clone() },
        unclaimed_slots: BTreeMap::new(),
        ..observed.clone()
    };
    prop_assert_eq!(known(&node.observed), known(&read));
    let differs = read.members.iter().find(|(index, member)| node.observed.members.get(index) != Some(*member));
    prop_assert!(differs.is_none(), "{differs:?}");
    Ok(())
}

/// An agent that has just started comes to the same tables.
fn check_a_restart_changes_nothing(
    before: &Node,
    after: &Node,
    world: &World,
    plan: &Plan,
) -> Result<(), TestCaseError> {
    let mut restarted = before.clone();
    restarted.restart();
    let other = restarted.plan(&world.desired);
    let is_short = |plan: &Plan| plan.retry_at_ms.is_some() || !plan.refusals.is_empty();
    if is_short(plan) || is_short(&other) {
        return Ok(());
    }
    restarted.apply(&other.ops).map_err(TestCaseError::fail)?;
    prop_assert_eq!(served(&restarted), served(after));
    Ok(())
}

/// When nothing happens any more the plans end, and nothing waits for room.
fn check_it_comes_to_rest(node: &mut Node, world: &World) -> Result<(), TestCaseError> {
    for _ in 0..8 {
        node.now_ms += 11_000;
        let plan = node.plan(&world.desired);
        if plan.ops.is_empty() && plan.retry_at_ms.is_none() {
            return Ok(());
        }
        let before = node.clone();
        node.apply(&plan.ops).map_err(TestCaseError::fail)?;
        check_owners_are_kept(&before, node, world)?;
    }
    Err(TestCaseError::fail("still changing"))
}
