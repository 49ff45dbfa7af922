//! Which externalIPs are served, whose load balancers, and what `ipMode: Proxy` means.

use crate::model::fixtures::*;
use crate::model::objects::*;
use crate::model::{DeliveryChoice, Policy, desired, pods_of_interest};
use crate::source::address::parse_range;

#[test]
fn an_external_ip_is_served_only_where_it_is_listed() {
    for (cidrs, expected) in [
        (
            "",
            "! Service default/web: externalIP 192.0.2.99 is not served: it is not in --external-ip-cidrs; list it there if the Service may have it\n",
        ),
        (
            "192.0.2.98, 192.0.3.0/24, 2001:db8::/32",
            "! Service default/web: externalIP 192.0.2.99 is not served: it is not in --external-ip-cidrs; list it there if the Service may have it\n",
        ),
        ("192.0.2.99", "default/web 192.0.2.99:80 reject\n"),
        ("192.0.3.0/24, 192.0.2.0/24", "default/web 192.0.2.99:80 reject\n"),
        ("0.0.0.0/0", "default/web 192.0.2.99:80 reject\n"),
    ] {
        assert_eq!(served_under(&allowing(cidrs), [with_external_ip("192.0.2.99").into()]), expected, "{cidrs:?}");
    }
}

#[test]
fn what_the_cluster_uses_itself_must_be_listed_by_itself() {
    let other =
        Service { name: name("other"), cluster_ips: vec!["172.30.0.9".parse().unwrap()], vips: vec![], ..service() };
    let pods = slice("web-1", &endpoints("10.9.0.1 remote unready"));
    for (address, user) in [
        ("192.168.0.2", "an address of this node"),
        ("172.30.0.9", "a cluster IP"),
        ("10.9.0.1", "the address of a pod"),
    ] {
        let objects =
            || -> [Object; 3] { [with_external_ip(address).into(), other.clone().into(), pods.clone().into()] };
        let refused = format!(
            "! Service default/web: externalIP {address} is not served: it is {user}; \
             if the Service may have it nevertheless, list {address}/32 in --external-ip-cidrs\n"
        );
        assert_eq!(served_under(&allowing("0.0.0.0/0"), objects()), refused);

        let listed = allowing(&format!("0.0.0.0/0, {address}/32"));
        assert_eq!(served_under(&listed, objects()), format!("default/web {address}:80 reject\n"));
    }
}

#[test]
fn an_external_ip_that_is_an_ingress_ip_too_is_one_vip_and_needs_no_permission() {
    let both = Service { external_ips: service().vips, ..service() };
    assert_eq!(served([both.into()]), "default/web 192.0.2.10:80 reject\n");
}

