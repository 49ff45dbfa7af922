//! What the tests stand on: a dual-stack lab, Services in both IP versions, an agent, and servers in the pods.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use xlb_common::Reason;
use xlb_tests::lab::{
    Agent, EndpointSpec, Lab, Manifests, Program, ServiceSpec, SliceSpec, Version, service_yaml, slice_yaml,
};
use xlb_tests::servers;

/// Small maps: agents start faster, and there are many.
const SIZES: [&str; 8] =
    ["--max-flows", "16384", "--max-slots", "8192", "--max-backends", "256", "--max-frontends", "256"];

/// How packets reach pods: the values of `--delivery` and `--xdp`.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub delivery: &'static str,
    pub xdp: &'static str,
}

/// A Service with a VIP of each IP version; its endpoints are the lab's first pods.
#[derive(Clone, Debug, Default)]
pub struct Served<'a> {
    pub name: &'a str,
    /// Name, protocol, port, and port on the pods.
    pub ports: &'a [(&'a str, &'a str, u16, u16)],
    pub pods: usize,
    pub local_policy: bool,
    /// Further lines of its spec.
    pub fields: &'a [&'a str],
}

/// They go in the order of the fields.
pub struct Stage {
    pub agent: Agent,
    pub programs: Vec<Program>,
    _manifests: Manifests,
    pub files: TempDir,
    pub lab: Lab,
}

impl Stage {
    /// The Services have the lab's VIPs in their order. When this returns, packets for them go to pods.
    pub fn new(lab: Lab, way: Way, services: &[Served], arguments: &[&str]) -> Result<Stage> {
        println!("{way:?}");
        let manifests = Manifests::new()?;
        for (number, service) in services.iter().enumerate() {
            manifests.write(&format!("{}.yaml", service.name), &yaml(&lab, number, service))?;
        }
        let files = tempfile::Builder::new().prefix("xlb-programs-").tempdir().context("making a directory")?;
        let modes = ["--delivery", way.delivery, "--xdp", way.xdp];
        let mut agent = Agent::start(&lab, manifests.path(), &[&modes, &SIZES[..], arguments].concat())?;
        let expected: usize = services.iter().map(|service| 2 * service.ports.len()).sum();
        let is_direct_by_xdp = way.delivery == "direct" && way.xdp != "off";
        agent.wait_until(|maps| {
            let are_served = list(maps, "services").filter(|service| is_served(service)).count() == expected;
            let are_ready = !is_direct_by_xdp || list(maps, "backends").all(|backend| backend["takes_xdp"] == true);
            are_served && are_ready
        });
        Ok(Stage { agent, programs: Vec::new(), _manifests: manifests, files, lab })
    }

    /// nginx in each pod, with these locations; `FILES` in them is the directory of the pod's files.
    pub fn serve_http(&mut self, locations: &str) -> Result<()> {
        for pod in self.lab.pods() {
            let (name, directory) = (pod_name(pod), self.directory(pod)?);
            let locations = locations.replace("FILES", &directory.display().to_string());
            self.programs.push(servers::nginx(self.lab.pod(pod), &name, &directory, &locations)?);
        }
        Ok(())
    }

    /// dnsmasq in each pod, with these TXT records.
    pub fn serve_dns(&mut self, records: &[(&str, &str)]) -> Result<()> {
        for pod in self.lab.pods() {
            let (name, directory) = (pod_name(pod), self.directory(pod)?);
            self.programs.push(servers::dnsmasq(self.lab.pod(pod), &name, &directory, records)?);
        }
        Ok(())
    }

    /// The directory of a pod's files.
    pub fn directory(&self, pod: usize) -> Result<PathBuf> {
        let path = self.files.path().join(pod_name(pod));
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// The VIP of the Service with this number.
    pub fn vip(&self, version: Version, number: usize) -> IpAddr {
        self.lab.vip_in(version, number)
    }

    /// How often something happened.
    pub fn count(&self, reason: Reason) -> Result<u64> {
        Ok(self.agent.inspect()?["counters"][reason.label()].as_u64().unwrap_or(0))
    }
}

/// What a pod's servers call it.
pub fn pod_name(pod: usize) -> String {
    format!("pod-{pod}")
}

/// An address as URLs have it.
pub fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn yaml(lab: &Lab, number: usize, served: &Served) -> String {
    let (namespace, name) = ("default", served.name);
    let vips = Version::ALL.map(|version| lab.vip_in(version, number));
    let ports: Vec<_> = served.ports.iter().map(|&(name, protocol, port, _)| (name, protocol, port)).collect();
    let target_ports: Vec<_> = served.ports.iter().map(|&(name, protocol, _, port)| (name, protocol, port)).collect();
    let addresses = Version::ALL.iter().flat_map(|&version| (0..served.pods).map(move |pod| (version, pod)));
    let endpoints: Vec<_> =
        addresses.map(|(version, pod)| EndpointSpec::ready(lab.pod_address_in(version, pod))).collect();
    let service = ServiceSpec {
        namespace,
        name,
        vips: &vips,
        ports: &ports,
        local_policy: served.local_policy,
        fields: served.fields,
    };
    let slices = SliceSpec { namespace, service: name, ports: &target_ports, endpoints: &endpoints };
    format!("{}---\n{}", service_yaml(&service), slice_yaml(&slices))
}

fn is_served(service: &Value) -> bool {
    service["frontends"][0].is_string() && service["backends"][0].is_object()
}

fn list<'a>(maps: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    maps[name].as_array().into_iter().flatten()
}
