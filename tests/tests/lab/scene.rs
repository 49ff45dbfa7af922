//! What most tests start from: a lab whose pods serve, one Service in front of them, and an agent on the node.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_common::Reason;
use xlb_tests::kernel::frame::Spec;
use xlb_tests::lab::{
    Agent, EndpointSpec, Greeting, Lab, LabSpec, LineClient, Manifests, ServiceSpec, SliceSpec, TcpServer, UdpClient,
    UdpServer, Version, send_frame, service_yaml, slice_yaml, wait_for,
};

/// Where the VIP speaks TCP to clients that begin, and UDP.
pub const PORT: u16 = 80;
/// Where the VIP speaks TCP and the pod begins.
pub const BANNER_PORT: u16 = 81;
/// The pods' side of [`PORT`].
pub const TARGET_PORT: u16 = 8080;
/// The pods' side of [`BANNER_PORT`].
pub const BANNER_TARGET_PORT: u16 = 8081;

/// The Service's ports, and those of its endpoints.
pub const PORTS: [(&str, &str, u16); 3] = [("http", "TCP", PORT), ("banner", "TCP", BANNER_PORT), ("udp", "UDP", PORT)];
pub const TARGET_PORTS: [(&str, &str, u16); 3] =
    [("http", "TCP", TARGET_PORT), ("banner", "TCP", BANNER_TARGET_PORT), ("udp", "UDP", TARGET_PORT)];
/// The Service's ports by the names that `xlb inspect` gives them.
const SERVICES: [(&str, u16); 3] = [
    ("default/web:http", TARGET_PORT),
    ("default/web:banner", BANNER_TARGET_PORT),
    ("default/web:udp/udp", TARGET_PORT),
];

/// Small maps: agents start faster, and there are many.
const SIZES: [&str; 8] =
    ["--max-flows", "16384", "--max-slots", "8192", "--max-backends", "256", "--max-frontends", "64"];

/// How long a client waits for an answer that must come.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client listens before it counts as silence.
pub const SILENCE: Duration = Duration::from_millis(300);
/// A connection that opened on the client's side is accepted by the pod within this time.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How packets reach pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Direct,
    Stack,
}

impl Delivery {
    pub const ALL: [Delivery; 2] = [Delivery::Direct, Delivery::Stack];

    /// The value of `--delivery`.
    pub fn name(self) -> &'static str {
        match self {
            Delivery::Direct => "direct",
            Delivery::Stack => "stack",
        }
    }
}

/// The program that meets packets first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Tc,
    XdpGeneric,
    XdpNative,
}

impl Door {
    pub const ALL: [Door; 3] = [Door::Tc, Door::XdpGeneric, Door::XdpNative];

    /// The value of `--xdp`.
    pub fn name(self) -> &'static str {
        match self {
            Door::Tc => "off",
            Door::XdpGeneric => "generic",
            Door::XdpNative => "native",
        }
    }

    /// Whether XDP hands packets to pods by itself. In native mode the pod's end of the link must be ready for it.
    fn redirects(self, delivery: Delivery, pod_gro: bool) -> bool {
        let takes_frames = match self {
            Door::Tc => false,
            Door::XdpGeneric => true,
            Door::XdpNative => pod_gro,
        };
        takes_frames && delivery == Delivery::Direct
    }

    /// Whether XDP sees packets for pods and leaves them to tc. Generic XDP has no tc behind it.
    pub fn leaves_to_tc(self, delivery: Delivery, pod_gro: bool) -> bool {
        self == Door::XdpNative && !self.redirects(delivery, pod_gro)
    }
}

/// A lab, its Service `default/web` at VIP 0, and the agent. They go in the order of the fields.
pub struct Scene {
    pub agent: Agent,
    pub manifests: Manifests,
    pub tcp: BTreeMap<usize, Arc<TcpServer>>,
    pub banner: BTreeMap<usize, Arc<TcpServer>>,
    pub udp: BTreeMap<usize, Arc<UdpServer>>,
    /// The IP version that clients speak.
    pub version: Version,
    pub lab: Lab,
}

