//! Which addresses kube-proxy may have served before xlb did.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::fixtures::*;
use crate::model::objects::{ProxyLabels, Service};
use crate::model::{DeliveryChoice, Policy, desired};

#[test]
fn kube_proxy_served_what_it_does_not_leave_alone() {
    let [vip, external]: [IpAddr; 2] = ["192.0.2.10", "192.0.2.11"].map(|text| text.parse().unwrap());
    let own = ProxyLabels { proxy_name: Some(ProxyLabels::OWN_PROXY_NAME.into()), headless: false };
    let of_proxy_mode = || Service { vips: vec![], proxy_vips: vec![vip], ..service() };
    let rows: [(&str, Service, &[IpAddr]); 5] = [
        ("a load balancer's address", service(), &[vip]),
        ("and an externalIP", Service { external_ips: vec![external], ..service() }, &[vip, external]),
        ("a Service that is xlb's alone", Service { labels: own, ..service() }, &[]),
        ("ipMode Proxy", of_proxy_mode(), &[]),
        ("ipMode Proxy, and the same as externalIP", Service { external_ips: vec![vip], ..of_proxy_mode() }, &[vip]),
    ];
    for (what, service, expected) in rows {
        let policy =
            Policy { ip_mode_proxy: true, external_ip_cidrs: vec![vip.into(), external.into()], ..Policy::default() };
        let desired = desired(&policy, &model([service.into()]), &node(), DeliveryChoice::Auto);
        let found: BTreeSet<IpAddr> =
            desired.services.values().flat_map(|service| service.host_before.clone()).collect();
        assert_eq!(found, expected.iter().copied().collect(), "{what}");
    }
}
