//! ARP and neighbour discovery go on with every program attached.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlb_common::Reason;
use xlb_tests::lab::{Namespace, PodShape, Version};

use crate::http::SERVICE;
use crate::run::{run, who};
use crate::stage::{Stage, host};

/// Router, node and pods find each other anew, and the Service is served.
pub fn check(stage: &Stage, version: Version) -> Result<()> {
    let lab = &stage.lab;
    let uplink = lab.uplink(0);
    let [node, router]: [IpAddr; 2] = match version {
        Version::V4 => [uplink.node_address.into(), uplink.router_address.into()],
        Version::V6 => [uplink.node_address_v6.into(), uplink.router_address_v6.into()],
    };
    let (node_mac, router_mac) =
        (lab.node().link_address(&uplink.node_device)?, lab.router().link_address(&uplink.router_device)?);
    let passed = if version == Version::V4 { Reason::NotIp } else { Reason::Icmp };
    let before = stage.count(passed)?;

    forget(lab.router())?;
    forget(lab.node())?;
    check_found(lab.router(), node, &uplink.router_device, node_mac)?;
    forget(lab.node())?;
    check_found(lab.node(), router, &uplink.node_device, router_mac)?;
    let link = match lab.spec().pods {
        PodShape::Routed => lab.pod_host_end(0),
        PodShape::Bridge => "cni0".to_owned(),
    };
    check_found(lab.node(), lab.pod_address_in(version, 0), &link, lab.pod(0).link_address("eth0")?)?;
    ensure!(stage.count(passed)? > before, "the programs on the uplink met none of it");

    for place in [lab.router(), lab.node(), lab.client(0), lab.pod(0)] {
        forget(place)?;
    }
    let url = format!("http://{}/", host(stage.vip(version, SERVICE)));
    let who = who(lab.client(0), &url, &[])?;
    ensure!(who.client == who.client_as_seen, "{who:?}");
    Ok(())
}

fn forget(place: &Namespace) -> Result<()> {
    run(place, "ip", &["neighbour", "flush", "all"]).map(drop)
}

/// Asks for an address, and checks whose it is.
fn check_found(place: &Namespace, address: IpAddr, device: &str, mac: [u8; 6]) -> Result<()> {
    let address = address.to_string();
    run(place, "ping", &["-c", "1", "-W", "20", &address])?;
    let entries = run(place, "ip", &["-json", "neighbour", "show", "to", &address, "dev", device])?;
    let entries: Value = serde_json::from_str(&entries).with_context(|| format!("reading {entries}"))?;
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    ensure!(entries[0]["lladdr"] == *mac, "{address} is {mac}, not {entries}");
    Ok(())
}
