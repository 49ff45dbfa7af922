//! Desired states in few words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::node::{LinkState, PodLink};
use crate::plan::desired::{
    Delivery, Desired, DesiredBackend, DesiredInside, DesiredService, Family, Protocol, ServiceName, WhenEmpty,
};

/// `default/NAME` over TCP.
pub fn name(name: &str) -> ServiceName {
    name_of(Family::V4, name)
}

pub fn name_of(family: Family, name: &str) -> ServiceName {
    let (namespace, port) = ("default".into(), String::new());
    ServiceName { namespace, name: name.into(), port, protocol: Protocol::Tcp, family }
}

/// The pods' port 8080.
pub fn pod(pod: u16) -> SocketAddr {
    pod_of(Family::V4, pod)
}

pub fn pod_of(family: Family, pod: u16) -> SocketAddr {
    let [high, low] = pod.to_be_bytes();
    match family {
        Family::V4 => ([10, 1, high, low], 8080).into(),
        Family::V6 => ([0xfd01, 0, 0, 0, 0, 0, 0, pod], 8080).into(),
    }
}

pub fn vip(last: u8) -> IpAddr {
    vip_of(Family::V4, last)
}

pub fn vip_of(family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => [192, 0, 2, last].into(),
        Family::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)].into(),
    }
}

/// One of some ranges of clients, each within the one before.
pub fn range_of(family: Family, number: u8) -> IpNet {
    let (address, bits): (IpAddr, u8) = match family {
        Family::V4 => ([198, 51, 100, 0].into(), 24),
        Family::V6 => ([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0].into(), 48),
    };
    IpNet::new_assert(address, bits + number)
}

/// A service at 192.0.2.VIP:80 with these pods, all ready.
pub fn service(last: u8, pods: impl IntoIterator<Item = u16>) -> DesiredService {
    let backends = pods.into_iter().map(|number| (pod(number), ready(number))).collect();
    DesiredService {
        vips: BTreeSet::from([vip(last)]),
        port: 80,
        when_empty: WhenEmpty::Drop,
        backends,
        ..DesiredService::default()
    }
}

/// Clients inside get the pods that take new connections, and the others linger. Where there is affinity, those in pods get
/// every other one of both.
pub fn inside(service: &DesiredService) -> DesiredInside {
    let (usable, lingering): (Vec<_>, Vec<_>) = service.backends.iter().partition(|(_, backend)| backend.takes_new);
    let sockets = |part: Vec<(&SocketAddr, &DesiredBackend)>| part.into_iter().map(|(socket, _)| *socket).collect();
    let local = (service.affinity_s > 0).then(|| service.backends.keys().step_by(2).copied().collect());
    DesiredInside { usable: sockets(usable), lingering: sockets(lingering), local }
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
        hides_sockets: false,
        host_mac: [2, 0, 0, 0, 0, 1],
        pod_mac: Some([2, 0, 0, 0, 0, 2]),
        takes_xdp_frames: true,
        state: LinkState::Carries,
    }
}

pub fn desired(services: impl IntoIterator<Item = (&'static str, DesiredService)>) -> Desired {
    let services: BTreeMap<_, _> = services.into_iter().map(|(text, service)| (name(text), service)).collect();
    Desired { services, refusals: vec![] }
}
