//! A lab with one Service in front of pods that answer, and an agent that can be killed at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xlb_userspace::agent::report::Report;

use super::pod::PodServer;
use crate::lab::{
    Agent, EndpointSpec, Lab, Manifests, Namespace, ServiceSpec, SliceSpec, programs_of_links, service_yaml,
    slice_yaml, wait_for,
};

/// The VIP's port.
const PORT: u16 = 80;
/// The pods'.
pub const TARGET_PORT: u16 = 8_080;
const SERVICE: &str = "web";
const SLICE_FILE: &str = "slice.yaml";
/// Within this time an agent has to serve.
const PATIENCE: Duration = Duration::from_secs(120);

/// The parts, in the order in which they must end.
pub struct Stage {
    /// The agent on the node.
    pub agent: Agent,
    /// Servers by the number of their pod.
    pub pods: BTreeMap<usize, PodServer>,
    manifests: Manifests,
    /// The network.
    pub lab: Lab,
}

impl Stage {
    /// All pods serve. An agent that is asked to stop leaves everything in place.
    pub fn new(lab: Lab, arguments: &[&str]) -> Result<Stage> {
        let manifests = Manifests::new()?;
        manifests.write("service.yaml", &service(&lab))?;
        let numbers: Vec<usize> = lab.pods().collect();
        manifests.write(SLICE_FILE, &slice(&lab, &numbers, &[]))?;
        let pods = numbers.iter().map(|&pod| Ok((pod, serve(&lab, pod)?))).collect::<Result<_>>()?;
        let agent = Agent::start(&lab, manifests.path(), &[&["--keep-dataplane"], arguments].concat())?;
        let mut stage = Stage { agent, pods, manifests, lab };
        stage.wait_for_takers(&numbers);
        Ok(stage)
    }

    /// Where clients connect, and send to.
    #[must_use]
    pub fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.lab.vip(0).into(), PORT)
    }

    /// The clients' namespaces.
    pub fn clients(&self) -> impl Iterator<Item = &Namespace> {
        (0..self.lab.spec().clients).map(|index| self.lab.client(index))
    }

    /// The living pods' namespaces.
    pub fn pod_namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.lab.pods().map(|pod| self.lab.pod(pod))
    }

    /// A new pod that serves. It gets no connections until it is published.
    pub fn add_pod(&mut self) -> Result<usize> {
        let pod = self.lab.add_pod()?;
        self.pods.insert(pod, serve(&self.lab, pod)?);
        Ok(pod)
    }

    /// Says which pods are ready, and which are on their way out. The agent may take a while, or be dead.
    pub fn publish(&self, ready: &[usize], terminating: &[usize]) -> Result<()> {
        self.manifests.write(SLICE_FILE, &slice(&self.lab, ready, terminating))
    }

    /// Ends a pod whose connections have ended.
    pub fn remove_pod(&mut self, pod: usize) -> Result<()> {
        self.pods.remove(&pod);
        self.lab.remove_pod(pod)
    }

    /// Waits until exactly these pods get new connections.
    pub fn wait_for_takers(&mut self, pods: &[usize]) {
        let expected = pods.iter().map(|&pod| SocketAddr::new(self.lab.pod_address(pod).into(), TARGET_PORT)).collect();
        self.agent.wait_until(|maps| takers(maps) == expected);
    }

    /// Starts the agent that has ended, and waits until it has adopted what it found, with programs of its own.
    pub fn adopt(&mut self) -> Result<()> {
        let before = self.programs()?;
        self.agent.start_again()?;
        self.wait_in_sync()?;
        let now = self.programs()?;
        for (link, program) in &before {
            let is_replaced = now.get(link).is_some_and(|new| new != program);
            ensure!(is_replaced, "{link} has the program {program} after a restart: before {before:?}, now {now:?}");
        }
        Ok(())
    }

    /// Whether a pod gets new connections.
    pub fn takes(&self, pod: usize) -> Result<bool> {
        let address = SocketAddr::new(self.lab.pod_address(pod).into(), TARGET_PORT);
        Ok(takers(&self.agent.inspect()?).contains(&address))
    }

    /// Whether the running agent has said that the maps are as they should be.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        let is_its_word = |report: Report| Some(report.pid) == self.agent.process() && report.in_sync_at_s > 0;
        Report::read(&self.lab.pin_directory()).is_some_and(is_its_word)
    }

    fn wait_in_sync(&self) -> Result<()> {
        let in_sync = wait_for(PATIENCE, || self.is_in_sync().then_some(()));
        in_sync.with_context(|| format!("not in sync within {PATIENCE:?}; its log:\n{}", self.agent.log()))?;
        Ok(())
    }

    /// Each pinned link, by its name, with the id of the program that is in it.
    pub fn programs(&self) -> Result<BTreeMap<String, u32>> {
        programs_of_links(&self.lab.pin_directory())
    }
}

fn serve(lab: &Lab, pod: usize) -> Result<PodServer> {
    PodServer::start(lab.pod(pod), pod as u64, TARGET_PORT)
}

/// The backends that get new connections of any port.
fn takers(maps: &Value) -> BTreeSet<SocketAddr> {
    let services = maps["services"].as_array().into_iter().flatten();
    let takers = services.flat_map(|service| {
        let backends = service["backends"].as_array().into_iter().flatten();
        backends.filter(|backend| service["slots"] == 0 || backend["slots"] != 0)
    });
    takers.filter_map(|backend| backend["address"].as_str()?.parse().ok()).collect()
}

fn service(lab: &Lab) -> String {
    let (vips, ports) = ([IpAddr::V4(lab.vip(0))], [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]);
    let (namespace, name) = ("load", SERVICE);
    service_yaml(&ServiceSpec {
        namespace,
        name,
        vips: &vips,
        ports: &ports,
        local_policy: true,
        ..ServiceSpec::default()
    })
}

fn slice(lab: &Lab, ready: &[usize], terminating: &[usize]) -> String {
    let ready = ready.iter().map(|&pod| EndpointSpec::ready(lab.pod_address(pod)));
    let terminating = terminating.iter().map(|&pod| EndpointSpec::terminating(lab.pod_address(pod)));
    let endpoints: Vec<EndpointSpec> = ready.chain(terminating).collect();
    let ports = [("tcp", "TCP", TARGET_PORT), ("udp", "UDP", TARGET_PORT)];
    slice_yaml(&SliceSpec { namespace: "load", service: SERVICE, ports: &ports, endpoints: &endpoints })
}
