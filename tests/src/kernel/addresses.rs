//! The addresses of the sample: the same roles in both families, told apart by their last numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// A VIP's address.
#[must_use]
pub fn vip_address(version: Version, last: u8) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::new(203, 0, 113, last).into(),
        Version::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, look_alike(last)).into(),
    }
}

/// A client's address.
#[must_use]
pub fn client_address(version: Version, last: u8) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::new(198, 51, 100, last).into(),
        Version::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, look_alike(last)).into(),
    }
}

/// A pod's address.
#[must_use]
pub fn pod_address(version: Version, pod: u8) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::new(10, 244, 1, pod).into(),
        Version::V6 => Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, look_alike(pod)).into(),
    }
}

/// The number whose hexadecimal digits are the decimal ones of `last`.
const fn look_alike(last: u8) -> u16 {
    let last = last as u16;
    last / 100 * 0x100 + last / 10 % 10 * 0x10 + last % 10
}

/// The IPv6 address that stands for an IPv4 address of the sample.
#[must_use]
pub fn in_ipv6(address: Ipv4Addr) -> Option<IpAddr> {
    match address.octets() {
        [203, 0, 113, vip] => Some(vip_address(Version::V6, vip)),
        [198, 51, 100, client] => Some(client_address(Version::V6, client)),
        [10, 244, 1, pod] => Some(pod_address(Version::V6, pod)),
        _ => None,
    }
}
