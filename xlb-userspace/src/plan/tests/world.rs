//! Desired states in few words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::node::PodLink;
use crate::plan::desired::{Delivery, Desired, DesiredBackend, DesiredService, Protocol, ServiceName, WhenEmpty};

/// `default/NAME` over TCP.
pub fn name(name: &str) -> ServiceName {
    let (namespace, port) = ("default".into(), String::new());
    ServiceName { namespace, name: name.into(), port, protocol: Protocol::Tcp }
}

/// The pods' port 8080.
pub fn pod(pod: u16) -> SocketAddrV4 {
    let [high, low] = pod.to_be_bytes();
    SocketAddrV4::new([10, 1, high, low].into(), 8080)
}

pub fn vip(last: u8) -> Ipv4Addr {
    [192, 0, 2, last].into()
}

/// A service at 192.0.2.VIP:80 with these pods, all ready.
pub fn service(last: u8, pods: impl IntoIterator<Item = u16>) -> DesiredService {
    let backends = pods.into_iter().map(|number| (pod(number), ready(number))).collect();
    DesiredService { vips: BTreeSet::from([vip(last)]), port: 80, when_empty: WhenEmpty::Drop, backends }
}

/// A ready pod behind a veth whose index is 100 more than its number.
pub fn ready(number: u16) -> DesiredBackend {
    DesiredBackend { takes_new: true, weight: 1, delivery: Delivery::Direct(link(100 + u32::from(number))) }
}

pub fn draining(number: u16) -> DesiredBackend {
    DesiredBackend { takes_new: false, ..ready(number) }
}

pub fn link(ifindex: u32) -> PodLink {
    PodLink {
        ifindex,
        name: format!("veth{ifindex}"),
        is_veth: true,
        netns_id: Some(ifindex as i32),
        host_mac: [2, 0, 0, 0, 0, 1],
        pod_mac: Some([2, 0, 0, 0, 0, 2]),
        takes_xdp_frames: true,
    }
}

pub fn desired(services: impl IntoIterator<Item = (&'static str, DesiredService)>) -> Desired {
    let services: BTreeMap<_, _> = services.into_iter().map(|(text, service)| (name(text), service)).collect();
    Desired { services, refusals: vec![] }
}