/// An open connection, and the pod that has it.
pub struct Open {
    pub connection: LineClient,
    pub pod: usize,
}

impl Scene {
    /// All pods serve and are ready. In a dual-stack lab the Service has a VIP of each version, and clients speak IPv6.
    pub fn new(spec: LabSpec, delivery: Delivery, door: Door) -> Result<Scene> {
        Scene::on(Lab::new(spec)?, delivery, door, &[])
    }

    /// The same on a lab that was prepared.
    pub fn on(lab: Lab, delivery: Delivery, door: Door, arguments: &[&str]) -> Result<Scene> {
        let pods: Vec<usize> = lab.pods().collect();
        Scene::started(lab, delivery, door, arguments, &pods)
    }

    /// The same on a lab of whose pods only these are served at first.
    pub fn waiting_for(lab: Lab, delivery: Delivery, door: Door, takers: &[usize]) -> Result<Scene> {
        Scene::started(lab, delivery, door, &[], takers)
    }

    fn started(lab: Lab, delivery: Delivery, door: Door, arguments: &[&str], takers: &[usize]) -> Result<Scene> {
        println!("{:?} pods, {delivery:?}, {door:?}", lab.spec().pods);
        let manifests = Manifests::new()?;
        manifests.write("web.yaml", &web(&lab, false, &[]))?;
        let pods: Vec<usize> = lab.pods().collect();
        manifests.write("slice.yaml", &web_slice(&ready(&lab, &pods)))?;
        let agent = start_agent(&lab, &manifests, delivery, door, arguments)?;
        let (tcp, banner, udp) = Default::default();
        let version = if lab.spec().dual_stack { Version::V6 } else { Version::V4 };
        let mut scene = Scene { agent, manifests, tcp, banner, udp, version, lab };
        for &pod in &pods {
            scene.serve(pod)?;
        }
        scene.wait_for_takers(takers);
        if door.redirects(delivery, scene.lab.spec().pod_gro) {
            scene.wait_for_xdp();
        }
        Ok(scene)
    }

    /// The Service's address for TCP clients that begin, and for UDP.
    pub fn vip(&self) -> SocketAddr {
        SocketAddr::new(self.lab.vip_in(self.version, 0), PORT)
    }

    /// The Service's address for TCP clients that listen first.
    pub fn banner_vip(&self) -> SocketAddr {
        SocketAddr::new(self.lab.vip_in(self.version, 0), BANNER_PORT)
    }

    /// A pod's address in the version that clients speak.
    pub fn pod_address(&self, pod: usize) -> IpAddr {
        self.lab.pod_address_in(self.version, pod)
    }

    /// A new pod that serves. It is no endpoint yet.
    pub fn add_pod(&mut self) -> Result<usize> {
        let pod = self.lab.add_pod()?;
        self.serve(pod)?;
        Ok(pod)
    }

    /// A pod that serves, under the number and with the addresses of one that was removed.
    pub fn add_pod_again(&mut self, pod: usize) -> Result<()> {
        self.lab.add_pod_again(pod)?;
        self.serve(pod)
    }

    fn serve(&mut self, pod: usize) -> Result<()> {
        self.tcp.insert(pod, self.lab.serve_tcp(pod, TARGET_PORT, Greeting::OnRequest)?);
        self.banner.insert(pod, self.lab.serve_tcp(pod, BANNER_TARGET_PORT, Greeting::OnAccept)?);
        self.udp.insert(pod, self.lab.serve_udp(pod, TARGET_PORT)?);
        Ok(())
    }

    /// Publishes the Service with these further fields.
    pub fn set_service(&self, local_policy: bool, fields: &[&str]) -> Result<()> {
        self.manifests.write("web.yaml", &web(&self.lab, local_policy, fields))
    }

