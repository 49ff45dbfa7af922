//! Which VIPs are filtered, and whom they are open to (semantics chapter 8).

use super::families::dual_stack;
use crate::model::fixtures::*;
use crate::model::objects::*;
use crate::model::{DeliveryChoice, Policy, desired};
use crate::source::address::parse_range;

#[test]
fn ingress_addresses_are_filtered_and_external_ips_are_not() {
    let service = Service { external_ips: addresses("192.0.2.99"), ..with_ranges("198.51.100.0/24", service()) };
    let text = served_under(&allowing_externals(), service);
    assert_eq!(text, "default/web 192.0.2.10:80*,192.0.2.99:80 reject * from [198.51.100.0/24]\n");
}

#[test]
fn an_external_ip_that_is_an_ingress_ip_too_is_filtered() {
    let vip = addresses("192.0.2.99");
    let ranges = |service| with_ranges("198.51.100.0/24", service);
    let both = ranges(Service { vips: vip.clone(), external_ips: vip.clone(), ..service() });
    let filtered = "default/web 192.0.2.99:80* reject * from [198.51.100.0/24]\n";
    assert_eq!(served_under(&allowing_externals(), both), filtered);

    let proxied = ranges(Service { vips: vec![], proxy_vips: vip.clone(), external_ips: vip, ..service() });
    assert_eq!(served_under(&allowing_externals(), proxied.clone()), "default/web 192.0.2.99:80 reject\n");
    let policy = Policy { ip_mode_proxy: true, ..Policy::default() };
    assert_eq!(served_under(&policy, proxied), filtered);
}

#[test]
fn a_class_that_is_not_served_does_not_lift_the_filter_from_an_external_ip() {
    let vip = addresses("192.0.2.99");
    let service = Service {
        service_type: ServiceType::ClusterIp,
        external_ips: vip.clone(),
        vips: vip,
        ..with_ranges("198.51.100.0/24", service())
    };
    let policy = Policy { load_balancer_classes: vec!["example.org/a".into()], ..allowing_externals() };
    assert_eq!(served_under(&policy, service), "default/web 192.0.2.99:80* reject * from [198.51.100.0/24]\n");
}

#[test]
fn each_family_is_filtered_by_its_own_ranges() {
    let service = with_ranges("198.51.100.0/24, 203.0.113.7, 2001:db8:1::/48", dual_stack());
    assert_eq!(
        served([service.into()]),
        "default/web 192.0.2.10:80* reject * from [198.51.100.0/24 203.0.113.7/32]\n\
         default/web/ipv6 [2001:db8::10]:80* reject * from [2001:db8:1::/48]\n"
    );
}

#[test]
fn a_family_without_a_range_is_open_or_closed_as_the_operator_says_and_told() {
    let closed = Policy { source_ranges_fail_closed: true, ..Policy::default() };
    for (ranges, v4, v6, told) in [
        ("198.51.100.0/24", "* from [198.51.100.0/24]", "", "IPv6"),
        ("2001:db8:1::/48", "", "* from [2001:db8:1::/48]", "IPv4"),
    ] {
        let lines = |v4: &str, v6: &str| {
            let line = |frontend: &str, filter: &str| match filter {
                "" => format!("{frontend} reject\n"),
                filter => format!("{frontend}* reject {filter}\n"),
            };
            line("default/web 192.0.2.10:80", v4) + &line("default/web/ipv6 [2001:db8::10]:80", v6)
        };
        let text = served([with_ranges(ranges, dual_stack()).into()]);
        let refusal = text.strip_prefix(&lines(v4, v6)).unwrap_or_else(|| panic!("{text}"));
        let vip = if told == "IPv6" { "2001:db8::10" } else { "192.0.2.10" };
        assert_eq!(
            refusal,
            format!(
                "! Service default/web: loadBalancerSourceRanges hold no {told} range, so {vip} is open to every {told} \
                 client, as it is with kube-proxy: list an {told} range\n"
            )
        );

        let nobody = "* from []";
        let text = served_under(&closed, with_ranges(ranges, dual_stack()));
        let expected = lines(if v4.is_empty() { nobody } else { v4 }, if v6.is_empty() { nobody } else { v6 });
        let refusal = text.strip_prefix(&expected).unwrap_or_else(|| panic!("{text}"));
        assert!(
            refusal.contains(&format!("{vip} is closed to every {told} client: list an {told} range")),
            "{refusal}"
        );
    }
}

#[test]
fn ranges_of_which_none_can_be_read_are_not_forgotten() {
    let unreadable = Service { source_ranges: Some([].into()), ..service() };
    let text = served([unreadable.clone().into()]);
    assert!(
        text.starts_with("default/web 192.0.2.10:80 reject\n! Service default/web: loadBalancerSourceRanges"),
        "{text}"
    );
    let closed = Policy { source_ranges_fail_closed: true, ..Policy::default() };
    assert!(served_under(&closed, unreadable).starts_with("default/web 192.0.2.10:80* reject * from []\n"));
}

#[test]
fn a_range_that_holds_this_node_lets_its_processes_come_as_the_vip() {
    for (ranges, expected) in [
        ("192.168.0.0/24", "192.0.2.10/32 192.0.2.11/32 192.168.0.0/24"),
        ("192.168.0.3/32", "192.168.0.3/32"),
        ("0.0.0.0/0", "0.0.0.0/0 192.0.2.10/32 192.0.2.11/32"),
    ] {
        let service = Service { vips: addresses("192.0.2.10, 192.0.2.11"), ..service() };
        let text = served([with_ranges(ranges, service).into()]);
        assert_eq!(text, format!("default/web 192.0.2.10:80*,192.0.2.11:80* reject * from [{expected}]\n"));
    }
    let text = served([with_ranges("fd00::/64, 198.51.100.0/24", dual_stack()).into()]);
    assert!(text.contains("[2001:db8::10]:80* reject * from [2001:db8::10/128 fd00::/64]\n"), "{text}");
}

#[test]
fn affinity_holds_for_each_port_and_family() {
    let affine = Service { affinity_s: Some(90), ..dual_stack() };
    assert_eq!(
        served([affine.into()]),
        "default/web 192.0.2.10:80 reject affinity 90 s\ndefault/web/ipv6 [2001:db8::10]:80 reject affinity 90 s\n"
    );
}

fn with_ranges(ranges: &str, service: Service) -> Service {
    let ranges = ranges.split(", ").map(|range| parse_range(range).unwrap()).collect();
    Service { source_ranges: Some(ranges), ..service }
}

fn addresses(texts: &str) -> Vec<std::net::IpAddr> {
    texts.split(", ").map(|text| text.parse().unwrap()).collect()
}

fn allowing_externals() -> Policy {
    Policy { external_ip_cidrs: vec![parse_range("192.0.2.99").unwrap()], ..Policy::default() }
}

fn served_under(policy: &Policy, service: Service) -> String {
    text(&desired(policy, &model([service.into()]), &node(), DeliveryChoice::Auto))
}
