//! curl and nginx: one name of both IP versions, and the health port of its Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlb_tests::lab::Version;
use xlb_tests::servers::{DNS_TARGET_PORT, HTTP_TARGET_PORT};

use crate::counts::check_sums;
use crate::run::{curl, who};
use crate::stage::{Stage, host};

/// The number of the Service that nginx and dnsmasq serve.
pub const SERVICE: usize = 0;
/// Its ports.
pub const PORTS: [(&str, &str, u16, u16); 3] = [
    ("http", "TCP", 80, HTTP_TARGET_PORT),
    ("dns", "UDP", 53, DNS_TARGET_PORT),
    ("dns-tcp", "TCP", 53, DNS_TARGET_PORT),
];
/// Its health port.
pub const HEALTH_FIELD: &str = "healthCheckNodePort: 30123";

const HEALTH_PORT: u16 = 30123;
const TRIES: usize = 40;

/// Every pod answers some, and sees the client itself.
pub fn check(stage: &Stage, version: Version) -> Result<()> {
    let [v4, v6] = Version::ALL.map(|version| host(stage.vip(version, SERVICE)));
    let name = format!("web.test:80:{v4},{v6}");
    let flag = if version == Version::V4 { "-4" } else { "-6" };
    let mut pods = BTreeSet::new();
    for _ in 0..TRIES {
        let who = who(stage.lab.client(0), "http://web.test/", &[flag, "--resolve", &name])?;
        ensure!(who.client_as_seen == who.client, "{who:?}");
        ensure!(who.server == stage.vip(version, SERVICE).to_string(), "{who:?}");
        pods.insert(who.pod);
    }
    ensure!(pods.len() == 3, "only {pods:?} answered");
    stage.lab.pods().try_for_each(|pod| check_sums(stage.lab.pod(pod)))?;
    check_sums(stage.lab.client(0))
}

/// A Service of both versions is well over both.
pub fn check_health_port(stage: &Stage, version: Version) -> Result<()> {
    let uplink = stage.lab.uplink(0);
    let node: IpAddr = match version {
        Version::V4 => uplink.node_address.into(),
        Version::V6 => uplink.node_address_v6.into(),
    };
    let url = format!("http://{}:{HEALTH_PORT}/", host(node));
    // The port opens after the Service is served.
    let text = curl(stage.lab.router(), &["--retry", "30", "--retry-delay", "1", "--retry-all-errors", &url])?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("reading {text}"))?;
    ensure!(answer["localEndpoints"] == 3 && answer["service"]["name"] == "web", "{url}: {answer}");
    Ok(())
}
