//! Whole datagrams and the same in fragments: for each kind of service and pod, both families, both protocols and each
//! hook, the fragments put together again are what the path makes of the whole.

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::SCTP;
use xlb_common::memory::MemoryTables;
use xlb_common::{Disposition, Reason};

use super::flows::{self, Flows};
use super::frame::Spec;
use super::host;
use super::outcome::{Hook, Outcome, Verdict};
use super::pieces::{join, split};
use super::rows;
use super::sample::{PORTS, VIPS, Version, client_address, pod_address, vip_address};

/// Bytes of IP payload of each fragment but the last of three.
const SIZE: usize = 400;
const DATA: usize = 900;
const IDENTIFICATION: u16 = 7;

/// What runs hooks.
pub trait Runner {
    /// The tables that packets meet.
    fn tables(&self) -> &MemoryTables;
    /// These are all flows, and nothing is known of fragments.
    fn begin(&mut self, flows: &Flows) -> Result<()>;
    /// One packet.
    fn run(&mut self, hook: Hook, frame: &[u8]) -> Result<Outcome>;
}

/// A datagram at a hook, with the flows before it.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Where it is.
    pub hook: Hook,
    /// All of it.
    pub frame: Vec<u8>,
    /// The flows that it meets.
    pub given: Flows,
}

/// Every kind.
pub fn all(tables: &MemoryTables) -> Result<Vec<Datagram>> {
    let mut datagrams = Vec::new();
    for (version, (protocol, vip_port, pod_port)) in
        Version::ALL.into_iter().flat_map(|v| PORTS.map(|ports| (v, ports)))
    {
        // Its fragments are left to the stack.
        if protocol == SCTP {
            continue;
        }
        let client = std::net::SocketAddr::new(client_address(version, 9), 40_000);
        let spec =
            |source, destination, flags| Spec { flags, data: DATA, ..Spec::new(protocol, source, destination) }.build();
        for last in VIPS {
            let frame = spec(client, (vip_address(version, last), vip_port).into(), 0x02);
            for hook in Hook::ALL.into_iter().filter(|hook| hook.is_ingress()) {
                datagrams.push(Datagram { hook, frame: frame.clone(), given: Flows::new() });
            }
        }
        for (vip, pod) in [(1, 1), (3, 5), (10, 2)] {
            let pod = (pod_address(version, pod), pod_port).into();
            let table = if protocol == 6 { "flow" } else { "udp-flow" };
            let stack = if vip == 3 { " stack" } else { "" };
            let vip = std::net::SocketAddr::new(vip_address(version, vip), vip_port);
            let flow = rows::flow(&format!("{table} {client} {pod} vip {vip}{stack}"), tables)?;
            for (hook, given) in [(Hook::Pod, [flow].into()), (Hook::Egress, [flow].into()), (Hook::Pod, Flows::new())]
            {
                datagrams.push(Datagram { hook, frame: spec(pod, client, 0x18), given });
            }
        }
    }
    Ok(datagrams)
}

/// Sends each in order, in another order with the first ahead, and with the first not ahead.
pub fn check_each(runner: &mut impl Runner) -> Result<usize> {
    let mut served = 0;
    for datagram in all(runner.tables())? {
        let what = || format!("{:?}: {}", datagram.hook, super::describe::describe(&datagram.frame));
        for order in [[0, 1, 2], [0, 2, 1]] {
            served += usize::from(check_followed(runner, &datagram, order).with_context(what)?);
        }
        check_overtaken(runner, &datagram).with_context(what)?;
    }
    Ok(served)
}

/// The first fragment decides as the whole does, and the others follow it. True if the datagram is served.
fn check_followed(runner: &mut impl Runner, datagram: &Datagram, order: [usize; 3]) -> Result<bool> {
    let Datagram { hook, frame, given } = datagram;
    let whole = alone(runner.tables(), datagram);
    let pieces = split(frame, SIZE, IDENTIFICATION);
    runner.begin(given)?;
    let mut outcomes = Vec::new();
    for number in order {
        outcomes.push(runner.run(*hook, &pieces[number])?);
    }
    let first = (outcomes[0].verdict, outcomes[0].reason);
    ensure!(
        first == (whole.verdict, whole.reason),
        "whole {:?} {:?}, the first {first:?}",
        whole.verdict,
        whole.reason
    );
    if !is_served(&whole) {
        for (outcome, number) in outcomes.iter().zip(order).skip(1) {
            ensure!(outcome.frame == pieces[number] && outcome.verdict == Verdict::Pass, "not left alone: {outcome:?}");
        }
        return Ok(false);
    }
    let reason = if hook.is_ingress() { Reason::FragmentFollowed } else { Reason::ReplyFragment };
    for outcome in &outcomes[1..] {
        let got = (outcome.verdict, outcome.reason);
        ensure!(got == (whole.verdict, Some(reason)), "a later fragment came out as {got:?}");
    }
    let joined = join(&outcomes.into_iter().map(|outcome| outcome.frame).collect::<Vec<_>>());
    ensure!(joined == whole.frame, "became\n{}", super::describe::describe(&joined));
    Ok(true)
}

/// A later fragment that comes first takes the whole datagram to the stack, unless XDP has tc behind it, which then meets
/// it after the first.
fn check_overtaken(runner: &mut impl Runner, datagram: &Datagram) -> Result<()> {
    let Datagram { hook, frame, given } = datagram;
    let whole = alone(runner.tables(), datagram);
    let pieces = split(frame, SIZE, IDENTIFICATION);
    runner.begin(given)?;
    let early = runner.run(*hook, &pieces[1])?;
    let decides = matches!(hook, Hook::Tc | Hook::XdpAlone);
    let reason = if decides { Reason::FragmentEarly } else { Reason::Fragment };
    let expected = Outcome { verdict: Verdict::Pass, reason: Some(reason), frame: pieces[1].clone() };
    ensure!(early == expected, "the early one: {early:?}");
    for number in [0, 2] {
        let outcome = runner.run(*hook, &pieces[number])?;
        if decides {
            let left =
                Outcome { reason: Some(Reason::FragmentLeft), frame: pieces[number].clone(), ..expected.clone() };
            ensure!(outcome == left, "fragment {number} was not left: {outcome:?}");
        } else if number == 0 {
            ensure!(outcome.reason == whole.reason, "the first one: {outcome:?}");
        }
    }
    Ok(())
}

fn is_served(outcome: &Outcome) -> bool {
    outcome.reason.is_some_and(|reason| reason.disposition() == Disposition::Forward)
}

/// What the path makes of the whole.
fn alone(tables: &MemoryTables, datagram: &Datagram) -> Outcome {
    let tables = tables.clone();
    flows::set(&tables, &datagram.given);
    host::run(&tables, datagram.hook, &datagram.frame)
}
