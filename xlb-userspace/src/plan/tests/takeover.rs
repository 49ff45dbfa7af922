//! An address that goes from one service to another: who has its connections is remembered.

use std::collections::BTreeSet;

use xlb_common::abi::frontend_flags;

use super::facts::{frontend, serving, with_draining, words};
use super::maps::Node;
use super::world::{desired, name, service, vip};
use crate::plan::Limits;
use crate::plan::desired::{Desired, DesiredBackend, DesiredService, Protocol, ServiceName};

#[test]
fn who_serves_an_address_for_another_service_is_the_former_owner_of_every_slot() {
    for takers in [vec![], vec![3], vec![3, 4]] {
        let mut node = serving(&desired([("old", service(1, [1, 2]))]));
        node.reach(&desired([("new", with_draining(service(1, takers.clone()), &[1, 2]))]));
        let words = words(&node, 1);
        assert!(words.iter().all(|word| word.previous().count() == 2), "{takers:?}");
        let names: Vec<_> = node.observed.services.values().map(|service| service.name.as_str()).collect();
        assert_eq!(names, ["default/new"]);
    }
}

#[test]
fn an_address_that_comes_back_names_those_it_was_away_with() {
    let mut node = serving(&desired([("a", service(1, [1])), ("b", service(2, [2]))]));
    let with = |service: DesiredService, last| DesiredService { vips: [vip(1), vip(last)].into(), ..service };
    let taken = [("a", service(3, [1])), ("b", with(with_draining(service(2, [2]), &[1]), 2))];
    node.reach(&desired(taken));
    assert_eq!(owners(&node, 1), [vec![2, 1]].into());
    assert_eq!(owners(&node, 3), [vec![1]].into(), "what is left to it");

    let back = [("a", with(with_draining(service(3, [1]), &[2]), 3)), ("b", service(2, [2]))];
    node.reach(&desired(back));
    assert_eq!(owners(&node, 1), [vec![1, 2]].into());

    node.reach(&desired([("a", with(service(3, [1]), 3)), ("b", service(2, [2]))]));
    assert_eq!((frontend(&node, 1).slots, frontend(&node, 2).slots), (0, 0), "the histories end with their pods");
}

#[test]
fn of_more_than_seven_former_owners_those_with_most_slots_are_named_and_the_others_known() {
    let weights = |service: DesiredService| {
        let weighted = service.backends.into_iter().zip(1..);
        let backends = weighted.map(|((socket, backend), weight)| (socket, DesiredBackend { weight, ..backend }));
        DesiredService { backends: backends.collect(), ..service }
    };
    let mut node = serving(&desired([("old", weights(service(1, 1..=9)))]));
    node.reach(&desired([("new", with_draining(service(1, [20]), &[1, 2, 3, 4, 5, 6, 7, 8, 9]))]));
    assert_eq!(owners(&node, 1), [vec![20, 9, 8, 7, 6, 5, 4, 1, 2, 3]].into());
}

/// The members move to a larger part then, and the slots may follow only after the service's own addresses have.
#[test]
fn an_address_is_taken_after_the_slots_name_its_former_owners() {
    let mut node = serving(&desired([("a", service(1, 1..=16)), ("b", service(2, [17, 18]))]));
    let both = DesiredService { vips: [vip(1), vip(2)].into(), ..with_draining(service(1, 1..=16), &[17, 18]) };
    for op in node.plan(&desired([("a", both)])).ops {
        node.apply(&[op]).unwrap();
        assert!(owners(&node, 2).iter().all(|owners| owners.iter().any(|pod| [17, 18].contains(pod))));
    }
    assert!(owners(&node, 2).iter().all(|owners| owners.ends_with(&[18, 17]) || owners.ends_with(&[17, 18])));
}

#[test]
fn an_address_is_taken_without_its_former_owners_where_there_is_no_room_for_slots() {
    let mut node = Node { limits: Limits { slots: 0, ..Limits::default() }, ..Node::default() };
    node.reach(&desired([("old", service(1, [1]))]));
    let wanted = desired([("new", with_draining(service(1, [2]), &[1]))]);
    node.reach(&wanted);
    assert_eq!((owners(&node, 1), node.plan(&wanted).waiting.len()), ([vec![2]].into(), 0));
}

#[test]
fn a_frontend_says_that_the_host_may_have_its_tcp_connections() {
    for (protocol, expected) in [(Protocol::Tcp, frontend_flags::HOST_BEFORE), (Protocol::Udp, 0)] {
        let web = DesiredService { host_before: [vip(1)].into(), ..service(1, [1]) };
        let wanted =
            Desired { services: [(ServiceName { protocol, ..name("web") }, web)].into(), ..Desired::default() };
        assert_eq!(frontend(&serving(&wanted), 1).flags & frontend_flags::HOST_BEFORE, expected);
    }
}

/// The pods that a slot of the address names, present first; each kind of slot once.
fn owners(node: &Node, last: u8) -> BTreeSet<Vec<u32>> {
    let owners = node.maps.owners(&frontend(node, last));
    owners.into_iter().map(|slot| slot.into_iter().flatten().map(|(_, ifindex)| ifindex - 100).collect()).collect()
}
