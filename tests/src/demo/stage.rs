//! Everything that the demo plays with: the lab, the pods' servers, the manifests and the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::interrupt::wait_until;
use super::servers::Servers;
use super::workplace::Workplace;
use crate::lab::{
    Agent, EndpointSpec, Lab, LabSpec, Manifests, Pattern, ServiceSpec, SliceSpec, service_yaml, slice_yaml,
};
use crate::servers::{DNS_TARGET_PORT, HTTP_TARGET_PORT};

/// The address of the Service.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The Service's HTTP port.
pub const HTTP_PORT: u16 = 80;
/// The Service's DNS port.
pub const DNS_PORT: u16 = 53;
/// Clients of the lab.
pub const CLIENTS: usize = 2;
/// Pods at the start.
pub const PODS: usize = 3;
/// The size of the file for downloads: at the 2 MiB/s of `/slow` it takes four seconds.
pub const CONTENT_BYTES: u64 = 8_000_000;

const NAMESPACE: &str = "demo";
const SERVICE: &str = "web";
/// The file of the EndpointSlice.
pub const SLICE_FILE: &str = "endpointslice.yaml";
/// The file of the Service.
pub const SERVICE_FILE: &str = "service.yaml";
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// The parts, in the order in which they must end.
pub struct Stage {
    /// The agent on the node.
    pub agent: Agent,
    /// Servers by the number of their pod.
    pub servers: BTreeMap<usize, Servers>,
    /// What the agent follows.
    pub manifests: Manifests,
    /// The network.
    pub lab: Lab,
    /// The files of all of them.
    pub workplace: Workplace,
}

/// The network with its servers, before there is a load balancer.
pub struct BareStage {
    servers: BTreeMap<usize, Servers>,
    /// The network.
    pub lab: Lab,
    workplace: Workplace,
}

impl BareStage {
    /// Builds the lab and starts the servers.
    pub fn build() -> Result<BareStage> {
        let workplace = Workplace::new()?;
        write_content(content_file(&workplace))?;
        let lab = Lab::new(LabSpec { pod_count: PODS, clients: CLIENTS, ..LabSpec::default() })?;
        let mut stage = BareStage { servers: BTreeMap::new(), lab, workplace };
        for pod in stage.lab.pods() {
            let servers = start_servers(&stage.lab, &stage.workplace, pod)?;
            stage.servers.insert(pod, servers);
        }
        Ok(stage)
    }

    /// Writes the manifests and starts the agent.
    pub fn balance(self) -> Result<Stage> {
        let BareStage { servers, lab, workplace } = self;
        let manifests = Manifests::new()?;
        manifests.write(SERVICE_FILE, &service())?;
        manifests.write(SLICE_FILE, &slice(&lab, &lab.pods().collect::<Vec<_>>(), &[]))?;
        let agent = Agent::start(&lab, manifests.path(), &[])?;
        Ok(Stage { agent, servers, manifests, lab, workplace })
    }
}

impl Stage {
    /// Waits until all pods get their share of new connections.
    pub fn wait_until_served(&self) -> Result<()> {
        self.wait_for_owners(&self.lab.pods().collect::<Vec<_>>())
    }

    /// Replaces the EndpointSlice, and waits until exactly the ready pods get new connections.
    pub fn publish(&self, ready: &[usize], terminating: &[usize]) -> Result<()> {
        self.manifests.write(SLICE_FILE, &slice(&self.lab, ready, terminating))?;
        self.wait_for_owners(ready)
    }

    /// Ends a pod as a crash does: servers, link and namespace go.
    pub fn kill_pod(&mut self, pod: usize) -> Result<()> {
        self.lab.remove_pod(pod)?;
        self.servers.remove(&pod);
        Ok(())
    }

    /// Adds a pod with its servers. It gets no connections until it is published.
    pub fn add_pod(&mut self) -> Result<usize> {
        let pod = self.lab.add_pod()?;
        self.servers.insert(pod, start_servers(&self.lab, &self.workplace, pod)?);
        Ok(pod)
    }

