//! Changes at a steady rate, and how long those of one Service take to arrive.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::api::ApiServer;
use crate::bench::running::PATIENCE;
use crate::scale::{NODE, World};

/// Changes of the whole cluster.
pub const CHANGES_PER_S: u32 = 500;
/// Every so many changes are one of the probe, whose effect is timed.
const PROBE_EVERY: u32 = 25;
/// Between two looks: what a latency is too long by, at most.
const LOOK_INTERVAL: Duration = Duration::from_micros(50);

/// Lets changes happen at a steady rate, and times those of the probe. In order of size.
pub fn churn<Arrived>(world: &mut World, watcher: &mut Watcher<Arrived>, changes: u32) -> Result<Vec<Duration>>
where
    Arrived: FnMut() -> Result<bool>,
{
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
    watcher.latencies.sort();
    Ok(std::mem::take(&mut watcher.latencies))
}

/// Times how long the probe's changes take to arrive.
pub struct Watcher<'a, Arrived> {
    probe: &'a Probe<'a>,
    /// Whether the last change has arrived. Asked only while one is on its way.
    arrived: Arrived,
    pod: usize,
    pending: Option<Instant>,
    latencies: Vec<Duration>,
}

impl<'a, Arrived: FnMut() -> Result<bool>> Watcher<'a, Arrived> {
    /// A pod that left its Service lingers, as it lives: from its first move on the probe has slots.
    pub fn start(probe: &'a Probe<'a>, arrived: Arrived) -> Result<Self> {
        let mut watcher = Watcher { probe, arrived, pod: 0, pending: None, latencies: Vec::new() };
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

    fn look(&mut self) -> Result<()> {
        sleep(LOOK_INTERVAL);
        let Some(sent) = self.pending else { return Ok(()) };
        if (self.arrived)()? {
            self.pending = None;
            self.latencies.push(sent.elapsed());
        }
        ensure!(sent.elapsed() < PATIENCE, "a change did not arrive within {PATIENCE:?}");
        Ok(())
    }
}

/// A Service with one of two pods, now this one and now that.
pub struct Probe<'a> {
    /// Of the cluster.
    pub server: &'a ApiServer,
    /// Its address.
    pub vip: Ipv4Addr,
    /// Of which it has one.
    pub pods: [Ipv4Addr; 2],
}

impl Probe<'_> {
    /// The namespace of the Service and its slice.
    pub const NAMESPACE: &'static str = "probe";

    /// It is there, with its first pod.
    pub fn begin(&self) {
        self.server.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "probe", "namespace": Self::NAMESPACE },
            "spec": { "type": "LoadBalancer", "clusterIP": "172.29.0.1", "ports": [{ "name": "http", "port": 80 }] },
            "status": { "loadBalancer": { "ingress": [{ "ip": self.vip }] } },
        }));
        self.lead_to(0);
    }

    /// It gets a pod that it did not have, whichever it had.
    pub fn move_on(&self) {
        (0..self.pods.len()).for_each(|pod| self.lead_to(pod));
    }

    fn lead_to(&self, pod: usize) {
        let endpoint = json!({ "addresses": [self.pods[pod]], "nodeName": NODE });
        let label = json!({ "kubernetes.io/service-name": "probe" });
        self.server.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "probe-1", "namespace": Self::NAMESPACE, "labels": label },
            "ports": [{ "name": "http", "port": 8080 }], "endpoints": [endpoint],
        }));
    }
}

/// So many percent of them are not longer.
pub fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
