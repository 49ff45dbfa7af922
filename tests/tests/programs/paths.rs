//! tracepath and traceroute: each hop on the way to a VIP is seen, and its packet size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use xlb_tests::lab::{Lab, Version};

use crate::http;
use crate::run::{curl, run};
use crate::stage::{Stage, host};

/// tracepath goes through as many ports from the first on (iputils, HIS_ARRAY_SIZE).
const PROBED_PORTS: u16 = 64;
const FIRST_PORT: u16 = 44_444;
/// The pods' closed ports.
const FIRST_TARGET_PORT: u16 = 34_444;
const MTU: u32 = 1280;
/// The number of the Service whose ports are closed.
const SERVICE: usize = 2;
/// The router's addresses on the clients' side.
const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLIENT_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1);

/// The names of the ports of tracepath's Service.
pub fn names() -> Vec<String> {
    (0..PROBED_PORTS).map(|number| format!("p{number}")).collect()
}

/// The ports, closed on its only pod.
pub fn ports(names: &[String]) -> Vec<(&str, &str, u16, u16)> {
    let port = |(number, name)| (name, "UDP", FIRST_PORT + number, FIRST_TARGET_PORT + number);
    (0..).zip(names.iter().map(String::as_str)).map(port).collect()
}

/// Behind a small hop.
pub fn check_tracepath(stage: &Stage, version: Version) -> Result<()> {
    make_hop_small(&stage.lab, version)?;
    let (vip, first) = (stage.vip(version, SERVICE), FIRST_PORT.to_string());
    let seen = run(stage.lab.client(0), "tracepath", &["-n", "-m", "8", "-p", &first, &vip.to_string()])?;
    check(&stage.lab, vip, &seen)?;
    ensure!(seen.contains(&format!("pmtu {MTU}")), "another MTU:\n{seen}");
    ensure!(lines_with(&seen, &vip.to_string()).any(|line| line.contains("reached")), "not reached:\n{seen}");
    Ok(())
}

/// By SYNs, to a port that is served; whoever asked is served nevertheless.
pub fn check_traceroute(stage: &Stage, version: Version) -> Result<()> {
    let vip = stage.vip(version, http::SERVICE);
    let arguments = ["-n", "-T", "-p", "80", "-q", "2", "-w", "5", "-m", "6", &vip.to_string()];
    check(&stage.lab, vip, &run(stage.lab.client(0), "traceroute", &arguments)?)?;
    curl(stage.lab.client(0), &[&format!("http://{}/", host(vip))]).map(drop)
}

/// The hops, in their order, and nothing behind the VIP.
fn check(lab: &Lab, vip: IpAddr, seen: &str) -> Result<()> {
    for (hop, address) in hops(lab, vip).iter().enumerate() {
        let number = hop + 1;
        let address = address.to_string();
        ensure!(
            lines_with(seen, &address).any(|line| hop_number(line) == Some(number)),
            "hop {number} is not {address}"
        );
    }
    ensure!(seen.lines().filter_map(hop_number).max() == Some(3), "there are hops behind the VIP:\n{seen}");
    Ok(())
}

/// Router, node, VIP.
fn hops(lab: &Lab, vip: IpAddr) -> [IpAddr; 3] {
    let uplink = lab.uplink(0);
    match vip {
        IpAddr::V4(_) => [CLIENT_GATEWAY.into(), uplink.node_address.into(), vip],
        IpAddr::V6(_) => [CLIENT_GATEWAY_V6.into(), uplink.node_address_v6.into(), vip],
    }
}

fn lines_with<'a>(seen: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    seen.lines().filter(move |line| line.split_whitespace().any(|other| other == word))
}

/// Lines of hops begin with a number: ` 2:  192.0.2.2  0.1ms`, ` 2  192.0.2.2  0.1 ms`. Lines of the same hop may come
/// more than once, as `1?:` where it has not answered.
fn hop_number(line: &str) -> Option<usize> {
    line.split_whitespace().next()?.trim_end_matches(':').parse().ok()
}

/// The router's way to the VIPs; the link itself is as large as before.
fn make_hop_small(lab: &Lab, version: Version) -> Result<()> {
    let (uplink, vip) = (lab.uplink(0), lab.vip_in(version, SERVICE));
    let route = match version {
        Version::V4 => format!("{vip}/32 via {}", uplink.node_address),
        Version::V6 => format!("{vip}/128 via {}", uplink.node_address_v6),
    };
    lab.router().ip(&format!("route replace {route} mtu lock {MTU}"))
}
