//! Objects for tests, each a plain default changed by a few words, and the answer as text.

use std::fmt::Write;

use super::desired::desired;
use super::objects::*;
use super::{DeliveryChoice, Event, Model, Policy};
use crate::node::{Location, NodeView, PodLink};
use crate::plan::desired::{Delivery, Desired, Protocol, WhenEmpty};

pub const TCP: PortProtocol = PortProtocol::Served(Protocol::Tcp);
pub const UDP: PortProtocol = PortProtocol::Served(Protocol::Udp);

/// The node `node-a`, 192.168.0.2, with a veth for each of 10.1.0.1 to 10.1.0.9.
pub fn node() -> NodeView {
    let pods = (1..=9).map(|pod| ([10, 1, 0, pod].into(), Location::Link(link(pod.into(), true))));
    let addresses = ["127.0.0.1", "192.168.0.2"].map(|text| text.parse().unwrap());
    NodeView { node_name: "node-a".into(), zone: None, addresses: addresses.into(), pods: pods.collect() }
}

pub fn link(ifindex: u32, is_veth: bool) -> PodLink {
    let name = format!("pod{ifindex}");
    PodLink { ifindex, name, is_veth, netns_id: None, host_mac: [2; 6], pod_mac: None, takes_xdp_frames: false }
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
        unmet: Unmet::default(),
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

/// One line for each service, `!` before each refusal.
pub fn text(desired: &Desired) -> String {
    let mut text = String::new();
    for (name, service) in &desired.services {
        let vips: Vec<String> = service.vips.iter().map(|vip| format!("{vip}:{}", service.port)).collect();
        let when_empty = match service.when_empty {
            WhenEmpty::Pass => "pass",
            WhenEmpty::Drop => "drop",
        };
        write!(text, "{name} {} {when_empty}", vips.join(",")).unwrap();
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

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Object::Service(service)
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
