//! Random histories: pods come, drain, go and come again at another's address, agents crash between two operations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use xlb_common::abi::EndpointKeyV4;
use xlb_common::slot::OWNERS;

use super::maps::{Node, Owner, Owners};
use super::world::{link, name, pod, service, vip};
use crate::plan::desired::{Delivery, Desired, DesiredBackend, DesiredService};
use crate::plan::observed::Observed;
use crate::plan::{Limits, Plan};

const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
const PODS: u16 = 20;

#[derive(Clone, Debug)]
enum Event {
    /// A pod of a service: ready with a weight, draining, or gone.
    Pod { service: usize, pod: u16, state: State },
    /// Many pods of a service at once.
    Pods { service: usize, below: u16, state: State },
    /// A pod's address belongs to another pod now.
    Replaced { pod: u16 },
    /// A pod's delivery should be another one.
    Mode { pod: u16 },
    /// An address belongs to this service now.
    Vip { service: usize, vip: u8 },
    /// A service is deleted.
    Deleted { service: usize },
}

#[derive(Clone, Copy, Debug)]
enum State {
    Ready(u16),
    Draining,
    Gone,
}

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
        let mut world = World::default();
        let mut node = Node { limits, ..Node::default() };
        for round in rounds {
            round.events.iter().for_each(|event| world.happen(event));
            node.now_ms += round.pause_ms;
            let before = node.clone();
            let plan = node.plan(&world.desired);
            let done = round.crash.map_or(plan.ops.len(), |part| plan.ops.len() * part / 1000);
            node.apply(&plan.ops[..done]).map_err(TestCaseError::fail)?;
            check_owners_are_kept(&before, &node, &world)?;
            if round.crash.is_some() {
                node.restart();
                continue;
            }
            check_agent_knows_maps(&node)?;
            check_all_is_served(&node, &world, &plan)?;
            check_a_restart_changes_nothing(&before, &node, &world, &plan)?;
            let again = node.plan(&world.desired);
            prop_assert!(plan.retry_at_ms.is_some() || again.ops.is_empty(), "{:?}", again.ops);
        }
        check_it_comes_to_rest(&mut node, &world)?;
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    let small = (2u32..6, 2u32..5, 0u32..1400, 0u32..80, 2u32..30);
    let small = small.prop_map(|(frontends, services, slots, members, backends)| Limits {
        frontends,
        services,
        slots,
        members,
        backends,
    });
    prop_oneof![Just(Limits::default()), small]
}

fn round() -> impl Strategy<Value = Round> {
    let events = prop::collection::vec(event(), 1..6);
    let crash = prop_oneof![3 => Just(None), 1 => (0usize..1000).prop_map(Some)];
    let round = (events, prop::sample::select(vec![0u64, 3_000, 11_000]), crash);
    round.prop_map(|(events, pause_ms, crash)| Round { events, pause_ms, crash })
}

fn event() -> impl Strategy<Value = Event> {
    let service = 0..SERVICES.len();
    let state = prop_oneof![
        4 => prop_oneof![4 => Just(1u16), 1 => 1u16..9].prop_map(State::Ready),
        2 => Just(State::Draining),
        2 => Just(State::Gone),
    ];
    let few = 0..5u16;
    prop_oneof![
        12 => (service.clone(), few.clone(), state.clone()).prop_map(|(service, pod, state)| Event::Pod { service, pod, state }),
        2 => (service.clone(), 0..PODS, state).prop_map(|(service, below, state)| Event::Pods { service, below, state }),
        2 => few.clone().prop_map(|pod| Event::Replaced { pod }),
        1 => few.prop_map(|pod| Event::Mode { pod }),
        3 => (service.clone(), 0u8..6).prop_map(|(service, vip)| Event::Vip { service, vip }),
        1 => service.prop_map(|service| Event::Deleted { service }),
    ]
}

#[derive(Default)]
struct World {
    desired: Desired,
    replaced: BTreeMap<u16, u32>,
    is_stack: BTreeSet<u16>,
}

