//! What a packet would need of xlb that xlb cannot do yet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use xlb_userspace::source::address::parse_address;

use super::case::{Client, Expect, Packet, Service, Slice};

/// Something that xlb cannot do yet, as the summary names it.
pub type Feature = &'static str;

/// IPv6 packets.
pub const IPV6: Feature = "IPv6";
/// Senders that do not come in by the uplink.
pub const IN_CLUSTER: Feature = "in-cluster senders";
/// SCTP services.
pub const SCTP: Feature = "SCTP";
/// ICMP port unreachable.
pub const REJECT: Feature = "reject";
/// `loadBalancerSourceRanges`.
pub const SOURCE_RANGES: Feature = "source ranges";
/// `sessionAffinity: ClientIP`.
pub const AFFINITY: Feature = "affinity";
/// UDP flows that leave an endpoint which no longer serves.
pub const FLOW_CLEANUP: Feature = "flow cleanup";
/// Endpoints of other nodes.
pub const REMOTE: Feature = "remote delivery";
/// `healthCheckNodePort`.
pub const HEALTH_PORTS: Feature = "health ports";
/// Fragments of IP packets.
pub const FRAGMENTS: Feature = "fragments";
/// ICMP errors about a flow.
pub const ICMP_ERRORS: Feature = "ICMP errors";
/// Frames with a VLAN tag.
pub const VLAN: Feature = "VLAN tags";

/// A packet and the state that it meets.
pub struct Situation<'a> {
    /// All Services.
    pub services: &'a [Service],
    /// All slices.
    pub slices: &'a [Slice],
    /// Name of this node.
    pub this_node: &'a str,
    /// Which senders count as pods.
    pub pod_detection: &'a str,
    /// Who sends.
    pub client: &'a Client,
    /// What.
    pub packet: &'a Packet,
    /// What should become of it.
    pub expect: &'a Expect,
}

impl Situation<'_> {
    /// What the packet needs that xlb cannot do yet.
    pub fn missing(&self) -> BTreeSet<Feature> {
        let checks = [
            (IPV6, self.is_ipv6()),
            (IN_CLUSTER, self.is_in_cluster()),
            (SCTP, self.packet.proto == "SCTP" && self.expect.outcome != "pass"),
            (REJECT, self.expect.outcome == "reject"),
            (SOURCE_RANGES, self.has_source_ranges()),
            (AFFINITY, self.expect.same_as_step.is_some() || self.has_affinity()),
            (FLOW_CLEANUP, self.is_stale_udp_flow()),
            (REMOTE, self.is_of_remote_flow()),
        ];
        checks.into_iter().filter(|(_, is_missing)| *is_missing).map(|(feature, _)| feature).collect()
    }

    fn is_ipv6(&self) -> bool {
        let addresses = [&self.client.ip, &self.packet.dst].map(|text| parse_address(text));
        addresses.into_iter().flatten().any(|address| address.is_ipv6())
    }

    /// A pod of another node comes in by the uplink; whether it counts as a pod is the detection's affair.
    fn is_in_cluster(&self) -> bool {
        match self.client.kind.as_str() {
            "external" => false,
            "remote-pod" => !["node-local", "none"].contains(&self.pod_detection),
            _ => true,
        }
    }

    /// Semantics 8.1: only ingress addresses that are left to the nodes are filtered.
    fn has_source_ranges(&self) -> bool {
        let vip = parse_address(&self.packet.dst);
        let filters = |service: &&Service| {
            let left_to_nodes = service.lb_ingress.iter().filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
            let ingress = left_to_nodes.filter_map(|entry| entry.ip.as_deref());
            let has_ranges = service.lb_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty());
            has_ranges && ingress.map(parse_address).any(|ip| ip == vip)
        };
        self.addressed().any(|service| filters(&service))
    }

    fn has_affinity(&self) -> bool {
        let vip = parse_address(&self.packet.dst);
        let has_vip = |service: &Service| vips(service).any(|ip| Some(ip) == vip);
        let is_sticky =
            |service: &Service| service.session_affinity.as_ref().is_some_and(|it| it.affinity_type == "ClientIP");
        self.addressed().any(|service| is_sticky(service) && has_vip(service))
    }

    /// The Services with the packet's port.
    fn addressed(&self) -> impl Iterator<Item = &Service> {
        let dport = self.packet.dport.map(i32::from);
        let matches = move |service: &&Service| {
            service.ports.iter().any(|port| {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                port.port == dport && protocol == self.packet.proto
            })
        };
        self.services.iter().filter(matches)
    }

    fn is_stale_udp_flow(&self) -> bool {
        let Some(flow) = &self.packet.flow else { return false };
        self.packet.proto == "UDP" && !self.expect.endpoints.contains(&flow.established_to)
    }

    fn is_of_remote_flow(&self) -> bool {
        let Some(flow) = &self.packet.flow else { return false };
        let Some((address, _)) = flow.established_to.rsplit_once(':') else { return false };
        let endpoints = self.slices.iter().flat_map(|slice| &slice.endpoints);
        let mut of_pod = endpoints.filter(|endpoint| endpoint.addresses().iter().any(|ip| ip == address)).peekable();
        of_pod.peek().is_some() && of_pod.all(|endpoint| endpoint.node.as_deref() != Some(self.this_node))
    }
}

fn vips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let ingress = service.lb_ingress.iter().filter_map(|entry| entry.ip.as_deref());
    let external = service.external_ips.iter().map(String::as_str);
    ingress.chain(external).filter_map(parse_address)
}
