//! Objects for tests, each a plain default changed by a few words, and the answer as text.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::desired::desired;
use super::objects::*;
use super::{DeliveryChoice, Event, Model, Policy};
use crate::node::{FamilyAddresses, Location, NodeView, PodLink};
use crate::plan::desired::{Delivery, Desired, Protocol, WhenEmpty};

pub const TCP: PortProtocol = PortProtocol::Served(Protocol::Tcp);
pub const UDP: PortProtocol = PortProtocol::Served(Protocol::Udp);
pub const SCTP: PortProtocol = PortProtocol::Served(Protocol::Sctp);

/// The node `node-a`, 192.168.0.2 and fd00::2, with a veth for each of 10.1.0.1 to 10.1.0.9, which are fd01::1 to fd01::9,
/// too.
pub fn node() -> NodeView {
    let pods = (1..=9u8).flat_map(|pod| {
        let addresses = [format!("10.1.0.{pod}"), format!("fd01::{pod}")];
        addresses.map(|address| (address.parse().unwrap(), Location::Link(link(pod.into(), true))))
    });
    let addresses = ["127.0.0.1", "192.168.0.2", "::1", "fd00::2"].map(|text| text.parse().unwrap());
    let primary = FamilyAddresses { v4: "192.168.0.2".parse().ok(), v6: "fd00::2".parse().ok() };
    let (node_name, addresses) = ("node-a".into(), addresses.into());
    NodeView { node_name, zone: None, addresses, primary, pods: pods.collect() }
}

pub fn link(ifindex: u32, is_veth: bool) -> PodLink {
    PodLink { ifindex, name: format!("pod{ifindex}"), is_veth, host_mac: [2; 6], ..PodLink::default() }
}

pub fn name(name: &str) -> ObjectName {
    ObjectName { namespace: "default".into(), name: name.into() }
}

/// `default/web`, 192.0.2.10:80 over TCP, type LoadBalancer, externalTrafficPolicy Cluster.
pub fn service() -> Service {
    Service {
        name: name("web"),
        created_s: None,
        labels: ProxyLabels::default(),
        service_type: ServiceType::LoadBalancer,
        cluster_ips: vec!["172.30.0.1".parse().unwrap()],
        is_headless: false,
        external_traffic_policy: TrafficPolicy::Cluster,
        health_check_node_port: None,
        ports: vec![ServicePort { name: String::new(), protocol: TCP, port: 80 }],
        load_balancer_class: None,
        vips: vec!["192.0.2.10".parse().unwrap()],
        proxy_vips: vec![],
        external_ips: vec![],
        source_ranges: None,
        affinity_s: None,
    }
}

/// A slice of `default/web` that leads to port 8080.
pub fn slice(slice: &str, endpoints: &[Endpoint]) -> Slice {
    Slice {
        name: name(slice),
        service: Some(name("web")),
        labels: ProxyLabels::default(),
        ports: vec![TargetPort { name: String::new(), protocol: TCP, port: 8080 }],
        endpoints: endpoints.to_vec(),
    }
}

/// `address [remote] [unready|terminating|stopped]`: ready and on `node-a` unless it says otherwise. One that is
/// terminating still serves, one that is stopped does not.
pub fn endpoint(text: &str) -> Endpoint {
    let words: Vec<&str> = text.split(' ').collect();
    let has = |word| words.contains(&word);
    Endpoint {
        address: words[0].parse().unwrap(),
        ready: !has("unready") && !has("terminating") && !has("stopped"),
        serving: !has("unready") && !has("stopped"),
        terminating: has("terminating") || has("stopped"),
        node_name: Some(if has("remote") { "node-b" } else { "node-a" }.into()),
        hints: None,
    }
}

/// Several of them, separated by commas.
pub fn endpoints(text: &str) -> Vec<Endpoint> {
    text.split(", ").filter(|text| !text.is_empty()).map(endpoint).collect()
}

pub fn policy(namespace: &str, restricts_ingress: bool) -> NetworkPolicyPresence {
    NetworkPolicyPresence { name: ObjectName { namespace: namespace.into(), name: "policy".into() }, restricts_ingress }
}

pub fn model(objects: impl IntoIterator<Item = Object>) -> Model {
    let mut model = Model::default();
    for object in objects {
        model.apply(Event::Applied(object));
    }
    model
}

/// What [`node`] makes of the objects, as text.
pub fn served(objects: impl IntoIterator<Item = Object>) -> String {
    text(&desired(&Policy::default(), &model(objects), &node(), DeliveryChoice::Auto))
}

/// One line for each service, `*` behind each VIP that is filtered, `!` before each refusal.
pub fn text(desired: &Desired) -> String {
    let mut text = String::new();
    for (name, service) in &desired.services {
        let vip = |vip: &IpAddr| {
            let filtered = if service.sources.vips.contains(vip) { "*" } else { "" };
            format!("{}{filtered}", SocketAddr::new(*vip, service.port))
        };
        let vips: Vec<String> = service.vips.iter().map(vip).collect();
        let when_empty = match service.when_empty {
            WhenEmpty::Pass => "pass",
            WhenEmpty::Drop => "drop",
            WhenEmpty::Reject => "reject",
        };
        write!(text, "{name} {} {when_empty}", vips.join(",")).unwrap();
        if !service.sources.vips.is_empty() {
            let ranges: Vec<String> = service.sources.ranges.iter().map(ToString::to_string).collect();
            write!(text, " * from [{}]", ranges.join(" ")).unwrap();
        }
        if service.affinity_s != 0 {
            write!(text, " affinity {} s", service.affinity_s).unwrap();
        }
        for (socket, backend) in &service.backends {
            let delivery = match &backend.delivery {
                Delivery::Direct(link) => format!("direct {}", link.name),
                Delivery::Stack(Some(link)) => format!("stack {}", link.name),
                Delivery::Stack(None) => "stack".into(),
            };
            let drains = if backend.takes_new { "" } else { " drains" };
            write!(text, " | {socket} {delivery}{drains}").unwrap();
        }
        text.push('\n');
    }
    for refusal in &desired.refusals {
        writeln!(text, "! {}: {}", refusal.object, refusal.why).unwrap();
    }
    text
}

/// The last byte of an address: the number of a pod.
pub fn last_byte(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

impl From<Slice> for Object {
    fn from(slice: Slice) -> Self {
        Object::Slice(slice)
    }
}

impl From<NetworkPolicyPresence> for Object {
    fn from(policy: NetworkPolicyPresence) -> Self {
        Object::Policy(policy)
    }
}
