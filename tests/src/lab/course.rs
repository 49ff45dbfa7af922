//! What kernel programs of tests are told that make packets, or forward them with no more than it takes.

use std::net::SocketAddrV4;

use anyhow::Result;

use super::namespace::Namespace;
use super::topology::Lab;

/// From which device packets leave, and where they go: `Course` of `xlb-ebpf/src/segments.rs`.
pub type Course = [u8; 24];

/// By a device of one namespace to the neighbour on the other's, on their way to an address; and what else the program has to know.
pub fn course(from: (&Namespace, &str), next: (&Namespace, &str), to: SocketAddrV4, more: [u8; 2]) -> Result<Course> {
    let mut value = [0; 24];
    value[..4].copy_from_slice(&from.0.ifindex(from.1)?.to_ne_bytes());
    value[4..10].copy_from_slice(&next.0.link_address(next.1)?);
    value[10..16].copy_from_slice(&from.0.link_address(from.1)?);
    value[16..20].copy_from_slice(&to.ip().octets());
    value[20..22].copy_from_slice(&to.port().to_be_bytes());
    value[22..].copy_from_slice(&more);
    Ok(value)
}

/// From the router by the first uplink.
pub fn course_by_uplink(lab: &Lab, to: SocketAddrV4, more: [u8; 2]) -> Result<Course> {
    let uplink = lab.uplink(0);
    course((lab.router(), &uplink.router_device), (lab.node(), &uplink.node_device), to, more)
}
