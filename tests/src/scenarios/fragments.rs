//! A client's datagram in three fragments, of which a scenario sends one by one.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};

use super::frames::ends;
use super::node::{Flow, Node, Outcome};
use super::run::NotUnderstood;
use crate::kernel::frame::Spec;
use crate::kernel::pieces::{join, split};
use xlb_common::Disposition;

/// Bytes of a fragment's payload, and of data of the datagram: three fragments.
const SIZE: usize = 400;
const DATA: usize = 900;
const IDENTIFICATION: u16 = 7;
const NAMES: [&str; 3] = ["first", "middle", "last"];

/// Sends the fragment of that name. A later one reaches an address: its port is that of the endpoint which was reached there.
pub fn send(node: &Node, flow: Flow, flags: u8, name: &str, reached: &[Option<SocketAddr>]) -> Result<Outcome> {
    let Some(number) = NAMES.iter().position(|known| *known == name) else {
        bail!(NotUnderstood(format!("{name} is no fragment that the runner knows")));
    };
    let datagram = Spec { flags, data: DATA, ..Spec::new(flow.protocol, flow.source, flow.destination) }.build();
    let piece = split(&datagram, SIZE, IDENTIFICATION).swap_remove(number);
    let run = node.run_frame(&piece)?;
    let disposition = run.reason.map(|reason| reason.disposition());
    if disposition != Some(Disposition::Forward) {
        ensure!(run.frame == piece, "a fragment that was not served has changed");
        return Ok(if disposition == Some(Disposition::Drop) { Outcome::Dropped } else { Outcome::Passed });
    }
    if number == 0 {
        let (source, endpoint) = ends(&join(&[run.frame]));
        ensure!(source == flow.source, "the client's address became {source}");
        return Ok(Outcome::Reached(endpoint));
    }
    let (source, endpoint) = ends(&run.frame);
    ensure!(source.ip() == flow.source.ip(), "the client's address became {source}");
    let port = reached.iter().flatten().find(|before| before.ip() == endpoint.ip()).map_or(0, SocketAddr::port);
    Ok(Outcome::Reached(SocketAddr::new(endpoint.ip(), port)))
}
