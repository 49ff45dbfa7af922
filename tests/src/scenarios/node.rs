//! A node with an agent: objects come in, packets go through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use anyhow::{Result, ensure};
use xlb_common::Disposition;
use xlb_common::abi::{FlowKeyV4, TCP};
use xlb_common::memory::MemoryTables;
use xlb_common::parse::tcp_flags::{ACK, SYN};
use xlb_common::tables::Proof;
use xlb_userspace::agent::linger;
use xlb_userspace::model::objects::Service;
use xlb_userspace::model::{Cidr, DeliveryChoice, Model, Object, Policy, desired, pods_of_interest};
use xlb_userspace::node::{Location, NodeView, PodLink};
use xlb_userspace::plan::{Limits, Observed, plan};

use crate::kernel::frame::Spec;
use crate::kernel::host;
use crate::kernel::outcome::Hook;
use crate::kernel::sample::{UPLINK, UPLINK_MAC};

/// A node, its agent, and its maps.
#[derive(Default)]
pub struct Node {
    /// The node's name, zone and addresses; pods are added as they are asked for.
    pub view: NodeView,
    model: Model,
    observed: Observed,
    tables: MemoryTables,
}

/// One packet's flow.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Who sends.
    pub source: SocketAddrV4,
    /// To which address and port.
    pub destination: SocketAddrV4,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It reached this endpoint.
    Reached(SocketAddrV4),
    /// It was left alone.
    Passed,
    /// It ended here.
    Dropped,
}

impl Node {
    /// A node of that name.
    pub fn new(node_name: String, zone: String, addresses: BTreeSet<Ipv4Addr>) -> Self {
        let view = NodeView { node_name, zone: Some(zone), addresses, pods: BTreeMap::new() };
        Self { view, ..Self::default() }
    }

    /// The agent learns that these are all objects, and brings the maps up to date.
    pub fn learn(&mut self, objects: &[Object], now_ms: u64) -> Result<()> {
        for event in self.model.changes_to(objects) {
            self.model.apply(event);
        }
        let policy = allowing_every_external_ip(objects);
        let mut pods = pods_of_interest(&policy, &self.model, &self.view.node_name);
        pods.extend(linger::addresses(&self.observed));
        self.locate(pods);
        let mut desired = desired(&policy, &self.model, &self.view, DeliveryChoice::Auto);
        linger::keep_living(&mut desired, &self.observed, &self.view.pods);
        let plan = plan(&desired, &self.observed, &Limits::default(), now_ms);
        for op in &plan.ops {
            self.observed.apply(op, now_ms);
        }
        ensure!(plan.waiting.is_empty(), "the plan is not done in one round: {:?}", plan.waiting);
        self.load();
        Ok(())
    }

    /// Each pod has a link of its own, for as long as the case runs; pods with the node's address are on its network.
    fn locate(&mut self, pods: BTreeSet<Ipv4Addr>) {
        for pod in pods {
            let number = self.view.pods.len() as u32 + UPLINK + 1;
            let of_node = self.view.addresses.contains(&pod);
            let location = || if of_node { Location::Host } else { Location::Link(link(number)) };
            self.view.pods.entry(pod).or_insert_with(location);
        }
    }

    fn load(&mut self) {
        let observed = &self.observed;
        self.tables.uplinks = [(UPLINK, UPLINK_MAC)].into();
        self.tables.frontends = observed.frontends.clone();
        self.tables.members = observed.members.clone();
        self.tables.backends = observed.backends.clone();
        self.tables.backend_ids = observed.backend_ids.clone();
        let words = observed.slots.iter().flat_map(|(base, words)| (*base..).zip(words));
        self.tables.slots = words.map(|(index, word)| (index, word.0)).collect();
    }

    /// The first packet of a flow.
    pub fn open(&self, flow: Flow) -> Result<Outcome> {
        self.send(flow, if flow.protocol == TCP { SYN } else { 0 }, None)
    }

    /// A later packet of a flow.
    pub fn go_on(&self, flow: Flow) -> Result<Outcome> {
        self.send(flow, if flow.protocol == TCP { ACK } else { 0 }, None)
    }

