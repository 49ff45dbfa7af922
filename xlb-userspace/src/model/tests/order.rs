//! The order and the number of events do not matter, only the objects that they leave.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::model::fixtures::*;
use crate::model::objects::*;
use crate::model::{DeliveryChoice, Event, Model, Policy, desired};

#[test]
fn the_same_object_again_changes_nothing() {
    let mut model = model([service().into()]);
    assert!(!model.apply(Event::Applied(service().into())));
    assert!(!model.apply(Event::Deleted(Object::from(slice("web-1", &[])).key())));
    assert!(model.apply(Event::Synced));
    assert!(!model.apply(Event::Synced));
}

#[test]
fn a_relist_prunes_what_vanished_and_touches_nothing_else() {
    let mut model = model([service().into(), slice("gone", &[]).into(), policy("default", true).into()]);
    model.apply(Event::Synced);
    let listed = [service().into(), policy("default", false).into()];

    let events = model.changes_to(&listed);

    let gone = Object::from(slice("gone", &[])).key();
    assert_eq!(events, [Event::Applied(policy("default", false).into()), Event::Deleted(gone)]);
}

#[test]
fn the_first_list_syncs_even_if_it_is_empty() {
    assert_eq!(Model::default().changes_to(&[]), [Event::Synced]);
}

proptest! {
    #[test]
    fn any_order_of_events_gives_the_same_answer((objects, shuffled) in objects_twice()) {
        let policy = Policy { external_ip_cidrs: vec!["192.0.2.8/29".parse().unwrap()], ..Policy::default() };
        let in_order = desired(&policy, &model(objects), &node(), DeliveryChoice::Auto);
        let out_of_order = desired(&policy, &model(shuffled), &node(), DeliveryChoice::Auto);
        prop_assert_eq!(in_order, out_of_order);
    }

    #[test]
    fn the_changes_to_a_list_lead_to_it(before in objects(), after in objects()) {
        let mut model = model(before);
        for event in model.changes_to(&after) {
            prop_assert!(model.apply(event));
        }
        prop_assert_eq!(model.changes_to(&after), []);

        let mut fresh = super::super::fixtures::model(after);
        fresh.apply(Event::Synced);
        prop_assert_eq!(model, fresh);
    }
}

fn objects_twice() -> impl Strategy<Value = (Vec<Object>, Vec<Object>)> {
    objects().prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle()))
}

/// Objects with different keys that get in each other's way: few names, few addresses, few ages.
fn objects() -> impl Strategy<Value = Vec<Object>> {
    let any_object = prop_oneof![any_service(), any_slice(), any_policy()];
    prop::collection::vec(any_object, 0..12).prop_map(|objects| {
        let by_key: BTreeMap<ObjectKey, Object> = objects.into_iter().map(|object| (object.key(), object)).collect();
        by_key.into_values().collect()
    })
}

fn any_service() -> impl Strategy<Value = Object> {
    let vips = (10..13, prop::option::of(10..15));
    (0..3, prop::option::of(0..2i64), vips, prop::bool::ANY).prop_map(
        |(number, created_s, (vip, external), is_local)| {
            let address = |last: i32| format!("192.0.2.{last}").parse().unwrap();
            Object::from(Service {
                name: name(&format!("service-{number}")),
                created_s,
                vips: vec![address(vip)],
                external_ips: external.into_iter().map(address).collect(),
                external_traffic_policy: if is_local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
                ..service()
            })
        },
    )
}

fn any_slice() -> impl Strategy<Value = Object> {
    let condition = prop::sample::select(vec!["", " unready", " terminating", " stopped", " remote"]);
    let endpoints = prop::collection::vec((1..5, condition), 0..4);
    (0..4, 0..3, endpoints).prop_map(|(number, service_number, pods)| {
        let endpoints: Vec<Endpoint> =
            pods.into_iter().map(|(pod, condition)| endpoint(&format!("10.1.0.{pod}{condition}"))).collect();
        let service = Some(name(&format!("service-{service_number}")));
        Object::Slice(Slice { service, ..slice(&format!("slice-{number}"), &endpoints) })
    })
}

fn any_policy() -> impl Strategy<Value = Object> {
    prop::bool::ANY.prop_map(|restricts_ingress| Object::Policy(policy("default", restricts_ingress)))
}
