//! `xlb-bench connections`: what many open connections notice of rolling updates, a flood of SYNs and a dying agent, all at
//! once: nothing, but that answers may be late.

#[path = "connections/trouble.rs"]
mod trouble;
#[path = "connections/rows.rs"]
mod rows;

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};

use crate::lab::{Lab, LabSpec, wait_for};
use crate::load::connections::{Connections, Habits, Tally};
use crate::load::flood::{Flood, Sent};
use crate::load::kernel::{Counters, RESETS_SENT, received};
use crate::load::newcomers::{Attempts, Newcomers};
use crate::load::pod::PodServer;
use crate::load::stage::{Stage, TARGET_PORT};
use crate::load::talk::{Incident, Violation};

use self::trouble::{Done, Trouble};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Connections that are open all the time, and seldom speak.
    pub connections: usize,
    /// Connections that speak ten times a second.
    pub streams: usize,
    /// How long the trouble lasts.
    pub trouble: Duration,
    /// SYNs a second; none: no flood.
    pub flood_per_s: u32,
    /// How long a pod that terminates keeps its connections.
    pub grace: Duration,
    /// A connection that waits longer for an answer hangs.
    pub patience: Duration,
    /// Whether native XDP takes the packets.
    pub by_xdp: bool,
}

impl Terms {
    /// What the bench does, unless told otherwise.
    pub const TARGET: Terms = Terms {
        connections: 100_000,
        streams: 200,
        trouble: Duration::from_secs(30),
        flood_per_s: 1_000_000,
        grace: Duration::from_secs(10),
        patience: Duration::from_secs(60),
        by_xdp: false,
    };
}

/// Clients, each with its own address and ports, and a process with its own limit of sockets; the last one's connections are
/// short.
const CLIENTS: usize = 9;
const PODS: usize = 10;
/// Questions a second of all connections that seldom speak, at most.
const QUESTIONS_PER_S: usize = 3_000;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const STREAM_PAUSE: Duration = Duration::from_millis(100);
/// Between two short connections.
const NEWCOMER_PACE: Duration = Duration::from_millis(50);
/// How long short connections are watched before the trouble, and how long all are after it.
const CALM: Duration = Duration::from_secs(4);
/// Opening takes about a tenth of a millisecond each on an idle machine.
const OPENING_PER_CONNECTION: Duration = Duration::from_millis(3);
const OPENING_MIN: Duration = Duration::from_secs(60);

/// What happened.
pub struct Outcome {
    /// How long it took until all connections were open.
    pub opening: Duration,
    /// The connections that are always open.
    pub connections: Tally,
    /// Short connections before the trouble.
    pub before: Attempts,
    /// And during it.
    pub during: Attempts,
    /// The same flood, sent to a pod that xlb does not know: what this machine can receive by routing alone.
    pub routed: Wave,
    /// The flood at the VIP.
    pub flood: Wave,
    /// What was done to pods and agents.
    pub done: Done,
    /// What the kernels of clients and pods counted from the trouble's beginning to the end.
    pub counters: (Counters, Counters),
    /// Resets of theirs that clients sent.
    pub resets_of_clients: u64,
    /// What xlb counted meanwhile, by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// A flood, and what came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wave {
    /// What was sent.
    pub sent: Sent,
    /// Packets that the uplink received meanwhile, those of connections among them.
    pub arrived: u64,
}

/// Measures it.
pub fn measure(terms: Terms) -> Result<Outcome> {
    let mut stage = stage(terms)?;
    let routed = routed(&mut stage, terms)?;
    let begun = Instant::now();
    let seats = open(&stage, terms)?;
    let opening = begun.elapsed();

    let newcomers = newcomers(&stage, terms);
    sleep(CALM);
    let before = newcomers.stop()?;

    let clients_before = Counters::of_all(stage.clients())?;
    let (counted, reasons_before) = (counters(&stage)?, reasons(&stage)?);
    let newcomers = self::newcomers(&stage, terms);
    let vip = SocketAddrV4::new(stage.lab.vip(0), stage.vip().port());
    let trouble = Trouble::new(&stage, terms.grace);
    let (flood, mut done) = under_flood(&mut stage, vip, terms, |stage| trouble.last(stage, terms.trouble))?;
    let during = newcomers.stop()?;

    done.settle(&mut stage)?;
    sleep(CALM);
    let connections = Connections::stop(seats)?;
    let counters = (counted, counters(&stage)?.plus(done.gone.clone()));
    let resets_of_clients = Counters::of_all(stage.clients())?.grown(&clients_before, RESETS_SENT);
    let mut reasons = reasons(&stage)?;
    reasons.retain(|reason, count| {
        *count -= reasons_before.get(reason).copied().unwrap_or_default().min(*count);
        *count > 0
    });
    Ok(Outcome { opening, connections, before, during, routed, flood, done, counters, resets_of_clients, reasons })
}

