//! Single facts about plans.

use xlb_common::abi::{Backend, Frontend, backend_flags, vip_flags};
use xlb_common::slot::SlotWord;

use super::maps::Node;
use super::world::{desired, draining, link, name, pod, ready, service, vip};
use crate::node::PodLink;
use crate::plan::desired::{Delivery, Desired, DesiredBackend, DesiredService, WhenEmpty};
use crate::plan::observed::QUARANTINE_MS;
use crate::plan::{Limits, Op, Plan};

#[test]
fn a_service_with_one_backend_needs_no_slots() {
    let node = serving(&desired([("web", service(1, [1]))]));
    let frontend = frontend(&node, 1);
    assert_eq!((frontend.slots, frontend.sole.backend, frontend.sole.generation), (0, 0, 1));
    assert!(node.observed.slots.is_empty() && node.observed.members.is_empty());
}

#[test]
fn a_service_without_backends_has_one_empty_slot() {
    let node = serving(&desired([("web", service(1, []))]));
    assert_eq!((frontend(&node, 1).slots, words(&node, 1)), (1, vec![SlotWord::EMPTY]));
}

#[test]
fn a_plan_that_is_done_leaves_nothing_to_do() {
    let wanted = desired([("web", service(1, [1, 2])), ("dns", service(2, [2])), ("idle", service(3, []))]);
    assert_eq!(serving(&wanted).plan(&wanted), Plan::default());
}

#[test]
fn a_sole_backend_becomes_the_previous_owner_of_the_slots_it_loses() {
    let mut node = serving(&desired([("web", service(1, [1]))]));

    node.reach(&desired([("web", service(1, [1, 2]))]));

    let words = words(&node, 1);
    let kept = words.iter().filter(|word| **word == SlotWord::owned_by(0)).count();
    let lost = words.iter().filter(|word| **word == SlotWord::owned_by(0).handed_to(Some(1))).count();
    assert_eq!((kept, lost), (126, 125));
}

#[test]
fn a_sole_backend_that_drains_stays_the_previous_owner_of_every_slot() {
    let mut node = serving(&desired([("web", service(1, [1]))]));
    node.reach(&desired([("web", with_draining(service(1, []), &[1]))]));
    assert!(words(&node, 1).iter().all(|word| word.current().is_none() && word.previous().eq([0])));
}

#[test]
fn removing_a_backend_moves_only_its_slots() {
    let mut node = serving(&desired([("web", service(1, [1, 2, 3]))]));
    let owned = words(&node, 1).iter().filter(|word| word.current() == Some(2)).count();

    let plan = node.reach(&desired([("web", service(1, [1, 2]))]));

    assert_eq!(plan.ops.iter().filter(|op| matches!(op, Op::PutSlot { .. })).count(), owned);
    assert!(words(&node, 1).iter().all(|word| !word.mentions(2)));
}

#[test]
fn a_service_goes_back_to_a_sole_backend_when_the_others_are_gone() {
    let mut node = serving(&desired([("web", service(1, [1, 2]))]));
    node.reach(&desired([("web", with_draining(service(1, [1]), &[2]))]));
    assert_eq!(frontend(&node, 1).slots, 251);

    node.reach(&desired([("web", service(1, [1]))]));

    assert_eq!((frontend(&node, 1).slots, node.observed.services[&0].slots), (0, 0));
}

#[test]
fn another_pod_with_the_same_address_gets_another_id() {
    let mut node = serving(&desired([("web", service(1, [1, 2]))]));
    let mut web = service(1, [1, 2]);
    web.backends.insert(pod(1), another_pod(1));

    node.reach(&desired([("web", web)]));

    assert_eq!(node.observed.backends[&2].ifindex, 900);
    assert!(!node.observed.backends[&0].is_in_use());
    let owners = node.maps.owners(&frontend(&node, 1));
    assert!(owners.iter().flatten().flatten().all(|(_, ifindex)| *ifindex != 101));
}

