//! The ports that a pod sees in place of a client's own ([`xlb_common::twin`]), for what tests write and generate.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use xlb_common::parse::Endpoint;
use xlb_common::twin::{PROBES, ports};
use xlb_common::{V4, V6};

/// The client's address with the port that its flow to `vip` gets from so many that are tried.
pub fn twin_of(client: SocketAddr, vip: SocketAddr, probe: usize) -> Result<SocketAddr> {
    let [client_port, vip_port] = [client, vip].map(|end| end.port().to_be_bytes());
    let port = match (client.ip(), vip.ip()) {
        (IpAddr::V4(of), IpAddr::V4(to)) => {
            ports::<V4>(&Endpoint(of.octets(), client_port), &Endpoint(to.octets(), vip_port)).nth(probe)
        }
        (IpAddr::V6(of), IpAddr::V6(to)) => {
            ports::<V6>(&Endpoint(of.octets(), client_port), &Endpoint(to.octets(), vip_port)).nth(probe)
        }
        _ => None,
    };
    let port =
        port.with_context(|| format!("{client} and {vip} are of two families, or {probe} is not below {PROBES}"))?;
    Ok(SocketAddr::new(client.ip(), u16::from_be_bytes(port)))
}

/// A row's word `client~vip~probe` is [`twin_of`] them; any other stays.
pub fn resolve(word: &str) -> Result<String> {
    let [client, vip, probe] = word.split('~').collect::<Vec<_>>()[..] else { return Ok(word.to_owned()) };
    Ok(twin_of(client.parse()?, vip.parse()?, probe.parse()?)?.to_string())
}
