//! `xlb run` on the node of a lab, with the cluster behind an API server in the node's namespace.
//!
//! All local pods but those of the lab itself are routes to one pod: the agent finds each, and nobody asks them anything.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Figure;
use super::probed::ProbedFrontend;
use crate::api::ApiServer;
use crate::bench::memory::maps::{Group, pinned};
use crate::bench::running::{PATIENCE, Running, cluster};
use crate::lab::{Lab, LabSpec};
use crate::scale::{NODE, Scale, World};

const CHANGES_PER_S: u32 = 500;
/// Every so many changes are one of the probe, whose effect is timed.
const PROBE_EVERY: u32 = 25;
/// Between two looks at the maps: what a latency is too long by, at most.
const LOOK_AT_MAPS_INTERVAL: Duration = Duration::from_micros(50);

/// Measures it once.
pub fn measure(scale: Scale, changes: u32) -> Result<Vec<Figure>> {
    let lab = Lab::new(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let mut world = World::new(scale);
    let server = cluster(&lab, &world)?;
    let probe = Probe { server: &server, lab: &lab };
    server.apply(&probe.service());
    probe.lead_to(0);

    let running = Running::start(&lab, &server, scale.services + 1)?;
    let mut figures = vec![Figure::ms("agent: process started to in sync", running.in_sync_after)];
    figures.push(Figure::mib("agent: RSS after the start", running.resident("VmRSS")?));
    let mut watcher = Watcher::start(&probe)?;
    let cpu_before = running.cpu_time()?;
    let mut latencies = churn(&mut world, &mut watcher, changes)?;
    let cpu_per_s = (running.cpu_time()? - cpu_before) * CHANGES_PER_S / changes;
    latencies.sort();
    figures.push(Figure::ms("agent: change sent to maps changed, p50", quantile(&latencies, 50)));
    figures.push(Figure::ms("agent: change sent to maps changed, p99", quantile(&latencies, 99)));
    figures.push(Figure::mib("agent: RSS after the churn", running.resident("VmRSS")?));
    figures.push(Figure::ms("agent: CPU time of the churn, per second", cpu_per_s));
    let maps = pinned(&lab.pin_directory())?;
    let growing: Vec<_> = maps.iter().filter(|map| map.group == Group::Services).collect();
    figures.extend(growing.iter().map(|map| Figure::mib(format!("map {}", map.name), map.bytes)));
    figures.push(Figure::mib("maps that grow with services", growing.iter().map(|map| map.bytes).sum()));
    Ok(figures)
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
