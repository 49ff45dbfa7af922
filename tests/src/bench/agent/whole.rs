//! `xlb run` on the node of a lab, with the cluster behind an API server in the node's namespace.
//!
//! All local pods but those of the lab itself are routes to one pod: the agent finds each, and nobody asks them anything.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Figure;
use super::maps::{ProbedFrontend, map_bytes};
use crate::api::ApiServer;
use crate::lab::{Agent, Cgroup, Lab, LabSpec};
use crate::scale::{NODE, Scale, World};

const CHANGES_PER_S: u32 = 500;
/// Every so many changes are one of the probe, whose effect is timed.
const PROBE_EVERY: u32 = 25;
/// Within this time the agent has to be in sync, or a change in the maps.
const PATIENCE: Duration = Duration::from_secs(120);
/// USER_HZ, the unit of proc(5).
const TICKS_PER_S: u64 = 100;
/// Between two looks at the agent's log.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Between two looks at the maps: what a latency is too long by, at most.
const LOOK_AT_MAPS_INTERVAL: Duration = Duration::from_micros(50);

/// Measures it once.
pub fn measure(scale: Scale, changes: u32) -> Result<Vec<Figure>> {
    let lab = Lab::new(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let mut world = World::new(scale);
    route_pods(&lab, &world)?;
    let server = ApiServer::new();
    server.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } }));
    server.apply_all(world.objects());
    let probe = Probe { server: &server, lab: &lab };
    server.apply(&probe.service());
    probe.lead_to(0);

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listening = server.serve(lab.node().run(|| TcpListener::bind(address))?)?;
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    listening.write_kubeconfig(&kubeconfig)?;

    let cgroup = Cgroup::enter()?;
    let started = Instant::now();
    let [kubeconfig, path] = [&kubeconfig, cgroup.path()].map(|path| path.display().to_string());
    let inside = ["--clients-inside", "on", "--cgroup", &path];
    let agent = Agent::start_with(&lab, &[&["--kubeconfig", &kubeconfig], &inside[..]].concat())?;
    wait_in_sync(&agent, scale.services + 1)?;
    let mut figures = vec![Figure::ms("agent: process started to in sync", started.elapsed())];
    figures.push(Figure::mib("agent: RSS after the start", resident(&agent)?));
    let mut watcher = Watcher::start(&probe)?;
    let cpu_before = cpu_time(&agent)?;
    let mut latencies = churn(&mut world, &mut watcher, changes)?;
    let cpu_per_s = (cpu_time(&agent)? - cpu_before) * CHANGES_PER_S / changes;
    latencies.sort();
    figures.push(Figure::ms("agent: change sent to maps changed, p50", quantile(&latencies, 50)));
    figures.push(Figure::ms("agent: change sent to maps changed, p99", quantile(&latencies, 99)));
    figures.push(Figure::mib("agent: RSS after the churn", resident(&agent)?));
    figures.push(Figure::ms("agent: CPU time of the churn, per second", cpu_per_s));
    figures.extend(map_bytes(&lab.pin_directory())?.into_iter().map(|(name, bytes)| Figure::mib(name, bytes)));
    Ok(figures)
}

/// The local pods of the cluster, behind the first pod of the lab.
fn route_pods(lab: &Lab, world: &World) -> Result<()> {
    let device = lab.pod_host_end(0);
    let mut lines = String::new();
    for pod in world.local_pods() {
        writeln!(lines, "route add {pod}/32 dev {device}")?;
    }
    lab.node().ip(&lines)
}