#[test]
fn services_share_a_backend_until_the_last_lets_go() {
    let mut node = serving(&desired([("web", service(1, [1])), ("api", service(2, [1]))]));
    assert_eq!(node.observed.backends.len(), 1);
    node.reach(&desired([("api", service(2, [1]))]));
    assert!(node.observed.backends[&0].is_in_use());
    node.reach(&Desired::default());
    assert!(!node.observed.backends[&0].is_in_use() && node.observed.backend_ids.is_empty());
}

#[test]
fn a_backend_in_use_keeps_its_delivery_mode() {
    let mut node = serving(&desired([("web", service(1, [1]))]));
    let mut web = service(1, [1]);
    web.backends.get_mut(&pod(1)).unwrap().delivery = Delivery::Stack(Some(link(101)));

    let plan = node.reach(&desired([("web", web)]));

    assert_eq!((plan.ops.len(), plan.retry_at_ms), (0, None));
    let why = "stays in delivery mode direct until its connections end: restart the pod to switch";
    assert_eq!((plan.waiting[0].object.as_str(), plan.waiting[0].why.as_str()), ("endpoint 10.1.0.1:8080/tcp", why));
}

#[test]
fn flags_follow_what_is_known_of_the_pod() {
    use backend_flags::{DIRECT, HIDDEN, IN_USE, TAKES_XDP};
    let hidden = PodLink { netns_id: None, ..link(7) };
    let unknown_mac = PodLink { pod_mac: None, ..link(7) };
    let rows = [
        (Delivery::Direct(link(7)), IN_USE | DIRECT | TAKES_XDP, 7),
        (Delivery::Direct(unknown_mac), IN_USE | DIRECT, 7),
        (Delivery::Direct(hidden), IN_USE | DIRECT | HIDDEN | TAKES_XDP, -1),
        (Delivery::Direct(PodLink { hides_sockets: true, ..link(7) }), IN_USE | DIRECT | HIDDEN | TAKES_XDP, 7),
        (Delivery::Stack(Some(link(7))), IN_USE, 7),
        (Delivery::Stack(None), IN_USE, -1),
    ];
    for (delivery, flags, netns_id) in rows {
        let mut web = service(1, [1]);
        web.backends.get_mut(&pod(1)).unwrap().delivery = delivery;
        let backend = serving(&desired([("web", web)])).observed.backends[&0];
        assert_eq!((backend.flags, backend.netns_id, backend.family), (flags, netns_id, 4));
    }
}

/// Another pod would get another number, and its connections with it.
#[test]
fn a_pod_that_is_found_to_hide_sockets_is_the_same_pod() {
    let mut node = serving(&desired([("web", service(1, [1]))]));
    let mut web = service(1, [1]);
    web.backends.get_mut(&pod(1)).unwrap().delivery = Delivery::Direct(PodLink { hides_sockets: true, ..link(101) });
    let before = node.observed.backends[&0];
    node.reach(&desired([("web", web)]));
    let after = node.observed.backends[&0];
    assert!(!before.is_hidden() && after.is_hidden() && after.generation == before.generation);
}

#[test]
fn a_mac_that_the_neighbour_table_forgot_is_still_known() {
    let mut node = serving(&desired([("web", service(1, [1]))]));
    let mut web = service(1, [1]);
    let forgotten = PodLink { pod_mac: None, ..link(101) };
    web.backends.get_mut(&pod(1)).unwrap().delivery = Delivery::Direct(forgotten);
    assert!(node.reach(&desired([("web", web)])).ops.is_empty());
}

#[test]
fn the_stack_is_announced_before_its_first_backend() {
    let mut web = service(1, [1]);
    web.backends.get_mut(&pod(1)).unwrap().delivery = Delivery::Stack(None);
    let plan = Node::default().plan(&desired([("web", web)]));
    assert_eq!(plan.ops.first(), Some(&Op::PutConfig { stack_in_use: true, generation: 0 }));
    assert_eq!(plan.ops.last(), Some(&Op::PutConfig { stack_in_use: true, generation: 1 }));
}

