//! The rules of kube-proxy in its mode iptables: a chain with a rule for each address of a Service, one after the other, and chains
//! for each Service. Of one with externalTrafficPolicy Local, so that clients keep their addresses.
//!
//! Debian's iptables-restore makes nftables rules of them, as it does for kube-proxy.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Result;

use super::feed;
use super::services::{Service, Services, VIP_PORT};
use crate::lab::{Lab, Version};

const FILTER: &str = "*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const NAT: &str = "*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
";

/// Loads them on the node.
pub fn load(lab: &Lab, services: &Services) -> Result<()> {
    let program = match services.version {
        Version::V4 => "iptables-restore",
        Version::V6 => "ip6tables-restore",
    };
    feed(lab.node(), program, &[], &rules(services))
}

fn rules(services: &Services) -> String {
    let mut text = format!("{FILTER}{NAT}");
    for number in 0..services.ports.len() {
        for kind in ["EXT", "SVC", "SVL", "SEP"] {
            let _ = writeln!(text, ":{} - [0:0]", chain(kind, number));
        }
    }
    for (number, service) in services.ports.iter().enumerate() {
        lead(&mut text, number, service);
    }
    text.push_str("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n");
    for (number, service) in services.ports.iter().enumerate() {
        chains(&mut text, number, service, &services.pods);
    }
    text + "COMMIT\n"
}

/// The two rules among those of all Services.
fn lead(text: &mut String, number: usize, service: &Service) {
    let Service { name, protocol, .. } = service;
    for (address, what, kind) in [(service.cluster_ip, "cluster", "SVC"), (service.vip, "loadbalancer", "EXT")] {
        let _ = writeln!(
            text,
            "-A KUBE-SERVICES -d {}{} -p {protocol} -m comment --comment \"team/{name} {what} IP\" \
             -m {protocol} --dport {VIP_PORT} -j {}",
            address,
            bits(address),
            chain(kind, number)
        );
    }
}

fn chains(text: &mut String, number: usize, service: &Service, pods: &str) {
    let Service { protocol, cluster_ip, endpoint, .. } = service;
    let [ext, svc, svl, sep] = ["EXT", "SVC", "SVL", "SEP"].map(|kind| chain(kind, number));
    let (to_cluster, pod) = (format!("{cluster_ip}{}", bits(*cluster_ip)), endpoint.ip());
    let _ = write!(
        text,
        "-A {ext} -s {pods} -j {svc}
-A {ext} -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
-A {ext} -m addrtype --src-type LOCAL -j {svc}
-A {ext} -j {svl}
-A {svl} -j {sep}
-A {svc} ! -s {pods} -d {to_cluster} -p {protocol} -m {protocol} --dport {VIP_PORT} -j KUBE-MARK-MASQ
-A {svc} -j {sep}
-A {sep} -s {pod}{} -j KUBE-MARK-MASQ
-A {sep} -p {protocol} -m {protocol} -j DNAT --to-destination {endpoint}
",
        bits(pod)
    );
}

/// kube-proxy's names are hashes of as many letters.
fn chain(kind: &str, number: usize) -> String {
    format!("KUBE-{kind}-{number:016}")
}

fn bits(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "/32" } else { "/128" }
}
