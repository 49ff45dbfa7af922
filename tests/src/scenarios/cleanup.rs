//! Flows whose endpoint went (`flow_cleanup`): which of them go on with it, and which begin anew (semantics chapter 11).
//!
//! xlb never removes entries for this: a flow is forgotten by the backend that leaves its service. So each flow is begun
//! while its endpoint was the only one, then the objects become those of the case, then the flow sends once more. A flow
//! that was never translated has no entry at all. A flow to another node's endpoint is kube-proxy's, with its entry.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};

use super::case::{Case, CleanupFlow, Client, Defaults, Packet, Slice, Unread};
use super::edge::address;
use super::missing::{self, Feature, Note};
use super::node::Outcome;
use super::run::{NotUnderstood, Run, Terms};

/// Who has the flows; the cases do not say.
const CLIENTS: [&str; 2] = ["203.0.113.2", "2600:5200::1"];
/// When the case's objects come.
const LATER_MS: u64 = 60_000;

/// Each flow by itself.
pub fn check(
    case: &Case,
    defaults: &Defaults,
    terms: &Terms,
    (missing, notes): (&mut BTreeSet<Feature>, &mut BTreeSet<Note>),
) -> Result<()> {
    ensure!(!case.flows.is_empty(), NotUnderstood("it has no flows".into()));
    for (index, flow) in case.flows.iter().enumerate() {
        let run = &mut Run::new(case, defaults, terms);
        place_here(&mut run.slices, &run.node.view.node_name);
        match lacks(run, flow)? {
            Some(missing::REMOTE) if !terms.wants_remote => drop(notes.insert(missing::HOSTS_FLOW)),
            Some(feature) => drop(missing.insert(feature)),
            None => check_flow(run, flow).with_context(|| format!("flow {index}"))?,
        }
    }
    Ok(())
}

/// The rule does not ask where an endpoint is. One that does not say is here, as its flows are.
fn place_here(slices: &mut [Slice], this_node: &str) {
    for endpoint in slices.iter_mut().flat_map(|slice| &mut slice.endpoints) {
        endpoint.node.get_or_insert_with(|| this_node.into());
    }
}

fn lacks(run: &Run, flow: &CleanupFlow) -> Result<Option<Feature>> {
    let is_remote = missing::is_remote(&endpoint(run, flow)?.to_string(), &run.slices, &run.node.view.node_name);
    Ok(is_remote.then_some(missing::REMOTE))
}

fn check_flow(run: &mut Run, flow: &CleanupFlow) -> Result<()> {
    let endpoint = endpoint(run, flow)?;
    let is_translated = flow.reply_src != flow.orig_dst;
    let (client, packet) = first_packet(flow)?;
    let before = if is_translated { run.slices_with_only(&packet, &endpoint.to_string())? } else { Vec::new() };
    let is_ours = !before.is_empty();
    let services = if is_translated { run.services.clone() } else { Vec::new() };
    let later = (std::mem::replace(&mut run.services, services), std::mem::replace(&mut run.slices, before));
    run.learn(0)?;
    let sent = run.flow(&client, &packet)?;
    let began = run.node.open(sent)?;
    match began {
        Outcome::Reached(reached) if is_ours && reached == endpoint => run.node.establish(sent, endpoint)?,
        Outcome::Passed if !is_ours => {}
        other => bail!("it could not be begun: {other:?}"),
    }
    (run.services, run.slices) = later;
    run.learn(LATER_MS)?;
    let now = run.node.go_on(sent)?;
    let is_new = now != began;
    ensure!(is_new == flow.deleted, "{} by {}: it began as {began:?}, and is now {now:?}", flow.proto, flow.reply_src);
    ensure!(!is_new || matches!(now, Outcome::Reached(_)), "it met {now:?}, and no endpoint");
    Ok(())
}

/// The flow's endpoint, with the port that the Service's slices lead to.
fn endpoint(run: &Run, flow: &CleanupFlow) -> Result<SocketAddr> {
    let is_protocol = |protocol: &Option<String>| protocol.as_deref().unwrap_or("TCP") == flow.proto;
    let mut ports = run.slices.iter().flat_map(|slice| &slice.ports);
    let target = ports.find(|port| is_protocol(&port.protocol)).and_then(|port| port.port);
    let port = target.map_or(Ok(flow.orig_dport), u16::try_from).context("reading the port of the slice")?;
    Ok(SocketAddr::new(address(&flow.reply_src)?, port))
}

fn first_packet(flow: &CleanupFlow) -> Result<(Client, Packet)> {
    let [v4, v6] = CLIENTS;
    let ip = if address(&flow.orig_dst)?.is_ipv4() { v4 } else { v6 };
    let client = Client { kind: "external".into(), ip: ip.into() };
    let packet = Packet {
        proto: flow.proto.clone(),
        dst: flow.orig_dst.clone(),
        dport: Some(flow.orig_dport),
        sport: None,
        flow: None,
        unread: Unread::new(),
    };
    Ok((client, packet))
}