#[test]
fn a_freed_id_rests_and_comes_back_with_the_next_generation() {
    let mut node = Node { limits: Limits { backends: 1, ..Limits::default() }, ..Node::default() };
    node.reach(&desired([("web", service(1, [1]))]));
    node.reach(&Desired::default());

    let plan = node.reach(&desired([("web", service(1, [2]))]));
    assert_eq!((plan.ops.len(), plan.retry_at_ms), (0, Some(QUARANTINE_MS)));
    node.now_ms = QUARANTINE_MS;
    node.reach(&desired([("web", service(1, [2]))]));

    let Backend { generation, flags, .. } = node.observed.backends[&0];
    assert_eq!((generation, flags & backend_flags::IN_USE), (2, 1));
}

#[test]
fn what_does_not_fit_is_refused_and_what_is_served_stays() {
    let slots = 251;
    let mut node = Node { limits: Limits { slots, ..Limits::default() }, ..Node::default() };
    node.reach(&desired([("web", service(1, [1, 2]))]));

    let plan =
        node.reach(&desired([("a", service(2, [3, 4])), ("web", service(1, [1, 2, 3])), ("z", service(3, [5]))]));
    assert_eq!((plan.refusals.len(), plan.waiting.len()), (0, 1));
    let plan =
        node.reach(&desired([("a", service(2, [3, 4])), ("web", service(1, [1, 2, 3])), ("z", service(3, [5]))]));

    let [refusal] = plan.refusals.as_slice() else { panic!("{plan:?}") };
    let why = "is not served, because no free part of the slot table (251 slots) is large enough: serve fewer Services on this node, or raise --max-slots (after `xlb cleanup`)";
    assert_eq!((refusal.object.as_str(), refusal.why.as_str()), ("Service default/a", why));
    let served: Vec<_> = node.observed.services.values().map(|service| service.name.as_str()).collect();
    assert_eq!(served, ["default/web", "default/z"]);
}

#[test]
fn a_sole_backend_keeps_serving_when_there_is_no_room_for_slots() {
    let mut node = Node { limits: Limits { slots: 0, ..Limits::default() }, ..Node::default() };
    node.reach(&desired([("web", service(1, [2]))]));
    node.reach(&desired([("web", service(1, [1, 2]))]));
    let plan = node.reach(&desired([("web", service(1, [1, 2]))]));
    assert_eq!((plan.ops.len(), plan.refusals.len()), (0, 1));
    assert_eq!(node.maps.owners(&frontend(&node, 1)), [[Some((pod(2).ip(), 102))]]);
}

#[test]
fn a_service_that_outgrows_its_members_leads_its_frontends_to_more() {
    let mut node = serving(&desired([("web", service(1, 1..=16))]));
    let before = frontend(&node, 1);
    node.reach(&desired([("web", service(1, 1..=17))]));
    let after = frontend(&node, 1);
    assert_eq!((before.members_base, after.members_base, before.slots_base), (0, 16, after.slots_base));
    assert!(words(&node, 1).iter().any(|word| word.current() == Some(16)));
}

#[test]
fn the_255th_backend_of_a_service_is_refused() {
    let mut node = serving(&desired([("web", service(1, 1..=255))]));
    let plan = node.plan(&desired([("web", service(1, 1..=255))]));
    assert_eq!((plan.ops.len(), plan.waiting.len(), plan.refusals.len()), (0, 0, 1));

    node.reach(&desired([("web", service(1, 2..=255))]));
    node.reach(&desired([("web", service(1, 2..=255))]));

    assert_eq!(node.plan(&desired([("web", service(1, 2..=255))])), Plan::default());
}

