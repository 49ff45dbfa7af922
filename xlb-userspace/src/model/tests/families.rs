//! A Service of both families is two: each has its own VIPs, cluster IP, endpoints and contests (semantics 1.5).

use crate::model::fixtures::*;
use crate::model::objects::*;

#[test]
fn each_family_serves_its_own_vips_by_its_own_pods() {
    let of_v6 = slice("web-2", &endpoints("fd01::2, fd01::3 unready"));
    assert_eq!(
        served([dual_stack().into(), slice("web-1", &endpoints("10.1.0.1")).into(), of_v6.into()]),
        "default/web 192.0.2.10:80 pass | 10.1.0.1:8080 direct pod1\n\
         default/web/ipv6 [2001:db8::10]:80 pass | [fd01::2]:8080 direct pod2 | [fd01::3]:8080 direct pod3 drains\n"
    );
}

#[test]
fn a_family_without_endpoints_does_not_borrow_those_of_the_other() {
    assert_eq!(
        served([dual_stack().into(), slice("web-1", &endpoints("10.1.0.1")).into()]),
        "default/web 192.0.2.10:80 pass | 10.1.0.1:8080 direct pod1\n\
         default/web/ipv6 [2001:db8::10]:80 reject\n"
    );
}

#[test]
fn protocol_and_family_are_both_in_the_name() {
    let udp = ServicePort { name: "dns".into(), protocol: UDP, port: 53 };
    let text = served([Service { ports: vec![udp], ..dual_stack() }.into()]);
    assert_eq!(text, "default/web:dns/udp 192.0.2.10:53 reject\ndefault/web:dns/udp/ipv6 [2001:db8::10]:53 reject\n");
}

#[test]
fn a_frontend_may_be_lost_in_one_family_only() {
    let older = Service {
        name: name("old"),
        created_s: Some(1),
        cluster_ips: vec!["fd00::9".parse().unwrap()],
        vips: vec!["2001:db8::10".parse().unwrap()],
        ..service()
    };
    let text = served([dual_stack().into(), older.into()]);
    assert!(
        text.starts_with("default/old/ipv6 [2001:db8::10]:80 reject\ndefault/web 192.0.2.10:80 reject\n! "),
        "{text}"
    );
    assert!(text.contains("Service default/web/ipv6: 2001:db8::10 port 80 is not served"), "{text}");
}

#[test]
fn an_ipv6_vip_has_to_be_one_that_clients_can_use() {
    for (vip, why) in [
        ("::1", "not an address that a client on the network can use"),
        ("::", "not an address that a client on the network can use"),
        ("ff02::1", "not an address that a client on the network can use"),
        ("fe80::7", "not an address that a client on the network can use"),
        ("fd00::2", "an address of this node, whose own traffic xlb never takes"),
    ] {
        let vips = vec![vip.parse().unwrap(), "2001:db8::10".parse().unwrap()];
        let text = served([Service { vips, ..dual_stack() }.into()]);
        let refusal = text.strip_prefix("default/web/ipv6 [2001:db8::10]:80 reject\n").unwrap();
        assert!(refusal.starts_with(&format!("! Service default/web: {vip} is not served: ")), "{refusal}");
        assert!(refusal.contains(why), "{refusal}");
    }
}

/// [`service`], and the same at 2001:db8::10.
pub fn dual_stack() -> Service {
    Service {
        cluster_ips: ["172.30.0.1", "fd00:172:30::1"].map(|address| address.parse().unwrap()).to_vec(),
        vips: ["192.0.2.10", "2001:db8::10"].map(|address| address.parse().unwrap()).to_vec(),
        ..service()
    }
}
