//! `xlb-bench restart`: what agents that end and begin, and the programs that they replace, cost the traffic: nothing.
//!
//! The same load runs twice: first with one agent that goes on (what the load itself loses), then while agents end, in
//! turn by SIGTERM and by SIGKILL, and others take over what they left.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::report::{Report, Row};
use crate::lab::{Lab, LabSpec};
use crate::load::connections::{Connections, Habits, Tally};
use crate::load::datagrams::{Count, Datagrams};
use crate::load::kernel::{Counters, IN_VAIN, NO_ROOM, RETRANSMITTED};
use crate::load::stage::Stage;
use crate::load::talk::Violation;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How often an agent ends and another begins.
    pub restarts: usize,
    /// Flows of datagrams of each client.
    pub flows: u64,
    /// Long-lived TCP connections of each client.
    pub connections: usize,
    /// How long the load runs without any restart first.
    pub quiet: Duration,
    /// Whether native XDP takes the packets, and tc only what XDP leaves to it.
    pub by_xdp: bool,
}

impl Terms {
    /// What the bench does, unless told otherwise.
    pub const TARGET: Terms =
        Terms { restarts: 1_000, flows: 16, connections: 32, quiet: Duration::from_secs(20), by_xdp: false };
}

const CLIENTS: usize = 2;
const PODS: usize = 4;
/// Between two datagrams of a flow.
const DATAGRAM_PACE: Duration = Duration::from_millis(20);
/// Of the connections; a message that is lost comes again long before.
const HABITS: Habits = Habits { pause: Duration::from_millis(20), patience: Duration::from_secs(20) };
/// Within this time all connections are open.
const OPENING: Duration = Duration::from_secs(60);

/// What the traffic of one part met.
pub struct Part {
    /// The datagrams.
    pub datagrams: Count,
    /// The connections.
    pub connections: Tally,
    /// TCP segments that were sent again.
    pub retransmitted: u64,
    /// Those of them that had not been lost.
    pub in_vain: u64,
    /// Datagrams that found no room at a socket of the load itself.
    pub no_room: u64,
}

/// Both parts, and what the restarts were.
pub struct Outcome {
    /// The load alone.
    pub quiet: Part,
    /// The load under restarts.
    pub restarted: Part,
    /// Restarts that were done; after each, every link had another program.
    pub restarts: usize,
    /// Links that were pinned.
    pub links: usize,
    /// From each start to the maps being in sync.
    pub starts: Vec<Duration>,
}

/// Measures it.
pub fn measure(terms: Terms) -> Result<Outcome> {
    let spec = LabSpec { clients: CLIENTS, pod_count: PODS, pod_gro: terms.by_xdp, ..LabSpec::default() };
    let door = if terms.by_xdp { "native" } else { "off" };
    let mut stage = Stage::new(Lab::new(spec)?, &["--xdp", door])?;
    let load = Load::start(&stage, terms)?;
    sleep(terms.quiet);
    let quiet = load.stop(&stage)?;

    let load = Load::start(&stage, terms)?;
    let starts = (0..terms.restarts).map(|number| restart(&mut stage, number)).collect::<Result<_>>()?;
    let restarted = load.stop(&stage)?;
    Ok(Outcome { quiet, restarted, restarts: terms.restarts, links: stage.programs()?.len(), starts })
}

/// One agent ends, another takes over; how long that one took.
fn restart(stage: &mut Stage, number: usize) -> Result<Duration> {
    match number % 2 {
        0 => ensure!(stage.agent.stop()?.success(), "the agent failed"),
        _ => stage.agent.kill()?,
    }
    let begun = Instant::now();
    stage.adopt().with_context(|| format!("restart {number}"))?;
    Ok(begun.elapsed())
}

struct Load {
    datagrams: Vec<Datagrams>,
    connections: Vec<Connections>,
    before: Counters,
}

impl Load {
    fn start(stage: &Stage, terms: Terms) -> Result<Load> {
        let vip = stage.vip();
        let connections: Vec<Connections> = stage
            .clients()
            .map(|client| Connections::start(client, vip, terms.connections, HABITS))
            .collect::<Result<_>>()?;
        let all = || connections.iter().map(Connections::open).sum::<usize>() == terms.connections * CLIENTS;
        let opened = crate::lab::wait_for(OPENING, || all().then_some(()));
        opened.with_context(|| format!("not all connections are open within {OPENING:?}"))?;
        let datagrams =
            stage.clients().map(|client| Datagrams::start(client, vip, terms.flows, DATAGRAM_PACE)).collect();
        Ok(Load { datagrams, connections, before: counters(stage)? })
    }

    fn stop(self, stage: &Stage) -> Result<Part> {
        let datagrams = self.datagrams.into_iter().map(Datagrams::stop).collect::<Result<Vec<_>>>()?;
        let connections = Connections::stop(self.connections)?;
        let (now, before) = (counters(stage)?, self.before);
        Ok(Part {
            datagrams: datagrams.into_iter().sum(),
            connections,
            retransmitted: now.grown(&before, RETRANSMITTED),
            in_vain: now.grown(&before, IN_VAIN),
            no_room: now.grown(&before, NO_ROOM),
        })
    }
}

/// Of both ends.
fn counters(stage: &Stage) -> Result<Counters> {
    Counters::of_all(stage.clients().chain(stage.pod_namespaces()))
}

impl Part {
    /// Datagrams without an answer, flows with two pods, and connections that went wrong.
    #[must_use]
    pub fn faults(&self) -> u64 {
        let Count { lost, moved, refused, .. } = self.datagrams;
        lost + moved + refused + self.connections.incidents.len() as u64 + self.connections.failed
    }

    fn rows(&self, part: &str, is_compared: bool) -> Vec<Row> {
        let (udp, tcp) = (self.datagrams, &self.connections);
        let broken = tcp.incidents.len() - tcp.of(Violation::Moved) - tcp.of(Violation::Foreign);
        let figures: [(&str, u64); 11] = [
            ("datagrams asked", udp.sent),
            ("datagrams lost", udp.lost),
            ("datagrams twice", udp.repeated),
            ("datagrams refused", udp.refused),
            ("datagrams without room at the socket", self.no_room),
            ("UDP flows moved", udp.moved),
            ("TCP messages answered", tcp.answered),
            ("TCP connections moved", (tcp.of(Violation::Moved) + tcp.of(Violation::Foreign)) as u64),
            ("TCP connections broken", broken as u64 + tcp.failed),
            ("TCP segments sent again", self.retransmitted),
            ("TCP segments sent again in vain", self.in_vain),
        ];
        let row = |(name, value): (&str, u64)| Row {
            name: format!("{part}: {name}"),
            unit: "count",
            rounds: vec![value as f64],
            baseline: is_compared.then(|| format!("{QUIET}: {name}")),
        };
        figures.into_iter().map(row).collect()
    }
}

const QUIET: &str = "quiet";

impl Outcome {
    /// The rows.
    #[must_use]
    pub fn report(&self) -> Report {
        let count = |name: &str, value: usize| Row {
            name: name.to_owned(),
            unit: "count",
            rounds: vec![value as f64],
            baseline: None,
        };
        let mut rows = self.quiet.rows(QUIET, false);
        rows.extend(self.restarted.rows("restarts", true));
        rows.push(count("restarts", self.restarts));
        rows.push(count("programs replaced", self.restarts * self.links));
        let starts = self.starts.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        rows.push(Row { name: "start to in sync".to_owned(), unit: "ms", rounds: starts, baseline: None });
        Report { rows }
    }
}
