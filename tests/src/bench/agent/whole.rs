//! `xlb run` on the node of a lab, with the cluster behind an API server in the node's namespace.
//!
//! All local pods but those of the lab itself are routes to one pod: the agent finds each, and nobody asks them anything.

use anyhow::Result;

use super::Figure;
use super::churn::{CHANGES_PER_S, Probe, Watcher, churn, quantile};
use super::probed::ProbedFrontend;
use crate::bench::memory::maps::{Group, pinned};
use crate::bench::running::{Running, cluster};
use crate::lab::{Lab, LabSpec};
use crate::scale::{Scale, World};

/// Measures it once.
pub fn measure(scale: Scale, changes: u32) -> Result<Vec<Figure>> {
    let lab = Lab::new(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let mut world = World::new(scale);
    let server = cluster(&lab, &world)?;
    let probe = Probe { server: &server, vip: lab.vip(0), pods: [lab.pod_address(0), lab.pod_address(1)] };
    probe.begin();

    let running = Running::start(&lab, &server, scale.services + 1)?;
    let mut figures = vec![Figure::ms("agent: process started to in sync", running.in_sync_after)];
    figures.push(Figure::mib("agent: RSS after the start", running.resident("VmRSS")?));
    let frontend = ProbedFrontend::open(&lab.pin_directory(), lab.vip(0))?;
    let mut owner = frontend.owner()?;
    let mut watcher = Watcher::start(&probe, || {
        let now = frontend.owner()?;
        Ok(std::mem::replace(&mut owner, now) != now)
    })?;
    let cpu_before = running.cpu_time()?;
    let latencies = churn(&mut world, &mut watcher, changes)?;
    let cpu_per_s = (running.cpu_time()? - cpu_before) * CHANGES_PER_S / changes;
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
