//! Facts about health ports; those that begin with `SHC` are the cases of that id in the conformance scenarios.

use super::*;
use crate::health::answer::of_service;
use crate::model::fixtures::{endpoint, endpoints, model, name, service, slice};
use crate::model::objects::{Object, ProxyLabels, Slice};

const PORT: u16 = 30000;

/// `default/web` with policy Local and a health port.
fn web() -> Service {
    Service { external_traffic_policy: TrafficPolicy::Local, health_check_node_port: Some(PORT), ..service() }
}

fn with_cluster_ips(cluster_ips: &[&str]) -> Service {
    Service { cluster_ips: cluster_ips.iter().map(|ip| ip.parse().unwrap()).collect(), ..web() }
}

fn dual() -> Service {
    with_cluster_ips(&["172.30.0.41", "fd00:172:30::41"])
}

fn ports_of(objects: impl IntoIterator<Item = Object>) -> BTreeMap<u16, HealthPort> {
    wanted(&model(objects), &Policy::default(), "node-a").0
}

/// What a probe of that family is told, as status and count, and whether the agent is healthy.
fn told(service: Service, slices: &[Slice], probe: Family, is_agent_healthy: bool) -> Option<(u16, usize)> {
    let objects = slices.iter().cloned().map(Object::from).chain([service.into()]);
    let ports = ports_of(objects);
    let port = ports.get(&PORT)?;
    Some((of_service(port, probe, is_agent_healthy).status, port.count(probe)))
}

#[test]
fn ready_endpoints_on_this_node_count_and_nothing_else() {
    for (id, text, expected) in [
        ("SHC-001", "10.0.1.1, 10.0.1.2", (200, 2)),
        ("SHC-003", "10.0.1.1 remote", (503, 0)),
        ("SHC-005", "10.0.1.1 unready, 10.0.1.2 terminating, 10.0.1.3 terminating, 10.0.1.4 stopped", (503, 0)),
        ("SHC-006", "10.0.1.1, 10.0.1.2 terminating", (200, 1)),
    ] {
        let told = told(web(), &[slice("s1", &endpoints(text))], Family::V4, true);
        assert_eq!(told, Some(expected), "{id}");
    }
}

#[test]
fn shc_007_to_009_one_address_counts_once_over_all_ports_and_slices() {
    let two_ports = |addresses: [&str; 2]| {
        let [mut a, mut b] =
            [("s1", addresses[0]), ("s2", addresses[1])].map(|(name, text)| slice(name, &endpoints(text)));
        (a.ports[0].name, b.ports[0].name) = ("a".into(), "b".into());
        told(web(), &[a, b], Family::V4, true)
    };
    assert_eq!(two_ports(["10.0.1.1", "10.0.1.1"]), Some((200, 1)));
    assert_eq!(two_ports(["10.0.1.1", "10.0.1.2"]), Some((200, 2)));
    assert_eq!(two_ports(["192.168.0.2", "192.168.0.2"]), Some((200, 1)));
}

#[test]
fn shc_010_and_011_an_agent_that_is_ill_fails_the_check_and_still_tells_the_count() {
    let seven = slice("s1", &(1..=7).map(|pod| endpoint(&format!("10.0.1.{pod}"))).collect::<Vec<_>>());
    assert_eq!(told(web(), &[seven], Family::V4, false), Some((503, 7)));
    assert_eq!(told(web(), &[], Family::V4, false), Some((503, 0)));
}

#[test]
fn only_load_balancers_with_policy_local_and_a_port_have_one() {
    let without = [
        ("SHC-016", Service { external_traffic_policy: TrafficPolicy::Cluster, ..web() }),
        ("SHC-017", Service { service_type: ServiceType::NodePort, ..web() }),
        ("SHC-018", Service { service_type: ServiceType::ClusterIp, ..web() }),
        ("SHC-019", Service { health_check_node_port: None, ..web() }),
        (
            "another proxy's",
            Service { labels: ProxyLabels { proxy_name: Some("other".into()), headless: false }, ..web() },
        ),
        ("without a cluster IP", Service { cluster_ips: vec![], ..web() }),
    ];
    for (id, service) in without {
        assert_eq!(told(service, &[slice("s1", &endpoints("10.0.1.1"))], Family::V4, true), None, "{id}");
    }
    let addressless = Service { vips: vec![], ..web() };
    let told = told(addressless, &[slice("s1", &endpoints("10.0.1.1"))], Family::V4, true);
    assert_eq!(told, Some((200, 1)), "SHC-020");
}

#[test]
fn each_family_answers_for_itself_and_a_single_one_for_both() {
    let six_only = || with_cluster_ips(&["fd00:172:30::41"]);
    let (four, six) = ("10.0.1.1", "fd00:10::1, fd00:10::3");
    for (id, service, texts, probe, expected) in [
        ("SHC-023", dual(), &[four, "fd00:10::1"][..], Family::V4, (200, 1)),
        ("SHC-025", dual(), &[four], Family::V4, (200, 1)),
        ("SHC-026", dual(), &[four], Family::V6, (503, 0)),
        ("SHC-027", six_only(), &[six], Family::V6, (200, 2)),
        ("SHC-028", six_only(), &["fd00:10::1"], Family::V4, (200, 1)),
        ("SHC-029", web(), &[four], Family::V6, (200, 1)),
    ] {
        let slices: Vec<Slice> =
            texts.iter().enumerate().map(|(index, text)| slice(&format!("s{index}"), &endpoints(text))).collect();
        assert_eq!(told(service, &slices, probe, true), Some(expected), "{id}");
    }
}

#[test]
fn shc_030_ready_counts_whatever_serving_says() {
    let published = crate::model::objects::Endpoint { serving: false, ..endpoint("10.0.1.1") };
    assert_eq!(told(web(), &[slice("s1", &[published])], Family::V4, true), Some((200, 1)));
}

#[test]
fn a_port_that_two_services_name_is_the_firsts_and_a_refusal_of_the_other() {
    let model = model([web().into(), Service { name: name("api"), ..web() }.into()]);
    let (ports, refusals) = wanted(&model, &Policy::default(), "node-a");
    assert_eq!(ports[&PORT].service, name("api"));
    assert_eq!(refusals[0].object, "Service default/web");
    assert!(refusals[0].why.starts_with("health check port 30000 is not served: Service default/api has it too"));
}

#[test]
fn load_balancers_of_other_classes_are_others_to_check() {
    let policy = Policy { load_balancer_classes: vec!["xlb".into()], ..Policy::default() };
    let ports = |class: Option<&str>| {
        let service = Service { load_balancer_class: class.map(String::from), ..web() };
        wanted(&model([service.into()]), &policy, "node-a").0.len()
    };
    assert_eq!((ports(None), ports(Some("other")), ports(Some("xlb"))), (0, 0, 1));
}