#[test]
fn an_external_ip_has_to_be_servable_as_well() {
    for (address, why) in [
        ("127.0.0.9", "not an address that a client on the network can use"),
        ("2001:db8::1", "the Service has no IPv6 cluster IP"),
    ] {
        let text = served_under(&allowing("0.0.0.0/0, ::/0"), [with_external_ip(address).into()]);
        assert!(text.starts_with(&format!("! Service default/web: externalIP {address} is not served: ")), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let unassigned = Service { cluster_ips: vec![], ..with_external_ip("192.0.2.99") };
    let text = served_under(&allowing("192.0.2.99"), [unassigned.into()]);
    assert!(text.contains("the Service has no IPv4 cluster IP"), "{text}");
}

#[test]
fn a_refused_external_ip_takes_no_frontend_away() {
    let thief = Service { name: name("a"), created_s: Some(1), vips: vec![], ..with_external_ip("192.0.2.10") };
    let text = served([thief.into(), service().into()]);
    assert!(text.starts_with("default/web 192.0.2.10:80 reject\n! Service default/a: externalIP "), "{text}");
}

#[test]
fn local_traffic_policy_counts_for_a_cluster_ip_service_with_external_ips() {
    let local = Service { external_traffic_policy: TrafficPolicy::Local, ..with_external_ip("192.0.2.99") };
    let elsewhere = slice("web-1", &endpoints("10.9.0.2 remote"));
    let text = served_under(&allowing("192.0.2.99"), [local.into(), elsewhere.into()]);
    assert_eq!(text, "default/web 192.0.2.99:80 drop\n");
}

#[test]
fn pods_of_a_service_with_only_external_ips_are_asked_for() {
    let model = model([with_external_ip("192.0.2.99").into(), slice("web-1", &endpoints("10.1.0.1")).into()]);
    assert_eq!(pods_of_interest(&allowing("192.0.2.99"), &model, "node-a").len(), 1);
    assert_eq!(pods_of_interest(&Policy::default(), &model, "node-a").len(), 1);
}

#[test]
fn proxy_mode_addresses_are_left_alone_unless_the_operator_wants_them() {
    let mixed = Service { proxy_vips: vec!["192.0.2.11".parse().unwrap()], ..service() };
    assert_eq!(served([mixed.clone().into()]), "default/web 192.0.2.10:80 reject\n");

    let wanted = Policy { ip_mode_proxy: true, ..Policy::default() };
    assert_eq!(served_under(&wanted, [mixed.clone().into()]), "default/web 192.0.2.10:80,192.0.2.11:80 reject\n");

    let only_proxy = Service { vips: vec![], ..mixed };
    assert_eq!(served([only_proxy.into()]), "");
}

#[test]
fn a_proxy_mode_address_that_is_an_external_ip_is_served_as_that() {
    let vip = vec!["192.0.2.99".parse().unwrap()];
    let both = Service { vips: vec![], proxy_vips: vip.clone(), external_ips: vip, ..service() };
    assert_eq!(served_under(&allowing("192.0.2.99"), [both.into()]), "default/web 192.0.2.99:80 reject\n");
}

#[test]
fn only_load_balancers_of_the_given_classes_are_served() {
    let with_class = |class: Option<&str>| Service { load_balancer_class: class.map(String::from), ..service() };
    let served_classes = |classes: &[&str], class| {
        let load_balancer_classes = classes.iter().map(ToString::to_string).collect();
        let policy = Policy { load_balancer_classes, ..Policy::default() };
        !served_under(&policy, [with_class(class).into()]).is_empty()
    };
    for (classes, class, expected) in [
        (&[][..], None, true),
        (&[][..], Some("example.org/a"), true),
        (&["example.org/a"][..], Some("example.org/a"), true),
        (&["example.org/b", "example.org/a"][..], Some("example.org/a"), true),
        (&["example.org/b"][..], Some("example.org/a"), false),
        (&["example.org/b"][..], None, false),
    ] {
        assert_eq!(served_classes(classes, class), expected, "{classes:?} {class:?}");
    }
}

#[test]
fn a_class_stands_for_external_ips_of_load_balancers_and_of_no_others() {
    let mut policy = allowing("192.0.2.99");
    policy.load_balancer_classes = vec!["example.org/a".into()];
    let load_balancer = Service { service_type: ServiceType::LoadBalancer, ..with_external_ip("192.0.2.99") };
    assert_eq!(served_under(&policy, [load_balancer.into()]), "");
    assert_eq!(served_under(&policy, [with_external_ip("192.0.2.99").into()]), "default/web 192.0.2.99:80 reject\n");
}

/// Type ClusterIP, with this as its only external address.
fn with_external_ip(address: &str) -> Service {
    let external_ips = vec![address.parse().unwrap()];
    Service { service_type: ServiceType::ClusterIp, vips: vec![], external_ips, ..service() }
}

fn allowing(cidrs: &str) -> Policy {
    let cidrs = cidrs.split(", ").filter(|cidr| !cidr.is_empty());
    Policy { external_ip_cidrs: cidrs.map(|cidr| parse_range(cidr).unwrap()).collect(), ..Policy::default() }
}

fn served_under(policy: &Policy, objects: impl IntoIterator<Item = Object>) -> String {
    text(&desired(policy, &model(objects), &node(), DeliveryChoice::Auto))
}
