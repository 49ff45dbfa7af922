//! Sockets of this namespace that stand for a pod and its clients.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use xlb_tests::kernel::sample::{Version, client_address, pod_address};

/// Its SYN waits for an answer that never comes.
pub fn silent(version: Version) -> SocketAddr {
    SocketAddr::new(client_address(version, 9), 40_000)
}

/// The pod's address is this namespace's, and what goes to the silent client stays here.
pub fn prepare_loopback(version: Version) -> Result<()> {
    let (pod, silent) = (pod_address(version, 1).to_string(), silent(version).ip().to_string());
    match version {
        Version::V4 => ip(&["address", "add", &pod, "dev", "lo"])?,
        // Without it the address is not usable until the kernel has looked for another owner.
        Version::V6 => ip(&["address", "add", &format!("{pod}/128"), "dev", "lo", "nodad"])?,
    }
    ip(&["route", "add", &silent, "dev", "lo"])
}

pub fn any_address(version: Version) -> SocketAddr {
    let is_v4 = matches!(version, Version::V4);
    SocketAddr::new(if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }, 8080)
}

/// A connection whose client's end is known beforehand.
pub fn connect_from(client: SocketAddr, pod: SocketAddr) -> Result<TcpStream> {
    let family = if client.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, SockType::Stream, SockFlag::empty(), None).context("making a socket")?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(client)).with_context(|| format!("binding {client}"))?;
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(pod)).with_context(|| format!("connecting to {pod}"))?;
    Ok(socket.into())
}

fn ip(args: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(args).status().context("running ip")?;
    ensure!(status.success(), "`ip {}` failed", args.join(" "));
    Ok(())
}
