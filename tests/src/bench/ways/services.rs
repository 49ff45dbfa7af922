//! The Services of a node: one that is measured, and others among which it has to be found.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{POD, POD_PORT};
use crate::lab::{Lab, Version};

/// Where each Service is reached.
pub const VIP_PORT: u16 = 80;
/// The others' pods listen from this port on: at the measured pod's address, where nobody is.
const OTHER_POD_PORT: u16 = 20_000;
/// The others' addresses: in the cluster, and outside of it.
const CLUSTER_V4: u32 = 0x0a60_0000; // 10.96.0.0
const VIPS_V4: u32 = 0xc612_0000; // 198.18.0.0
const CLUSTER_V6: u16 = 0x96;
const VIPS_V6: u16 = 0x198;

/// A port of a Service in one IP version.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name, with the protocol's.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its address in the cluster.
    pub cluster_ip: IpAddr,
    /// Its address outside.
    pub vip: IpAddr,
    /// Its only endpoint.
    pub endpoint: SocketAddr,
}

/// All of a node.
pub struct Services {
    /// The IP version.
    pub version: Version,
    /// The pods' network.
    pub pods: String,
    /// In the order of rules: where kube-proxy writes a Service is chance, so the measured one is in the middle.
    pub ports: Vec<Service>,
}

impl Services {
    /// So many Services, of which the measured one has a port for TCP and one for UDP.
    pub fn new(lab: &Lab, version: Version, count: u32) -> Services {
        let mut ports: Vec<Service> = (1..count).map(|number| other(lab, version, number)).collect();
        let middle = ports.len() / 2;
        let (cluster_ip, vip) = (cluster_ip(version, 0), lab.vip_in(version, 0));
        let endpoint = SocketAddr::new(lab.pod_address_in(version, POD), POD_PORT);
        let measured = ["tcp", "udp"].map(|protocol| Service {
            name: format!("measured-{protocol}"),
            protocol,
            cluster_ip,
            vip,
            endpoint,
        });
        ports.splice(middle..middle, measured);
        let pods = match version {
            Version::V4 => lab.pod_network(),
            Version::V6 => format!("{}/128", lab.pod_address_in(version, POD)),
        };
        Services { version, pods, ports }
    }
}

/// One that nobody speaks to.
pub fn other(lab: &Lab, version: Version, number: u32) -> Service {
    let vip = match version {
        Version::V4 => Ipv4Addr::from(VIPS_V4 + number).into(),
        Version::V6 => documentation(VIPS_V6, number).into(),
    };
    let port = OTHER_POD_PORT + number as u16;
    Service {
        name: format!("other-{number}"),
        protocol: "tcp",
        cluster_ip: cluster_ip(version, number),
        vip,
        endpoint: SocketAddr::new(lab.pod_address_in(version, POD), port),
    }
}

fn cluster_ip(version: Version, number: u32) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::from(CLUSTER_V4 + 256 + number).into(),
        Version::V6 => documentation(CLUSTER_V6, 256 + number).into(),
    }
}

fn documentation(network: u16, number: u32) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, (number >> 16) as u16, number as u16)
}