fn wait_in_sync(agent: &Agent, services: u32) -> Result<()> {
    let sentence = format!("in sync: {services} services");
    let give_up = Instant::now() + PATIENCE;
    while !agent.log().contains(&sentence) {
        ensure!(Instant::now() < give_up, "not in sync within {PATIENCE:?}; its log:\n{}", agent.log());
        sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// Lets changes happen at a steady rate, and times those of the probe.
fn churn(world: &mut World, watcher: &mut Watcher, changes: u32) -> Result<Vec<Duration>> {
    let begun = Instant::now();
    for number in 0..changes {
        let due = begun + Duration::from_secs(1) * number / CHANGES_PER_S;
        while Instant::now() < due {
            watcher.look()?;
        }
        match number % PROBE_EVERY == 0 && watcher.pending.is_none() {
            true => watcher.move_probe(),
            false => world.change().send(watcher.probe.server),
        }
    }
    watcher.wait()?;
    Ok(std::mem::take(&mut watcher.latencies))
}

/// Times how long the probe's changes take to reach the maps.
struct Watcher<'a> {
    probe: &'a Probe<'a>,
    frontend: ProbedFrontend,
    pod: usize,
    owner: Option<u8>,
    pending: Option<Instant>,
    latencies: Vec<Duration>,
}

impl<'a> Watcher<'a> {
    /// A pod that left its Service lingers, as it lives: from its first move on the probe has slots.
    fn start(probe: &'a Probe<'a>) -> Result<Watcher<'a>> {
        let frontend = ProbedFrontend::open(&probe.lab.pin_directory(), probe.lab.vip(0))?;
        let owner = frontend.owner()?;
        let mut watcher = Watcher { probe, frontend, pod: 0, owner, pending: None, latencies: Vec::new() };
        watcher.move_probe();
        watcher.wait()?;
        watcher.latencies.clear();
        Ok(watcher)
    }

    fn move_probe(&mut self) {
        self.pod = 1 - self.pod;
        self.pending = Some(Instant::now());
        self.probe.lead_to(self.pod);
    }

    fn wait(&mut self) -> Result<()> {
        while self.pending.is_some() {
            self.look()?;
        }
        Ok(())
    }

    /// Whether the change that is waited for has arrived.
    fn look(&mut self) -> Result<()> {
        sleep(LOOK_AT_MAPS_INTERVAL);
        let Some(sent) = self.pending else { return Ok(()) };
        let now = self.frontend.owner()?;
        if now != self.owner {
            (self.owner, self.pending) = (now, None);
            self.latencies.push(sent.elapsed());
        }
        ensure!(sent.elapsed() < PATIENCE, "a change did not reach the maps within {PATIENCE:?}");
        Ok(())
    }
}

/// A Service with one pod of the lab, now this one and now that.
struct Probe<'a> {
    server: &'a ApiServer,
    lab: &'a Lab,
}

impl Probe<'_> {
    fn service(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "probe", "namespace": "probe" },
            "spec": { "type": "LoadBalancer", "clusterIP": "172.29.0.1", "ports": [{ "name": "http", "port": 80 }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": self.lab.vip(0) }] } },
        })
    }

    fn lead_to(&self, pod: usize) {
        let endpoint = json!({ "addresses": [self.lab.pod_address(pod)], "nodeName": NODE });
        let label = json!({ "kubernetes.io/service-name": "probe" });
        self.server.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "probe-1", "namespace": "probe", "labels": label },
            "ports": [{ "name": "http", "port": 8080 }], "endpoints": [endpoint],
        }));
    }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Bytes of the agent that are in memory.
fn resident(agent: &Agent) -> Result<u64> {
    let status = process_file(agent, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("reading VmRSS")?;
    Ok(kib * 1024)
}

/// CPU time that the agent has used, in user and kernel mode.
fn cpu_time(agent: &Agent) -> Result<Duration> {
    let stat = process_file(agent, "stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    // utime and stime are the fields 14 and 15 of proc(5); the name is the second.
    let ticks: u64 =
        fields.get(11..13).context("a short stat")?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_S))
}

fn process_file(agent: &Agent, name: &str) -> Result<String> {
    let path = format!("/proc/{}/{name}", agent.process().context("the agent does not run")?);
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}
