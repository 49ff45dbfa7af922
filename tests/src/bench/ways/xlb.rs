//! xlb in front of the pod.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xlb_userspace::agent::report::Report;

use super::services::{self, VIP_PORT};
use super::{Mode, POD, POD_PORT};
use crate::lab::{
    Agent, Cgroup, EndpointSpec, Lab, Manifests, ServiceSpec, SliceSpec, Version, service_yaml, slice_yaml, wait_for,
};

/// Within this time the agent has to serve everything.
const PATIENCE: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "team";

/// A running agent. Its parts end in the order of the fields.
pub struct Balancer {
    _agent: Agent,
    _manifests: Manifests,
    /// Labs share the machine: programs that follow sockets must not cost those of other labs anything.
    cgroup: Cgroup,
}

impl Balancer {
    /// When this returns, packets for the VIP go to the pod, and with XDP past tc.
    pub fn start(lab: &Lab, mode: Mode, services: u32) -> Result<Balancer> {
        let manifests = Manifests::new()?;
        manifests.write("services.yaml", &yaml(lab, services))?;
        let cgroup = Cgroup::empty()?;
        let path = cgroup.path().display().to_string();
        let (xdp, delivery) = match mode {
            Mode::Direct => ("off", "direct"),
            Mode::Stack => ("off", "stack"),
            Mode::DirectByXdp => ("native", "direct"),
        };
        let arguments = ["--xdp", xdp, "--delivery", delivery, "--cgroup", &path];
        let mut agent = Agent::start(lab, manifests.path(), &arguments)?;
        wait_in_sync(lab, &agent)?;
        agent.wait_until(|maps| is_served(maps, lab, mode == Mode::DirectByXdp));
        Ok(Balancer { _agent: agent, _manifests: manifests, cgroup })
    }

    /// Whose sockets it follows.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }
}

fn wait_in_sync(lab: &Lab, agent: &Agent) -> Result<()> {
    let is_in_sync = |report: Report| Some(report.pid) == agent.process() && report.in_sync_at_s > 0;
    let said = wait_for(PATIENCE, || Report::read(&lab.pin_directory()).is_some_and(is_in_sync).then_some(()));
    said.with_context(|| format!("not in sync within {PATIENCE:?}; its log:\n{}", agent.log()))
}

/// Whether the measured Service leads to the pod; XDP needs the pod's MAC as well.
fn is_served(maps: &Value, lab: &Lab, by_xdp: bool) -> bool {
    let list = |name: &str| maps[name].as_array().into_iter().flatten();
    let measured = list("services").filter(|service| {
        let name = service["name"].as_str().unwrap_or_default();
        name.starts_with(&format!("{NAMESPACE}/measured:")) && service["backends"][0].is_object()
    });
    measured.count() == 2 * lab.versions().len()
        && (!by_xdp || list("backends").all(|backend| backend["takes_xdp"] == true))
}

/// The measured Service, and the others.
fn yaml(lab: &Lab, services: u32) -> String {
    let vips: Vec<IpAddr> = lab.versions().iter().map(|&version| lab.vip_in(version, 0)).collect();
    let documents = (1..services).map(|number| {
        let others: Vec<_> = lab.versions().iter().map(|&version| services::other(lab, version, number)).collect();
        let vips: Vec<IpAddr> = others.iter().map(|other| other.vip).collect();
        document(lab, &others[0].name, &vips, &[("tcp", "TCP", others[0].endpoint.port())])
    });
    let measured = document(lab, "measured", &vips, &[("tcp", "TCP", POD_PORT), ("udp", "UDP", POD_PORT)]);
    [measured].into_iter().chain(documents).collect::<Vec<_>>().join("---\n")
}

fn document(lab: &Lab, name: &str, vips: &[IpAddr], target_ports: &[(&str, &str, u16)]) -> String {
    let ports: Vec<_> = target_ports.iter().map(|&(name, protocol, _)| (name, protocol, VIP_PORT)).collect();
    let pod = |&version: &Version| EndpointSpec::ready(lab.pod_address_in(version, POD));
    let endpoints: Vec<EndpointSpec> = lab.versions().iter().map(pod).collect();
    let service =
        ServiceSpec { namespace: NAMESPACE, name, vips, ports: &ports, local_policy: true, ..ServiceSpec::default() };
    let slices = SliceSpec { namespace: NAMESPACE, service: name, ports: target_ports, endpoints: &endpoints };
    format!("{}---\n{}", service_yaml(&service), slice_yaml(&slices))
}