    /// Publishes these endpoints, and waits until exactly the `takers` among them get new connections.
    pub fn set_endpoints(&mut self, endpoints: &[EndpointSpec], takers: &[usize]) -> Result<()> {
        self.manifests.write("slice.yaml", &web_slice(endpoints))?;
        self.wait_for_takers(takers);
        Ok(())
    }

    /// Waits until exactly these pods get new connections.
    pub fn wait_for_takers(&mut self, pods: &[usize]) {
        let sockets = |port| pods.iter().map(|&pod| SocketAddr::new(self.pod_address(pod), port)).collect();
        let expected = SERVICES.map(|(name, port)| (service_name(name, self.version), sockets(port)));
        self.agent.wait_until(|maps| expected.iter().all(|(name, sockets)| takers(maps, name) == *sockets));
    }

    /// XDP needs the MACs of pods.
    fn wait_for_xdp(&mut self) {
        self.agent.wait_until(|maps| list(maps, "backends").all(|backend| backend["takes_xdp"] == true));
    }

    /// Opens a connection, checks who serves it and whom the pod sees, and closes it. Returns the pod.
    pub fn check_connection(&self, client: usize) -> Result<usize> {
        Ok(self.open(client)?.pod)
    }

    /// Opens a connection, checks who serves it and whom the pod sees, and keeps it open.
    pub fn open(&self, client: usize) -> Result<Open> {
        let mut connection = LineClient::connect(self.lab.client(client), self.vip())?;
        let pod = self.check_identity(&mut connection)?;
        Ok(Open { connection, pod })
    }

    /// Checks that a pod serves, and that it sees the client's own address. Returns the pod.
    pub fn check_identity(&self, connection: &mut LineClient) -> Result<usize> {
        let identity = connection.identity()?;
        let pod = pod_number(&identity.server)?;
        assert_eq!(identity.peer, connection.local_address()?);
        assert_eq!(identity.local, SocketAddr::new(self.pod_address(pod), TARGET_PORT));
        Ok(pod)
    }

    /// The same with one datagram of a connected socket, which hears an answer from the VIP only.
    pub fn check_datagram(&self, client: usize) -> Result<usize> {
        let socket = UdpClient::connect(self.lab.client(client), self.vip())?;
        let answer = socket.ask("hello", ANSWER_TIMEOUT)?;
        let (pod, rest) = answer.split_once(' ').context("an answer has three words")?;
        assert_eq!(rest, format!("{} hello", socket.local_address()?));
        pod_number(pod)
    }

    /// The pod that accepted a connection, which may not have said a word.
    pub fn pod_of(&self, connection: &LineClient) -> Result<usize> {
        let (client, to) = (connection.local_address()?, connection.stream().peer_addr()?);
        // To another port of the VIP the client may speak from the same port.
        let servers = if to.port() == BANNER_PORT { &self.banner } else { &self.tcp };
        let find = || servers.iter().find(|(_, server)| server.peers().contains(&client)).map(|(&pod, _)| pod);
        wait_for(ACCEPT_TIMEOUT, find).with_context(|| format!("no pod accepted {client} at {to}"))
    }

    /// Every reason's count.
    pub fn counters(&self) -> Result<Counters> {
        Ok(Counters(self.agent.inspect()?["counters"].clone()))
    }

    /// A packet as the router would send it to the first uplink; in the words of [`Spec::parse`].
    pub fn frame(&self, text: &str) -> Result<Spec> {
        frame(&self.lab, text)
    }

    /// Sends it.
    pub fn send(&self, frame: &Spec) -> Result<()> {
        send_frame(self.lab.router(), &self.lab.uplink(0).router_device, &frame.build())
    }
}

/// Packets and events by reason.
pub struct Counters(Value);