#[test]
fn a_name_longer_than_its_record_is_refused() {
    let mut wanted = desired([("web", service(1, [1]))]);
    let web = wanted.services.remove(&name("web")).unwrap();
    wanted.services.insert(name(&"w".repeat(200)), web);
    let plan = Node::default().plan(&wanted);
    assert_eq!((plan.ops.len(), plan.refusals.len()), (0, 1));
}

#[test]
fn a_change_of_policy_changes_only_frontends_and_vips() {
    let mut node = serving(&desired([("web", service(1, [1, 2]))]));
    let mut web = service(1, [1, 2]);
    web.when_empty = WhenEmpty::Pass;
    web.vips.insert(vip(9));
    let plan = node.reach(&desired([("web", web)]));
    assert!(matches!(
        plan.ops.as_slice(),
        [Op::PutFrontend { .. }, Op::PutFrontend { .. }, Op::PutVip { .. }, Op::PutConfig { .. }]
    ));
}

/// Found by the histories: the agent dies after the frontend named its backend and before the region was released.
#[test]
fn a_backend_that_a_frontend_names_keeps_its_flows_after_a_crash() {
    let mut node = serving(&desired([("web", service(1, []))]));
    let ops = node.plan(&desired([("web", service(1, [1]))])).ops;
    let at = ops.iter().position(|op| matches!(op, Op::PutFrontend { .. })).unwrap();
    node.apply(&ops[..=at]).unwrap();
    node.restart();

    node.reach(&desired([("web", service(1, [1, 2]))]));

    assert!(words(&node, 1).iter().all(|word| word.mentions(0)));
}

/// Found by the histories: the moved members lacked those that the old words still named.
#[test]
fn members_move_together_with_those_that_leave() {
    let mut node = serving(&desired([("web", service(1, 1..=16))]));
    let mut web = service(1, 2..=17);
    web.backends.insert(pod(1), another_pod(1));
    node.reach(&desired([("web", web)]));
    assert_eq!(node.observed.services[&0].members, 32);
}

pub fn serving(desired: &Desired) -> Node {
    let mut node = Node::default();
    node.reach(desired);
    node
}

/// A ready pod with the address of that one, behind a veth of its own.
fn another_pod(number: u16) -> DesiredBackend {
    DesiredBackend { delivery: Delivery::Direct(link(900)), ..ready(number) }
}

pub fn with_draining(mut service: DesiredService, pods: &[u16]) -> DesiredService {
    service.backends.extend(pods.iter().map(|&number| (pod(number), draining(number))));
    service
}

pub fn frontend(node: &Node, last: u8) -> Frontend {
    let found = node.observed.frontends.iter().find(|(key, _)| key.socket.ip() == vip(last));
    *found.unwrap().1
}

pub fn words(node: &Node, last: u8) -> Vec<SlotWord> {
    node.observed.slots[&frontend(node, last).slots_base].to_vec()
}

/// MetalLB lets Services share an address: the first without a pod must not take the answer of the second away.
#[test]
fn a_vip_that_services_share_is_usable_as_long_as_one_of_them_is() {
    let mut node = Node::default();
    let shared = |pods: &[u16], port| DesiredService { port, ..service(1, pods.iter().copied()) };
    let flags = |node: &Node| node.observed.vips[&vip(1)];
    node.reach(&desired([("web", shared(&[1], 80)), ("api", shared(&[], 81))]));
    assert_eq!(flags(&node), vip_flags::USABLE);
    node.reach(&desired([("web", shared(&[], 80)), ("api", shared(&[], 81))]));
    assert_eq!(flags(&node), 0);
    node.reach(&desired([("web", shared(&[], 80)), ("api", shared(&[2, 3], 81))]));
    assert_eq!(flags(&node), vip_flags::USABLE);
    node.reach(&desired([("web", shared(&[], 80))]));
    assert_eq!(flags(&node), 0);
    node.reach(&Desired::default());
    assert!(node.observed.vips.is_empty());
}
