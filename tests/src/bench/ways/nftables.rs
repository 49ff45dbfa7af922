//! The rules of kube-proxy in its mode nftables: a map of all Services, and chains for each. Of a Service with
//! externalTrafficPolicy Local, so that clients keep their addresses.

use std::fmt::Write as _;

use anyhow::Result;

use super::feed;
use super::services::{Service, Services, VIP_PORT};
use crate::lab::{Lab, Version};

/// Loads them on the node.
pub fn load(lab: &Lab, services: &Services) -> Result<()> {
    feed(lab.node(), "nft", &["-f", "-"], &rules(services))
}

fn rules(services: &Services) -> String {
    let (ip, address) = match services.version {
        Version::V4 => ("ip", "ipv4_addr"),
        Version::V6 => ("ip6", "ipv6_addr"),
    };
    let key = format!("{ip} daddr . meta l4proto . th dport");
    let map = format!("type {address} . inet_proto . inet_service : verdict");
    let mut text = format!("table {ip} kube-proxy {{\n");
    for service in &services.ports {
        chains(&mut text, ip, service, &services.pods);
    }
    let _ = write!(
        text,
        "map service-ips {{ {map}\n elements = {{ {} }}\n }}
        map no-endpoint-services {{ {map}; }}
        map firewall-ips {{ {map}; }}
        set cluster-ips {{ type {address}; }}
        chain services {{ {key} vmap @service-ips; }}
        chain service-endpoints-check {{ {key} vmap @no-endpoint-services; }}
        chain firewall-check {{ {key} vmap @firewall-ips; }}
        chain cluster-ips-check {{ {ip} daddr @cluster-ips reject; }}
        chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
        chain masquerading {{
            meta mark & 0x4000 == 0 return
            meta mark set meta mark ^ 0x4000
            masquerade fully-random
        }}
        chain filter-prerouting {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}
        chain filter-forward {{
            type filter hook forward priority -101
            ct state new jump service-endpoints-check
            ct state new jump cluster-ips-check
        }}
        chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
        chain nat-output {{ type nat hook output priority -100; jump services; }}
        chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
        }}\n",
        elements(&services.ports)
    );
    text
}

/// Clients outside are led to this node's endpoints; pods and the node itself to all, by the Service's own chain.
fn chains(text: &mut String, ip: &str, service: &Service, pods: &str) {
    let Service { name, protocol, cluster_ip, endpoint, .. } = service;
    let pod = endpoint.ip();
    let _ = write!(
        text,
        "chain endpoint-{name} {{
            {ip} saddr {pod} jump mark-for-masquerade
            meta l4proto {protocol} dnat to {endpoint}
        }}
        chain service-{name} {{
            {ip} daddr {cluster_ip} {protocol} dport {VIP_PORT} {ip} saddr != {pods} jump mark-for-masquerade
            numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}
        }}
        chain external-{name} {{
            {ip} saddr {pods} goto service-{name}
            fib saddr type local jump mark-for-masquerade
            fib saddr type local goto service-{name}
            numgen random mod 1 vmap {{ 0 : goto endpoint-{name} }}
        }}\n"
    );
}

fn elements(ports: &[Service]) -> String {
    let element = |Service { name, protocol, cluster_ip, vip, .. }: &Service| {
        format!(
            "{cluster_ip} . {protocol} . {VIP_PORT} : goto service-{name}, \
             {vip} . {protocol} . {VIP_PORT} : goto external-{name}"
        )
    };
    ports.iter().map(element).collect::<Vec<_>>().join(",\n")
}
