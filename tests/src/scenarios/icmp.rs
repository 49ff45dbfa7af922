//! ICMP errors among the packets of a case: whom they reach, and what they are about then.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use xlb_common::Disposition;

use super::case::{EdgePacket, Inner};
use super::edge::{ANY_PORT, address};
use super::node::{Node, Outcome};
use super::run::{NotUnderstood, protocol};
use crate::kernel::describe::{Sums, describe};
use crate::kernel::frame::{ICMP, ICMP_V6, Spec};
use crate::kernel::headers::Layout;
use crate::kernel::icmp::{KINDS, Message, all_sums, quoted};
use crate::kernel::outcome::Hook;

const RIGHT: Sums = Sums { ip: true, transport: true };

/// Sends an error of that type and code, `3/4`, about the inner packet. It reaches the endpoint that it quotes.
pub fn send(node: &Node, client: &str, packet: &EdgePacket, kind: &str) -> Result<Outcome> {
    let inner = packet.inner.as_ref().ok_or_else(|| NotUnderstood("an ICMP error needs an `inner` packet".into()))?;
    let quote = quote(inner)?;
    let source = address(packet.src.as_deref().unwrap_or(client))?;
    let frame = error(kind, source, address(&packet.dst)?, quote)?.build();
    let run = node.run(Hook::Tc, &frame)?;
    match run.reason.map(|reason| reason.disposition()) {
        Some(Disposition::Forward) => {
            let endpoint = reached(&frame, &run.frame)?;
            let is_rewritten = !packet.expect.inner_source_rewritten || endpoint != end(&inner.src, inner.sport)?;
            ensure!(is_rewritten, "the quote is as it was");
            Ok(Outcome::Reached(endpoint))
        }
        Some(Disposition::Drop) => Ok(Outcome::Dropped),
        Some(Disposition::Reply) => Ok(Outcome::Rejected),
        Some(Disposition::Pass) | None => {
            ensure!(run.frame == frame, "an error that was passed on has changed");
            Ok(Outcome::Passed)
        }
    }
}

fn quote(inner: &Inner) -> Result<Spec> {
    let (source, destination) = (end(&inner.src, inner.sport)?, end(&inner.dst, inner.dport)?);
    Ok(Spec { data: 8, ..Spec::new(protocol(&inner.proto)?, source, destination) })
}

fn end(text: &str, port: Option<u16>) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address(text)?, port.unwrap_or(ANY_PORT)))
}

fn error(kind: &str, source: IpAddr, destination: IpAddr, quote: Spec) -> Result<Spec> {
    let family = usize::from(destination.is_ipv6());
    let is_it = |[of, code]: [u8; 2]| format!("{of}/{code}") == kind;
    let kind = KINDS.iter().position(|(_, kinds)| is_it(kinds[family]));
    let kind = kind.ok_or_else(|| NotUnderstood("it has an ICMP type that the runner does not know".into()))?;
    let message = Message { kind, quote: Box::new(quote), keep: None };
    let spec = Spec::new([ICMP, ICMP_V6][family], (source, 0), (destination, 0));
    Ok(Spec { message: Some(message), ..spec })
}

/// The endpoint that got the error, which has to be the one that the error quotes; all sums have to be right.
fn reached(sent: &[u8], got: &[u8]) -> Result<SocketAddr> {
    let ends = |frame: &[u8]| Some((Layout::of(frame)?.addresses(frame), Layout::of(frame)?.ends(&quoted(frame)?)));
    let (Some((outer, inner)), Some((outer_before, inner_before))) = (ends(got), ends(sent)) else {
        anyhow::bail!("it is no error any more: {}", describe(got))
    };
    ensure!(outer[0] == outer_before[0] && inner[1] == inner_before[1], "the wrong end changed: {}", describe(got));
    ensure!(outer[1] == inner[0].ip(), "its receiver did not send what it quotes: {}", describe(got));
    ensure!(all_sums(got) == [Some(RIGHT); 2], "wrong sums: {}", describe(got));
    Ok(inner[0])
}
