//! What a packet's outcomes should be.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use xlb_userspace::source::address::parse_address;

use super::case::{Expect, Packet, Service};
use super::node::Outcome;
use super::run::NotUnderstood;

/// Whether the outcomes are the expected ones: all of them, if they are those of many flows.
pub fn compare(expect: &Expect, got: &BTreeSet<Outcome>, is_spread: bool) -> Result<()> {
    let expected = expected(expect)?;
    let is_right = if is_spread { *got == expected } else { got.is_subset(&expected) };
    ensure!(is_right, "expected {}, got {}", listed(&expected, &expect.outcome), listed(got, "nothing"));
    Ok(())
}

fn expected(expect: &Expect) -> Result<BTreeSet<Outcome>> {
    match expect.outcome.as_str() {
        "pass" => Ok([Outcome::Passed].into()),
        "drop" => Ok([Outcome::Dropped].into()),
        "reject" => Ok([Outcome::Rejected].into()),
        "dnat" => {
            let endpoints = expect.endpoints.iter();
            endpoints.map(|text| Ok(Outcome::Reached(endpoint(text)?))).collect()
        }
        other => bail!(NotUnderstood(format!("{other} is no outcome that the runner knows"))),
    }
}

/// The address and port that the text names.
pub fn endpoint(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| NotUnderstood(format!("{text} is no endpoint")).into())
}

fn listed(outcomes: &BTreeSet<Outcome>, if_none: &str) -> String {
    let texts = outcomes.iter().map(|outcome| match outcome {
        Outcome::Reached(endpoint) => endpoint.to_string(),
        Outcome::Passed => "pass".into(),
        Outcome::Dropped => "drop".into(),
        Outcome::Rejected => "reject".into(),
    });
    let text = texts.collect::<Vec<_>>().join(" ");
    if text.is_empty() { if_none.to_owned() } else { text }
}

/// Whether all connections of one client go to one endpoint there.
pub fn has_affinity(services: &[Service], packet: &Packet) -> bool {
    let vip = parse_address(&packet.dst);
    let has_vip = |service: &Service| {
        let ingress = service.lb_ingress.iter().filter_map(|entry| entry.ip.as_deref());
        let mut vips = ingress.chain(service.external_ips.iter().map(String::as_str));
        vips.any(|text| parse_address(text) == vip)
    };
    let has_port = |service: &Service| {
        let mut ports = service.ports.iter();
        ports.any(|port| {
            port.port == packet.dport.map(i32::from) && port.protocol.as_deref().unwrap_or("TCP") == packet.proto
        })
    };
    let is_sticky =
        |service: &Service| service.session_affinity.as_ref().is_some_and(|it| it.affinity_type == "ClientIP");
    services.iter().any(|service| is_sticky(service) && has_port(service) && has_vip(service))
}