fn stage(terms: Terms) -> Result<Stage> {
    let spec = LabSpec { clients: CLIENTS, pod_count: PODS, pod_gro: terms.by_xdp, ..LabSpec::default() };
    let lab = Lab::new(spec)?;
    Flood::prepare(&lab)?;
    for client in 0..CLIENTS {
        lab.client(client).sysctl(&[("net.ipv4.ip_local_port_range", "1024 65535")])?;
    }
    Stage::new(lab, &["--xdp", if terms.by_xdp { "native" } else { "off" }])
}

/// Lets something be done while SYNs are sent to an address.
fn under_flood<T>(
    stage: &mut Stage,
    to: SocketAddrV4,
    terms: Terms,
    act: impl FnOnce(&mut Stage) -> Result<T>,
) -> Result<(Wave, T)> {
    let uplink = stage.lab.uplink(0).node_device.clone();
    let before = received(stage.lab.node(), &uplink)?;
    let flood = (terms.flood_per_s > 0).then(|| Flood::start(&stage.lab, to, terms.flood_per_s)).transpose()?;
    let done = act(stage)?;
    let sent = flood.map(Flood::stop).transpose()?.unwrap_or_default();
    Ok((Wave { sent, arrived: received(stage.lab.node(), &uplink)? - before }, done))
}

/// What arrives of the flood where the kernel routes it to a pod that no Service has.
fn routed(stage: &mut Stage, terms: Terms) -> Result<Wave> {
    let pod = stage.add_pod()?;
    let to = SocketAddrV4::new(stage.lab.pod_address(pod), TARGET_PORT);
    let wait = |_: &mut Stage| {
        sleep(CALM);
        Ok(())
    };
    let (wave, ()) = under_flood(stage, to, terms, wait)?;
    stage.remove_pod(pod)?;
    Ok(wave)
}

/// All connections, each with its pod's first answer.
fn open(stage: &Stage, terms: Terms) -> Result<Vec<Connections>> {
    let pause = Duration::from_secs_f64(terms.connections as f64 / QUESTIONS_PER_S as f64).max(PAUSE_MIN);
    let kinds = [(terms.connections, pause), (terms.streams, STREAM_PAUSE)];
    let clients: Vec<_> = stage.clients().take(CLIENTS - 1).enumerate().collect();
    let mut seats = Vec::new();
    for (count, pause) in kinds {
        let habits = Habits { pause, patience: terms.patience };
        for &(index, client) in &clients {
            let share = (count + index) / clients.len();
            seats.push(Connections::start(client, stage.vip(), share, habits)?);
        }
    }
    let (total, patience) = (terms.connections + terms.streams, OPENING_PER_CONNECTION * terms.connections as u32);
    let open = || seats.iter().map(Connections::open).sum::<usize>();
    let all = wait_for(patience.max(OPENING_MIN), || (open() == total).then_some(()));
    all.with_context(|| format!("{} of {total} connections are open after {patience:?}", open()))?;
    let at_pods = || stage.pods.values().map(PodServer::open_connections).sum::<usize>();
    let all_there = wait_for(OPENING_MIN, || (at_pods() >= total).then_some(()));
    all_there.with_context(|| format!("pods have {} connections of {total}", at_pods()))?;
    Ok(seats)
}

fn newcomers(stage: &Stage, terms: Terms) -> Newcomers {
    Newcomers::start(stage.lab.client(CLIENTS - 1), stage.vip(), NEWCOMER_PACE, terms.patience)
}

fn counters(stage: &Stage) -> Result<Counters> {
    Counters::of_all(stage.clients().chain(stage.pod_namespaces()))
}

/// xlb's own counters.
fn reasons(stage: &Stage) -> Result<BTreeMap<String, u64>> {
    let maps = stage.agent.inspect()?;
    let counters = maps["counters"].as_object().context("no counters")?;
    Ok(counters.iter().filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?))).collect())
}

impl Outcome {
    /// Everything that went wrong with a connection.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        let short = self.before.incidents.iter().chain(&self.during.incidents);
        self.connections.incidents.iter().chain(short)
    }

    /// The first incidents, and what was done when: in the order of time. Empty when nothing went wrong.
    #[must_use]
    pub fn story(&self, incidents_max: usize) -> String {
        let incidents = self.incidents().take(incidents_max);
        let mut events: Vec<(SystemTime, String)> = incidents.map(|it| (it.at, format!("{it:?}"))).collect();
        let Some(start) = self.done.diary.first().map(|(at, _)| *at).filter(|_| !events.is_empty()) else {
            return String::new();
        };
        events.extend(self.done.diary.clone());
        events.sort();
        let line = |(at, what): &(SystemTime, String)| {
            format!("{:>8.3} s  {what}\n", at.duration_since(start).unwrap_or_default().as_secs_f64())
        };
        events.iter().map(line).collect()
    }

    /// How often it went wrong so.
    #[must_use]
    pub fn of(&self, violation: Violation) -> usize {
        self.incidents().filter(|incident| incident.violation == violation).count()
    }

    /// Connections that a pod had accepted, and that moved, broke or hung.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.incidents().count() - self.of(Violation::Unanswered) - self.of(Violation::Refused)
    }
}
