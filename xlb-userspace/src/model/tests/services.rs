//! Which Services count, and which of their addresses and ports are served.

use crate::model::fixtures::*;
use crate::model::objects::*;

const SERVED: &str = "default/web 192.0.2.10:80 reject\n";

#[test]
fn a_load_balancer_service_is_served_even_without_endpoints() {
    assert_eq!(served([service().into()]), SERVED);
}

#[test]
fn what_happens_without_a_backend_depends_on_the_policy_and_on_the_whole_cluster() {
    for (pods, cluster, local) in [
        ("", "reject", "reject"),
        ("10.1.0.1 unready, 10.9.0.2 remote stopped", "reject", "reject"),
        ("10.9.0.2 remote", "pass", "drop"),
        ("10.9.0.2 remote terminating", "pass", "drop"),
        ("10.1.0.1 unready, 10.9.0.2 remote", "pass", "drop"),
        ("fd01::9 remote", "reject", "reject"),
    ] {
        for (policy, expected) in [(TrafficPolicy::Cluster, cluster), (TrafficPolicy::Local, local)] {
            let service = Service { external_traffic_policy: policy, ..service() };
            let text = served([service.into(), slice("web-1", &endpoints(pods)).into()]);
            assert!(text.starts_with(&format!("default/web 192.0.2.10:80 {expected}")), "{policy:?} {pods}: {text}");
        }
    }
}

#[test]
fn local_traffic_policy_of_a_service_that_is_not_external_does_not_count() {
    let local =
        Service { external_traffic_policy: TrafficPolicy::Local, service_type: ServiceType::ClusterIp, ..service() };
    let elsewhere = slice("web-1", &endpoints("10.9.0.2 remote"));
    assert_eq!(served([local.into(), elsewhere.into()]), "default/web 192.0.2.10:80 pass\n");
}

#[test]
fn labels_say_whose_a_service_is() {
    let labels =
        |proxy_name: Option<&str>, headless| ProxyLabels { proxy_name: proxy_name.map(String::from), headless };
    for (labels, expected) in [
        (labels(None, false), SERVED),
        (labels(Some("xlb"), false), SERVED),
        (labels(Some(""), false), ""),
        (labels(Some("other"), false), ""),
        (labels(None, true), ""),
        (labels(Some("xlb"), true), ""),
    ] {
        let service = Service { labels: labels.clone(), ..service() };
        assert_eq!(served([service.into()]), expected, "{labels:?}");
    }
}

#[test]
fn a_slice_of_another_proxy_contributes_nothing() {
    let theirs = ProxyLabels { proxy_name: Some("other".into()), headless: false };
    let slice = Slice { labels: theirs, ..slice("web-1", &endpoints("10.1.0.1")) };
    assert_eq!(served([service().into(), slice.into()]), SERVED);
}

#[test]
fn headless_and_alias_services_are_silently_not_ours() {
    let headless = Service { is_headless: true, cluster_ips: vec![], ..service() };
    let alias = Service { service_type: ServiceType::ExternalName, ..service() };
    for service in [headless, alias] {
        assert_eq!(served([service.into()]), "");
    }
}

#[test]
fn a_vip_without_a_cluster_ip_of_its_family_is_refused_with_a_sentence() {
    for cluster_ips in [vec![], vec!["fd00::1".parse().unwrap()]] {
        let service = Service { cluster_ips, ..service() };
        assert_eq!(
            served([service.into()]),
            "! Service default/web: 192.0.2.10 is not served: the Service has no IPv4 cluster IP; let the API server \
             assign one (spec.ipFamilyPolicy), or set spec.clusterIPs in the manifest\n"
        );
    }
    let vips = vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
    assert_eq!(
        served([Service { vips, ..service() }.into()]),
        format!(
            "{SERVED}! Service default/web: 2001:db8::10 is not served: the Service has no IPv6 cluster IP; let the API \
             server assign one (spec.ipFamilyPolicy), or set spec.clusterIPs in the manifest\n"
        )
    );
}

#[test]
fn a_vip_that_cannot_be_served_is_refused_and_the_others_go_on() {
    for (vip, why) in [
        ("192.168.0.2", "an address of this node, whose own traffic xlb never takes"),
        ("127.0.0.9", "not an address that a client on the network can use"),
        ("0.0.0.0", "not an address that a client on the network can use"),
        ("224.0.0.1", "not an address that a client on the network can use"),
        ("2001:db8::1", "the Service has no IPv6 cluster IP"),
    ] {
        let vips = vec![vip.parse().unwrap(), "192.0.2.10".parse().unwrap()];
        let text = served([Service { vips, ..service() }.into()]);
        let refusal = text.strip_prefix(SERVED).unwrap_or_else(|| panic!("the other VIP is not served: {text}"));
        assert!(refusal.starts_with(&format!("! Service default/web: {vip} is not served: ")), "{refusal}");
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[test]
fn a_protocol_that_is_not_supported_is_named_and_the_other_ports_go_on() {
    let port = |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port };
    let other = PortProtocol::Other("DCCP".into());
    let ports = vec![port("media", other, 5004), port("web", TCP, 80), port("sig", SCTP, 36412)];
    assert_eq!(
        served([Service { ports, ..service() }.into()]),
        "default/web:sig/sctp 192.0.2.10:36412 reject\n\
         default/web:web 192.0.2.10:80 reject\n\
         ! Service default/web: port 5004 is not served: DCCP is not supported; use TCP, UDP or SCTP, \
         or leave this port to kube-proxy\n"
    );
}
