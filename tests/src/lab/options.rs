//! Clients whose packets carry IPv4 options or IPv6 extension headers, because their sockets ask for it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};

use super::client::LineClient;
use super::namespace::Namespace;

/// A router alert (RFC 2113), between a no-operation and an end.
const IPV4_OPTIONS: [u8; 8] = [1, 148, 4, 0, 0, 0, 0, 0];
/// A destination-options header of padding (RFC 8200 chapter 4.2), of which Linux takes no more than seven bytes (net/ipv6/exthdrs.c,
/// ip6_parse_tlv). The kernel fills in the next header.
const IPV6_DESTINATION_OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

impl LineClient {
    /// Connects from inside a namespace; all packets, the first one too, carry options.
    pub fn connect_with_options(from: &Namespace, to: SocketAddr) -> Result<LineClient> {
        let stream = from.run(|| open(to));
        LineClient::of(stream.with_context(|| format!("connecting with options from {} to {to}", from.name()))?)
    }
}

fn open(to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let client = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    match to {
        SocketAddr::V4(_) => set_option(&client, libc::IPPROTO_IP, libc::IP_OPTIONS, &IPV4_OPTIONS)?,
        SocketAddr::V6(_) => {
            set_option(&client, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &IPV6_DESTINATION_OPTIONS)?;
        }
    }
    connect(client.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(client.into())
}

fn set_option(socket: &OwnedFd, level: i32, option: i32, value: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `value.len()` bytes of the value, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), value.len() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("setting the socket's options") }
}
