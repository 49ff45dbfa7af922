//! One end of what is served, of either family: a VIP with its port, or a pod with its port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use xlb_common::abi::{Backend, TCP, UDP};

use super::desired::{Family, Protocol};

/// An address, a port and a protocol: what a frontend is found by, and what a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Address and port.
    pub socket: SocketAddr,
    /// Protocol of the port.
    pub protocol: Protocol,
}

impl Endpoint {
    /// The pod's port that a backend stands for.
    #[must_use]
    pub fn of(backend: &Backend) -> Self {
        Self { socket: backend.socket(), protocol: Protocol::of_number(backend.protocol) }
    }

    /// Which family's maps know it.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.socket.ip())
    }
}

impl fmt::Display for Endpoint {
    /// As people write it: `192.0.2.10:80/tcp`, `[2001:db8::10]:80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.socket)
    }
}

impl Protocol {
    /// IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }

    /// The protocol with this number; the maps hold no third one.
    #[must_use]
    pub const fn of_number(number: u8) -> Self {
        if number == UDP { Self::Udp } else { Self::Tcp }
    }
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