impl World {
    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Pod { service, pod, state } => self.set(service, pod, state),
            Event::Pods { service, below, state } => (0..below).for_each(|pod| self.set(service, pod, state)),
            Event::Replaced { pod } => *self.replaced.entry(pod).or_default() += 1,
            Event::Mode { pod } if !self.is_stack.remove(&pod) => drop(self.is_stack.insert(pod)),
            Event::Mode { .. } => {}
            Event::Vip { service, vip: last } => {
                self.desired.services.values_mut().for_each(|other| other.vips.retain(|&address| address != vip(last)));
                self.service(service).vips.insert(vip(last));
            }
            Event::Deleted { service } => drop(self.desired.services.remove(&name(SERVICES[service]))),
        }
        self.desired.services.retain(|_, service| !service.vips.is_empty());
        self.follow_pods();
    }

    fn service(&mut self, at: usize) -> &mut DesiredService {
        let fresh = || service(100 + at as u8, []);
        self.desired.services.entry(name(SERVICES[at])).or_insert_with(fresh)
    }

    fn set(&mut self, service: usize, number: u16, state: State) {
        let (takes_new, weight) = match state {
            State::Ready(weight) => (true, weight),
            State::Draining => (false, 1),
            State::Gone => return drop(self.service(service).backends.remove(&pod(number))),
        };
        let backend = DesiredBackend { takes_new, weight, delivery: Delivery::Stack(None) };
        self.service(service).backends.insert(pod(number), backend);
    }

    fn follow_pods(&mut self) {
        for number in 0..PODS {
            let link = link(self.ifindex(number));
            let delivery =
                if self.is_stack.contains(&number) { Delivery::Stack(Some(link)) } else { Delivery::Direct(link) };
            for service in self.desired.services.values_mut() {
                service.backends.entry(pod(number)).and_modify(|backend| backend.delivery = delivery.clone());
            }
        }
    }

    fn ifindex(&self, number: u16) -> u32 {
        100 + u32::from(number) + 1000 * self.replaced.get(&number).copied().unwrap_or(0)
    }

    fn wants(&self, service: &str, key: &EndpointKeyV4) -> bool {
        let mut services = self.desired.services.iter().filter(|(name, _)| name.to_string() == service);
        services.any(|(_, service)| service.vips.contains(&key.address.into()))
    }

    /// The pods of a service: those alive, and of these those that take new connections.
    fn pods(&self, service: &str) -> (BTreeSet<Owner>, BTreeSet<Owner>) {
        let service = self.desired.services.iter().find(|(name, _)| name.to_string() == service);
        let (mut alive, mut takers) = (BTreeSet::new(), BTreeSet::new());
        for (address, backend) in service.iter().flat_map(|(_, service)| &service.backends) {
            let number = u16::from(address.ip().octets()[3]);
            let owner = (address.ip().octets(), self.ifindex(number));
            alive.insert(owner);
            takers.extend(backend.takes_new.then_some(owner));
        }
        (alive, takers)
    }
}

/// Each frontend's service and the owners of its slots.
fn served(node: &Node) -> BTreeMap<EndpointKeyV4, (String, Owners)> {
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

/// Whoever owned a slot and lives is still named there, unless seven others came after.
fn check_owners_are_kept(before: &Node, after: &Node, world: &World) -> Result<(), TestCaseError> {
    let after = served(after);
    for (key, (service, old)) in served(before) {
        let (alive, _) = world.pods(&service);
        let is_held = old.iter().flatten().flatten().any(|owner| alive.contains(owner));
        let has_no_room = before.limits != Limits::default() && is_torn(before, &service);
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
            prop_assert!(lost.is_none() || new.len() == OWNERS, "{service} lost {lost:?}: {old:?} became {new:?}");
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
    Ok(())
}

fn check_agent_knows_maps(node: &Node) -> Result<(), TestCaseError> {
    let read = node.maps.read_back();
    let known = |observed: &Observed| Observed {
        members: BTreeMap::new(),
        resting: Default::default(),
        unclaimed_slots: BTreeMap::new(),
        ..observed.clone()
    };
    prop_assert_eq!(known(&node.observed), known(&read));
    let differs = read.members.iter().find(|(index, member)| node.observed.members.get(index) != Some(member));
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