impl Counters {
    /// How often.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason.label()].as_u64().unwrap_or(0)
    }

    /// That none of these happened.
    pub fn assert_none(&self, reasons: &[Reason]) {
        for &reason in reasons {
            assert_eq!(self.of(reason), 0, "{reason:?} in {:#}", self.0);
        }
    }

    /// That each of these happened.
    pub fn assert_some(&self, reasons: &[Reason]) {
        for &reason in reasons {
            assert!(self.of(reason) > 0, "no {reason:?} in {:#}", self.0);
        }
    }
}

/// An agent on all uplinks, with small maps unless the arguments say how large they are.
pub fn start_agent(
    lab: &Lab,
    manifests: &Manifests,
    delivery: Delivery,
    door: Door,
    arguments: &[&str],
) -> Result<Agent> {
    let modes = ["--delivery", delivery.name(), "--xdp", door.name()];
    let sizes = SIZES.chunks(2).filter(|size| !arguments.contains(&size[0])).flatten().copied();
    let sizes: Vec<&str> = sizes.collect();
    Agent::start(lab, manifests.path(), &[&modes, &sizes[..], arguments].concat())
}

/// The Service `default/web` at VIP 0, in each IP version of the lab, with further fields of its spec.
pub fn web(lab: &Lab, local_policy: bool, fields: &[&str]) -> String {
    let vips: Vec<IpAddr> = lab.versions().iter().map(|&version| lab.vip_in(version, 0)).collect();
    let (namespace, name) = ("default", "web");
    service_yaml(&ServiceSpec { namespace, name, vips: &vips, ports: &PORTS, local_policy, fields })
}

/// Ready endpoints, in each IP version of the lab.
pub fn ready(lab: &Lab, pods: &[usize]) -> Vec<EndpointSpec> {
    let addresses = lab.versions().iter().flat_map(|&version| pods.iter().map(move |&pod| (version, pod)));
    addresses.map(|(version, pod)| EndpointSpec::ready(lab.pod_address_in(version, pod))).collect()
}

/// Its endpoints.
pub fn web_slice(endpoints: &[EndpointSpec]) -> String {
    slice_yaml(&SliceSpec { namespace: "default", service: "web", ports: &TARGET_PORTS, endpoints })
}

/// What `xlb inspect` calls a Service's port in an IP version.
pub fn service_name(name: &str, version: Version) -> String {
    let suffix = if version == Version::V6 { "/ipv6" } else { "" };
    format!("{name}{suffix}")
}

/// The backends of a Service port that get new connections.
pub fn takers(maps: &Value, service: &str) -> BTreeSet<SocketAddr> {
    let Some(view) = list(maps, "services").find(|view| view["name"] == service) else { return BTreeSet::new() };
    let backends = list(view, "backends").filter(|backend| view["slots"] == 0 || backend["slots"] != 0);
    backends.filter_map(|backend| backend["address"].as_str()?.parse().ok()).collect()
}

/// Whether a connection ended by a reset from the other side.
pub fn is_reset(error: &anyhow::Error) -> bool {
    matches!(kind(error), Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

/// Whether a client only waited in vain.
pub fn is_silence(error: &anyhow::Error) -> bool {
    matches!(kind(error), Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}

fn kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// A list in what `xlb inspect` says.
pub fn list<'a>(maps: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    maps[name].as_array().into_iter().flatten()
}

/// A packet as the router would send it to the first uplink; in the words of [`Spec::parse`].
pub fn frame(lab: &Lab, text: &str) -> Result<Spec> {
    let uplink = lab.uplink(0);
    let from = lab.router().link_address(&uplink.router_device)?;
    let to = lab.node().link_address(&uplink.node_device)?;
    Ok(Spec { from, to, ..Spec::parse(text)? })
}

/// The number in `pod-<number>`.
pub fn pod_number(name: &str) -> Result<usize> {
    let number = name.strip_prefix("pod-").with_context(|| format!("{name} is no pod"))?;
    number.parse().with_context(|| format!("reading {name}"))
}