    /// The endpoint takes up the flow that was opened: it answers, and its kernel has the connection.
    pub fn establish(&mut self, flow: Flow, endpoint: SocketAddrV4) -> Result<()> {
        self.answer(flow, endpoint, SYN | ACK)?;
        let key = FlowKeyV4 {
            client: flow.source.ip().octets(),
            pod: endpoint.ip().octets(),
            client_port: flow.source.port().to_be_bytes(),
            pod_port: endpoint.port().to_be_bytes(),
        };
        let backends = self.tables.backends.values().filter(|backend| backend.address[..4] == key.pod);
        let netns_ids: BTreeSet<i32> = backends.map(|backend| backend.netns_id).collect();
        self.tables.sockets.extend(netns_ids.into_iter().map(|netns_id| ((netns_id, key), Proof::Owned)));
        self.send(flow, ACK, None)?;
        self.answer(flow, endpoint, ACK)
    }

    /// A packet of the client, perhaps only its first bytes.
    pub fn send(&self, flow: Flow, flags: u8, cut_to: Option<usize>) -> Result<Outcome> {
        let mut frame = frame(flow.protocol, flow.source, flow.destination, flags);
        frame.truncate(cut_to.unwrap_or(frame.len()));
        let run = host::run(&self.tables, Hook::Tc, &frame);
        self.tables.stages.borrow_mut().clear();
        match run.reason.map(|reason| reason.disposition()) {
            Some(Disposition::Forward) => {
                let (source, destination) = ends(&run.frame);
                ensure!(source == flow.source, "the client's address became {source}");
                Ok(Outcome::Reached(destination))
            }
            Some(Disposition::Drop) => Ok(Outcome::Dropped),
            Some(Disposition::Pass) | None => {
                ensure!(run.frame == frame, "a packet that was passed on has changed");
                Ok(Outcome::Passed)
            }
        }
    }

    fn answer(&self, flow: Flow, endpoint: SocketAddrV4, flags: u8) -> Result<()> {
        let source = self.reply(Flow { source: endpoint, destination: flow.source, ..flow }, flags);
        ensure!(source == flow.destination, "the answer of {endpoint} leaves as {source}");
        Ok(())
    }

    /// A packet of a pod passes its link and the uplink: as whose it leaves.
    pub fn reply(&self, flow: Flow, flags: u8) -> SocketAddrV4 {
        let frame = frame(flow.protocol, flow.source, flow.destination, flags);
        let at_link = host::run(&self.tables, Hook::Pod, &frame);
        let last = if at_link.frame == frame { host::run(&self.tables, Hook::Egress, &frame) } else { at_link };
        self.tables.stages.borrow_mut().clear();
        ends(&last.frame).0
    }
}

/// The operator of a scenario lists every externalIP, each by itself.
fn allowing_every_external_ip(objects: &[Object]) -> Policy {
    let services = objects.iter().filter_map(|object| match object {
        Object::Service(service) => Some(service),
        _ => None,
    });
    let named: BTreeSet<IpAddr> = services.flat_map(|service: &Service| service.external_ips.clone()).collect();
    Policy { external_ip_cidrs: named.into_iter().map(Cidr::single).collect(), ..Policy::default() }
}

fn link(ifindex: u32) -> PodLink {
    PodLink {
        ifindex,
        name: format!("veth{ifindex}"),
        is_veth: true,
        netns_id: Some(ifindex as i32),
        host_mac: [2; 6],
        pod_mac: Some([4; 6]),
        takes_xdp_frames: false,
    }
}

fn frame(protocol: u8, source: SocketAddrV4, destination: SocketAddrV4, flags: u8) -> Vec<u8> {
    let end = |socket: SocketAddrV4| (socket.ip().octets(), socket.port());
    let data = if flags & SYN == 0 { 4 } else { 0 };
    Spec { flags, data, ..Spec::new(protocol, end(source), end(destination)) }.build()
}

/// Source and destination of a frame without IP options.
fn ends(frame: &[u8]) -> (SocketAddrV4, SocketAddrV4) {
    let end = |address: usize, port: usize| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|byte| frame[address + byte]);
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([frame[port], frame[port + 1]]))
    };
    (end(26, 34), end(30, 36))
}
