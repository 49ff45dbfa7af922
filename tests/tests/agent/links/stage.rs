//! A lab whose pods serve, an agent whose cgroup nobody is in, and the router as another node with a pod of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_tests::kernel::sample::Version;
use xlb_tests::lab::{
    Agent, Cgroup, EndpointSpec, Greeting, Lab, LabSpec, LineClient, Manifests, Namespace, ServiceSpec, SliceSpec,
    TcpServer, UdpServer, service_yaml, slice_yaml, udp_ask, udp_ask_unconnected, wait_for,
};

use crate::stage::{PORT, TARGET_PORT, with_sizes};

const PORTS: &[(&str, &str, u16)] = &[("http", "TCP", PORT), ("dns", "UDP", PORT)];
const TARGET_PORTS: &[(&str, &str, u16)] = &[("http", "TCP", TARGET_PORT), ("dns", "UDP", TARGET_PORT)];
const CLIENTS_INSIDE: &str = "--clients-inside";
/// How long a client waits.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long the agent may take.
pub const SOON: Duration = Duration::from_secs(40);
/// What the server of another node is called.
pub const ELSEWHERE: &str = "elsewhere";

/// The fields go in this order.
pub struct Stage {
    pub agent: Agent,
    pub manifests: Manifests,
    pub cgroup: Cgroup,
    pub elsewhere: (TcpServer, UdpServer),
    pub lab: Lab,
}

/// An endpoint of the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A pod of this node.
    Here(usize),
    /// A pod of this node that shuts down.
    Leaving(usize),
    /// The pod of another node.
    Elsewhere,
}

impl Stage {
    /// An agent that serves `default/web`, with policy Local, at the first VIP of each IP version of the lab.
    pub fn up(spec: LabSpec, endpoints: &[Endpoint], fields: &[&str]) -> Result<Stage> {
        Stage::with(spec, endpoints, fields, &[])
    }

    /// The same with more arguments.
    pub fn with(spec: LabSpec, endpoints: &[Endpoint], fields: &[&str], arguments: &[&str]) -> Result<Stage> {
        let mut lab = Lab::new(spec)?;
        for pod in lab.pods() {
            lab.serve_tcp(pod, TARGET_PORT, Greeting::OnRequest)?;
            lab.serve_udp(pod, TARGET_PORT)?;
        }
        route_pods(&lab)?;
        let any: IpAddr = if lab.spec().dual_stack { "::".parse()? } else { "0.0.0.0".parse()? };
        let elsewhere = (
            TcpServer::start(lab.router(), (any, TARGET_PORT), ELSEWHERE, Greeting::OnRequest)?,
            UdpServer::start(lab.router(), (any, TARGET_PORT), ELSEWHERE)?,
        );
        let manifests = Manifests::new()?;
        manifests.write("web.yaml", &web(&lab, "web", 0, endpoints, fields))?;
        let cgroup = Cgroup::empty()?;
        let path = cgroup.path().display().to_string();
        let inside = if arguments.contains(&CLIENTS_INSIDE) { &[][..] } else { &[CLIENTS_INSIDE, "on"] };
        let arguments = [inside, &["--cgroup", &path], arguments].concat();
        let mut agent = Agent::start(&lab, manifests.path(), &with_sizes(&arguments))?;
        let services = if arguments.contains(&"off") { 0 } else { PORTS.len() * lab.versions().len() };
        // A bridge may learn where a pod is only after the agent's start.
        agent.wait_until(|maps| {
            let found = insides(maps);
            maps["agent"]["is_running"] == true
                && found.len() == services
                && found.iter().all(|&it| it == endpoints.len())
        });
        Ok(Stage { agent, manifests, cgroup, elsewhere, lab })
    }

    /// Writes the Service anew, and waits until clients inside have so many endpoints, and so many that linger.
    pub fn publish(&mut self, endpoints: &[Endpoint], fields: &[&str], expected: (u64, u64)) -> Result<()> {
        self.manifests.write("web.yaml", &web(&self.lab, "web", 0, endpoints, fields))?;
        // Only datagrams need to know of an endpoint that lingers.
        self.agent.wait_until(|maps| {
            let services = maps["services"].as_array().into_iter().flatten();
            let insides: Vec<_> =
                services.map(|service| &service["inside"]).filter(|it| it["endpoints"].is_u64()).collect();
            let lingering = insides.iter().filter_map(|inside| inside["lingering"].as_u64()).max();
            insides.iter().all(|inside| inside["endpoints"] == expected.0) && lingering == Some(expected.1)
        });
        Ok(())
    }

    pub fn vip(&self, version: Version) -> SocketAddr {
        SocketAddr::new(self.lab.vip_in(version, 0), PORT)
    }

