//! Facts about what all kinds together tell, on objects as a server would send them.

use serde::de::DeserializeOwned;

use super::talk::{Obstacle, Verb};
use super::*;
use crate::model::{Model, ObjectName};

#[test]
fn nothing_counts_as_synced_before_every_kind_was_told_once() {
    let mut intake = Intake::new("node-a");
    for resource in [Resource::Services, Resource::EndpointSlices, Resource::Services, Resource::Nodes] {
        assert_eq!(intake.take(resource, News::Listed), None);
    }
    let waiting: Vec<String> = intake.waiting().into_iter().map(|refusal| refusal.object).collect();
    assert_eq!(waiting, ["networkpolicies"]);
    assert_eq!(intake.take(Resource::NetworkPolicies, News::Listed), Some(Event::Synced));
    assert_eq!(intake.take(Resource::Services, News::Listed), None, "a relist is no news of this kind");
    assert!(intake.waiting().is_empty());
}

#[test]
fn a_kind_that_is_denied_is_waited_for_and_a_refusal_until_it_is_allowed() {
    let mut intake = Intake::new("node-a");
    let obstacle = Obstacle::Denied(Verb::Watch);
    intake.take(Resource::Services, News::Trouble(obstacle, "RBAC lacks it".into()));
    assert_eq!(refusals(&intake), ["services: RBAC lacks it"]);
    assert_eq!(intake.waiting().len(), 4);
    intake.take(Resource::Services, News::Over(obstacle));
    assert!(refusals(&intake).is_empty());
}

#[test]
fn the_unreadable_part_of_an_object_is_a_refusal_and_the_rest_is_served() {
    let mut intake = Intake::new("node-a");
    let mut model = Model::default();
    let spoilt = "{metadata: {name: web, namespace: shop}, spec: {clusterIP: 172.30.0.1, ports: [{port: 80}]},
                   status: {loadBalancer: {ingress: [{ip: 192.000.002.010}, {ip: '::ffff:192.0.2.11'}, {ip: x}]}}}";
    if let Some(event) = put::<Service>(&mut intake, spoilt) {
        model.apply(event);
    }
    let vips: Vec<String> = model.services().flat_map(|service| &service.vips).map(ToString::to_string).collect();
    assert_eq!(vips, ["192.0.2.10", "192.0.2.11"]);
    let expected = "Service shop/web: status.loadBalancer.ingress[2].ip: found \"x\", expected an IP address; this part \
                    is left out";
    assert_eq!(refusals(&intake), [expected]);

    put::<Service>(&mut intake, "{metadata: {name: web, namespace: shop}}");
    assert!(refusals(&intake).is_empty(), "corrected");
    put::<Service>(&mut intake, spoilt);
    intake.take(Resource::Services, News::Gone(name("shop", "web")));
    assert!(refusals(&intake).is_empty(), "gone");
}

#[test]
fn objects_of_other_proxies_are_not_kept() {
    for (labels, is_ours) in [
        ("{}", true),
        ("{service.kubernetes.io/service-proxy-name: xlb}", true),
        ("{service.kubernetes.io/service-proxy-name: ''}", false),
        ("{service.kubernetes.io/service-proxy-name: other}", false),
        ("{service.kubernetes.io/headless: ''}", false),
    ] {
        let metadata = format!("metadata: {{name: web, namespace: shop, labels: {labels}}}");
        let service = yaml::<Service>(&format!("{{{metadata}}}")).item();
        let slice = yaml::<EndpointSlice>(&format!("{{{metadata}, addressType: IPv4, endpoints: []}}")).item();
        assert_eq!((service.content.is_some(), slice.content.is_some()), (is_ours, is_ours), "{labels}");
    }
}

#[test]
fn this_nodes_object_tells_its_zone_and_its_absence_is_told() {
    let mut intake = Intake::new("node-a");
    assert!(refusals(&intake).is_empty(), "not known yet");
    intake.take(Resource::Nodes, News::Listed);
    assert_eq!(refusals(&intake).len(), 1);
    assert!(refusals(&intake)[0].starts_with("node node-a: no Node object has this name"));

    let node = "{metadata: {name: node-a, labels: {topology.kubernetes.io/zone: z1}},
                 status: {addresses: [{type: InternalIP, address: 192.168.0.2}, {type: Hostname, address: node-a}]}}";
    assert_eq!(put::<Node>(&mut intake, node), None);
    let addresses = vec!["192.168.0.2".parse().unwrap()];
    let expected = NodeFacts { zone: Some("z1".into()), addresses, ..NodeFacts::default() };
    assert_eq!(intake.node(), Some(&expected));
    assert!(refusals(&intake).is_empty());

    let leaving = "{metadata: {name: node-a, deletionTimestamp: 2026-01-02T03:04:05Z},
                    spec: {taints: [{key: a, effect: NoSchedule}, {key: b, effect: NoExecute}]}}";
    put::<Node>(&mut intake, leaving);
    let expected = NodeState { exists: true, is_deleting: true, taints: vec!["a".into(), "b".into()] };
    assert_eq!(intake.node_state(), expected);

    intake.take(Resource::Nodes, News::Gone(name("", "node-a")));
    assert_eq!(intake.node_state(), NodeState::absent());
    assert_eq!((intake.node(), refusals(&intake).len()), (None, 1));
}

#[test]
fn the_uid_of_a_service_is_known_as_long_as_it_is_there() {
    let mut intake = Intake::new("node-a");
    put::<Service>(&mut intake, "{metadata: {name: web, namespace: shop, uid: u-1}, spec: {clusterIP: 172.30.0.1}}");
    assert_eq!(intake.service_uid(&name("shop", "web")), Some("u-1"));
    intake.take(Resource::Services, News::Gone(name("shop", "web")));
    assert_eq!(intake.service_uid(&name("shop", "web")), None);
}

#[test]
fn what_led_to_a_change_of_a_slice_is_told_once_and_not_of_the_first_list() {
    let mut intake = Intake::new("node-a");
    let slice = |time: &str| {
        format!(
            "{{addressType: IPv4, endpoints: [], metadata: {{name: web-1, namespace: shop, annotations: {{
              endpoints.kubernetes.io/last-change-trigger-time: '{time}'}}}}}}"
        )
    };
    put::<EndpointSlice>(&mut intake, &slice("2026-01-02T03:04:05Z"));
    for resource in Resource::ALL {
        intake.take(resource, News::Listed);
    }
    put::<EndpointSlice>(&mut intake, &slice("2026-01-02T03:04:05Z"));
    assert!(intake.take_triggers().is_empty());
    put::<EndpointSlice>(&mut intake, &slice("2026-01-02T03:04:06Z"));
    assert_eq!(intake.take_triggers(), [1_767_323_046_000]);
}

fn put<K: Watched>(intake: &mut Intake, text: &str) -> Option<Event> {
    intake.take(K::RESOURCE, News::Put(Box::new(yaml::<K>(text).item())))
}

fn refusals(intake: &Intake) -> Vec<String> {
    intake.refusals().iter().map(|refusal| format!("{}: {}", refusal.object, refusal.why)).collect()
}

fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName { namespace: namespace.into(), name: name.into() }
}

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml_ng::from_str(text).unwrap()
}
