//! What a node makes of a model.

use std::net::IpAddr;

use xlb_userspace::model::{DeliveryChoice, Model, Policy, desired, pods_of_interest};
use xlb_userspace::node::{FamilyAddresses, Location, NodeView, PodLink};
use xlb_userspace::plan::desired::Desired;

/// The node of these tests.
pub const NODE: &str = "node";

/// What the node serves, if it finds each of its pods behind a veth.
pub fn served(model: &Model, zone: Option<&str>) -> Desired {
    let pods = pods_of_interest(&Policy::default(), model, NODE);
    let view = NodeView {
        node_name: NODE.into(),
        zone: zone.map(String::from),
        addresses: [IpAddr::from([192, 168, 0, 2])].into(),
        primary: FamilyAddresses::default(),
        pods: pods.into_iter().map(|pod| (pod, Location::Link(link(pod)))).collect(),
    };
    desired(&Policy::default(), model, &view, DeliveryChoice::Auto)
}

/// A line for each service of a namespace: its Service, its frontends, its backends.
pub fn lines(desired: &Desired, namespace: &str) -> Vec<String> {
    let within = desired.services.iter().filter(|(name, _)| name.namespace == namespace);
    let line = within.map(|(name, service)| {
        let frontends = service.vips.iter().map(|vip| format!(" {vip}:{}", service.port));
        let backends = service.backends.keys().map(|socket| format!(" {socket}"));
        [name.name.clone()].into_iter().chain(frontends).chain(backends).collect::<String>()
    });
    line.collect()
}

fn link(pod: IpAddr) -> PodLink {
    let ifindex = match pod {
        IpAddr::V4(pod) => u32::from(pod) & 0xffff,
        IpAddr::V6(pod) => u128::from(pod) as u32 & 0xffff,
    };
    PodLink { ifindex, name: format!("pod{ifindex}"), is_veth: true, host_mac: [2; 6], ..PodLink::default() }
}
