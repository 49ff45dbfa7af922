//! Several packets of one client, each with what becomes of it (`packet_edge`).

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};
use xlb_common::parse::tcp_flags::{ACK, FIN, RST, SYN};
use xlb_userspace::source::address::parse_address;

use super::case::EdgePacket;
use super::fragments;
use super::icmp;
use super::node::{Flow, Node, Outcome};
use super::run::{NotUnderstood, protocol};

/// TCP's push flag (RFC 9293), of which xlb takes no notice.
const PSH: u8 = 0x08;
/// The source port of packets that name none.
pub const ANY_PORT: u16 = 40_000;
/// Bytes of a frame that ends inside its transport header.
const TRUNCATED_LENGTH: usize = 40;

/// Sends the packet and compares; the endpoint that it reached, for packets that have to reach the same one.
pub fn check(
    node: &Node,
    client: &str,
    packet: &EdgePacket,
    reached: &[Option<SocketAddr>],
) -> Result<Option<SocketAddr>> {
    if let Some(kind) = &packet.icmp {
        return judge(icmp::send(node, client, packet, kind)?, packet, reached);
    }
    let source = packet.src.as_deref().unwrap_or(client);
    let flow = Flow {
        protocol: protocol(&packet.proto)?,
        source: SocketAddr::new(address(source)?, packet.sport.unwrap_or(ANY_PORT)),
        destination: SocketAddr::new(address(&packet.dst)?, packet.dport.unwrap_or_default()),
    };
    if packet.direction.as_deref() == Some("reply") {
        return check_reply(node, flow, packet).map(|()| None);
    }
    let flags = flags(packet.flags.as_deref().unwrap_or("SYN"))?;
    let outcome = match packet.fragment.as_deref() {
        None => match packet.vlan {
            Some(vlan) => node.send_tagged(flow, flags, vlan)?,
            None => node.send(flow, flags, packet.truncated.then_some(TRUNCATED_LENGTH))?,
        },
        Some(name) => fragments::send(node, flow, flags, name, reached)?,
    };
    judge(outcome, packet, reached)
}

/// Whether the packet fared as expected; the endpoint that it reached.
fn judge(outcome: Outcome, packet: &EdgePacket, reached: &[Option<SocketAddr>]) -> Result<Option<SocketAddr>> {
    let is_right = match (packet.expect.outcome.as_str(), outcome) {
        ("dnat" | "dnat-or-drop", Outcome::Reached(endpoint)) => may_reach(endpoint, packet, reached)?,
        ("drop" | "dnat-or-drop", Outcome::Dropped) | ("pass", Outcome::Passed) => true,
        ("dnat" | "drop" | "pass" | "dnat-or-drop", _) => false,
        (other, _) => bail!(NotUnderstood(format!("{other} is no outcome that the runner knows"))),
    };
    ensure!(is_right, "expected {}, got {outcome:?}", expected(packet));
    Ok(match outcome {
        Outcome::Reached(endpoint) => Some(endpoint),
        Outcome::Passed | Outcome::Dropped | Outcome::Rejected => None,
    })
}

/// A pod's packet leaves as its service's, or as it is.
fn check_reply(node: &Node, flow: Flow, packet: &EdgePacket) -> Result<()> {
    let flags = flags(packet.flags.as_deref().unwrap_or("SYN,ACK"))?;
    let leaves_as = node.reply(flow, flags)?;
    let is_right = match packet.expect.outcome.as_str() {
        "pass" => leaves_as == flow.source,
        "un-dnat" => {
            let source = packet.expect.src.as_deref().ok_or_else(|| NotUnderstood("`un-dnat` needs a `src`".into()))?;
            let port = packet.expect.sport.unwrap_or(leaves_as.port());
            leaves_as == SocketAddr::new(address(source)?, port)
        }
        other => bail!(NotUnderstood(format!("{other} is no outcome of a reply that the runner knows"))),
    };
    ensure!(is_right, "expected {}, but it leaves as {leaves_as}", expected(packet));
    Ok(())
}

fn may_reach(endpoint: SocketAddr, packet: &EdgePacket, reached: &[Option<SocketAddr>]) -> Result<bool> {
    if let Some(before) = packet.expect.same_as_packet {
        let before =
            reached.get(before).ok_or_else(|| NotUnderstood("`same_as_packet` names a later packet".into()))?;
        return Ok(*before == Some(endpoint));
    }
    Ok(packet.expect.any_of.iter().any(|text| *text == endpoint.to_string()))
}

fn expected(packet: &EdgePacket) -> String {
    let expect = &packet.expect;
    let same = expect.same_as_packet.map(|number| format!("to the endpoint of packet {number}"));
    let source = expect.src.as_ref().map(|source| format!("as {source}"));
    let words = [expect.outcome.clone()].into_iter().chain(expect.any_of.clone()).chain(same).chain(source);
    words.collect::<Vec<_>>().join(" ")
}

fn flags(names: &str) -> Result<u8> {
    let mut each = names.split(',').map(|name| match name.trim() {
        "SYN" => Ok(SYN),
        "ACK" => Ok(ACK),
        "FIN" => Ok(FIN),
        "RST" => Ok(RST),
        "PSH" => Ok(PSH),
        other => bail!(NotUnderstood(format!("{other} is no TCP flag that the runner knows"))),
    });
    each.try_fold(0, |flags, flag| Ok(flags | flag?))
}

/// The text's address.
pub fn address(text: &str) -> Result<IpAddr> {
    parse_address(text).ok_or_else(|| NotUnderstood(format!("{text} is no address")).into())
}
