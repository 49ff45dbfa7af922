//! One end of what is served, of either family: a VIP with its port, or a pod with its port.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use xlb_common::abi::{Backend, SCTP, TCP, UDP};

use super::desired::{Family, Protocol};

/// An address, a port and a protocol: what a frontend is found by, and what a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl Ord for Endpoint {
    /// By address, port and protocol. IPv4's are compared as one number: maps in this order are searched all the time.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |socket: SocketAddrV4| u64::from(socket.ip().to_bits()) << 16 | u64::from(socket.port());
        let sockets = match (self.socket, other.socket) {
            (SocketAddr::V4(one), SocketAddr::V4(other)) => number(one).cmp(&number(other)),
            (one, other) => one.cmp(&other),
        };
        sockets.then(self.protocol.cmp(&other.protocol))
    }
}

impl PartialOrd for Endpoint {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Endpoint {
    /// As people write it: `192.0.2.10:80/tcp`, `[2001:db8::10]:80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.socket, self.protocol.name())
    }
}

impl Protocol {
    /// IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
            Self::Sctp => SCTP,
        }
    }

    /// The protocol with this number; the maps hold no other one.
    #[must_use]
    pub const fn of_number(number: u8) -> Self {
        match number {
            UDP => Self::Udp,
            SCTP => Self::Sctp,
            _ => Self::Tcp,
        }
    }

    /// Its name in what xlb says.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
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