    /// A pod's address as its client port is seen by others.
    pub fn pod_address(&self, version: Version, pod: usize) -> IpAddr {
        self.lab.pod_address_in(version, pod)
    }

    /// Who answers a pod over TCP, over a connected and over an unconnected UDP socket, which all see the VIP.
    pub fn servers(&self, pod: usize, version: Version) -> Result<[String; 3]> {
        let (place, vip) = (self.lab.pod(pod), self.vip(version));
        let mut client = LineClient::connect(place, vip)?;
        assert_eq!(client.stream().peer_addr()?, vip);
        let connected = udp_ask(place, vip, "?", PATIENCE)?;
        let (unconnected, sender) = udp_ask_unconnected(place, vip, "?", PATIENCE)?;
        assert_eq!(sender, vip, "the answer to {}", place.name());
        Ok([client.identity()?.server, first_word(&connected), first_word(&unconnected)])
    }

    /// Who answers many connections of a pod.
    pub fn reached(&self, pod: usize, version: Version, connections: usize) -> Result<BTreeSet<String>> {
        (0..connections)
            .map(|_| Ok(LineClient::connect(self.lab.pod(pod), self.vip(version))?.identity()?.server))
            .collect()
    }

    /// What comes of connecting.
    pub fn connect(&self, from: &Namespace, version: Version) -> Result<(), ErrorKind> {
        let vip = self.vip(version);
        from.run(|| TcpStream::connect_timeout(&vip, PATIENCE)).map(drop).map_err(|error| error.kind())
    }

    /// A counter by its label.
    pub fn count(&self, label: &str) -> Result<u64> {
        Ok(self.agent.inspect()?["counters"][label].as_u64().unwrap_or(0))
    }

    /// Programs of links that are pinned, by interface: how many of both kinds.
    pub fn served_links(&self) -> Result<(usize, usize)> {
        let names = self.links()?;
        let of = |program: &str| names.iter().filter(|name| name.starts_with(program)).count();
        Ok((of("link_ingress-"), of("link_egress-")))
    }

    /// Names of the pinned links.
    pub fn links(&self) -> Result<Vec<String>> {
        let mut versions = fs::read_dir(self.lab.pin_directory())?;
        let directory = versions.next().context("no dataplane")??.path().join("links");
        let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    pub fn until(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        wait_for(SOON, || condition().then_some(())).with_context(|| format!("not yet: {what}"))
    }
}

pub fn first_word(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// A Service at a VIP, of all IP versions of the lab.
pub fn web(lab: &Lab, name: &str, vip: usize, endpoints: &[Endpoint], fields: &[&str]) -> String {
    let vips: Vec<IpAddr> = lab.versions().iter().map(|&version| lab.vip_in(version, vip)).collect();
    let endpoints: Vec<EndpointSpec> = lab
        .versions()
        .iter()
        .flat_map(|&version| endpoints.iter().map(move |&endpoint| endpoint_spec(lab, version, endpoint)))
        .collect();
    let service = ServiceSpec { namespace: "default", name, vips: &vips, ports: PORTS, local_policy: true, fields };
    let slice = SliceSpec { namespace: "default", service: name, ports: TARGET_PORTS, endpoints: &endpoints };
    format!("{}---\n{}", service_yaml(&service), slice_yaml(&slice))
}

fn endpoint_spec(lab: &Lab, version: Version, endpoint: Endpoint) -> EndpointSpec {
    match endpoint {
        Endpoint::Here(pod) => EndpointSpec::ready(lab.pod_address_in(version, pod)),
        Endpoint::Leaving(pod) => EndpointSpec::terminating(lab.pod_address_in(version, pod)),
        Endpoint::Elsewhere => {
            EndpointSpec { node: ELSEWHERE.to_owned(), ..EndpointSpec::ready(elsewhere(lab, version)) }
        }
    }
}

/// The address of the pod of another node.
pub fn elsewhere(lab: &Lab, version: Version) -> IpAddr {
    let uplink = lab.uplink(0);
    match version {
        Version::V4 => uplink.router_address.into(),
        Version::V6 => uplink.router_address_v6.into(),
    }
}

/// Other nodes know where the pods of this one are.
fn route_pods(lab: &Lab) -> Result<()> {
    lab.route_pods_from_router()?;
    if lab.spec().dual_stack {
        for pod in lab.pods() {
            let (address, node) = (lab.pod_address_in(Version::V6, pod), lab.uplink(0).node_address_v6);
            lab.router().ip(&format!("route add {address}/128 via {node}"))?;
        }
    }
    Ok(())
}

/// How many endpoints each Service has for clients inside.
fn insides(maps: &Value) -> Vec<usize> {
    let services = maps["services"].as_array().into_iter().flatten();
    services.filter_map(|service| service["inside"]["endpoints"].as_u64()).map(|it| it as usize).collect()
}