    /// The file where the agent's log goes, as the kernel knows it.
    pub fn agent_log(&self) -> Result<PathBuf> {
        let process = self.agent.process().context("the agent does not run")?;
        fs::read_link(format!("/proc/{process}/fd/2")).context("the agent has ended")
    }

    fn wait_for_owners(&self, ready: &[usize]) -> Result<()> {
        let owners = |port| ready.iter().map(|&pod| SocketAddrV4::new(self.lab.pod_address(pod), port)).collect();
        let (http, dns): (BTreeSet<_>, BTreeSet<_>) = (owners(HTTP_TARGET_PORT), owners(DNS_TARGET_PORT));
        wait_until(SYNC_TIMEOUT, "the agent brings the manifests into the kernel", || {
            if let Err(error) = self.agent_log() {
                return Some(Err(error));
            }
            let maps = self.agent.inspect().ok()?;
            let is_done = slot_owners(&maps, &format!("{VIP}:{HTTP_PORT}/tcp")) == http
                && slot_owners(&maps, &format!("{VIP}:{DNS_PORT}/udp")) == dns;
            is_done.then_some(Ok(()))
        })?
    }
}

/// The name that a pod's servers give.
pub fn pod_name(pod: usize) -> String {
    format!("pod-{pod}")
}

/// The backends that get new connections of a frontend.
fn slot_owners(maps: &Value, frontend: &str) -> BTreeSet<SocketAddrV4> {
    let services = maps["services"].as_array().into_iter().flatten();
    let mut services = services.filter(|service| has_frontend(service, frontend));
    let backends = services.next().and_then(|service| service["backends"].as_array());
    let owners = backends.into_iter().flatten().filter(|backend| backend["slots"].as_u64() > Some(0));
    owners.filter_map(|backend| backend["address"].as_str()?.parse().ok()).collect()
}

fn has_frontend(service: &Value, frontend: &str) -> bool {
    service["frontends"].as_array().is_some_and(|frontends| frontends.iter().any(|it| it == frontend))
}

fn service() -> String {
    let ports = [("http", "TCP", HTTP_PORT), ("dns", "UDP", DNS_PORT)];
    let (namespace, name, vips) = (NAMESPACE, SERVICE, &[VIP.into()]);
    service_yaml(&ServiceSpec { namespace, name, vips, ports: &ports, local_policy: true, ..ServiceSpec::default() })
}

fn slice(lab: &Lab, ready: &[usize], terminating: &[usize]) -> String {
    let ready = ready.iter().map(|&pod| EndpointSpec::ready(lab.pod_address(pod)));
    let terminating = terminating.iter().map(|&pod| EndpointSpec::terminating(lab.pod_address(pod)));
    let endpoints: Vec<EndpointSpec> = ready.chain(terminating).collect();
    let ports = [("http", "TCP", HTTP_TARGET_PORT), ("dns", "UDP", DNS_TARGET_PORT)];
    slice_yaml(&SliceSpec { namespace: NAMESPACE, service: SERVICE, ports: &ports, endpoints: &endpoints })
}

fn start_servers(lab: &Lab, workplace: &Workplace, pod: usize) -> Result<Servers> {
    let name = pod_name(pod);
    Servers::start(lab.pod(pod), &name, workplace.path().join(&name), &content_file(workplace))
}

fn content_file(workplace: &Workplace) -> PathBuf {
    workplace.path().join("content")
}

/// The content is the pattern that the lab's clients know, so that a download can be compared byte by byte.
fn write_content(path: PathBuf) -> Result<()> {
    let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    let mut pattern = Pattern::default();
    while pattern.position() < CONTENT_BYTES {
        file.write_all(pattern.next(CONTENT_BYTES - pattern.position()))?;
    }
    Ok(())
}
