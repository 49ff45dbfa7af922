//! A node with an agent: objects come in, packets go through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use xlb_common::Disposition;
use xlb_common::abi::{Frontend, Inside, TCP, UDP};
use xlb_common::memory::{FamilyTables, InMemory, MemoryTables};
use xlb_common::parse::tcp_flags::{ACK, SYN};
use xlb_common::tables::Proof;
use xlb_userspace::agent::handover::Handovers;
use xlb_userspace::agent::{ClientsInside, linger};
use xlb_userspace::maps::keys::Keys;
use xlb_userspace::model::{DeliveryChoice, IpNet, Model, Object, Policy, desired, pods_of_interest};
use xlb_userspace::node::{FamilyAddresses, Location, NodeView, PodLink};
use xlb_userspace::plan::desired::{Family, Protocol};
use xlb_userspace::plan::{Endpoint, Limits, Observed, plan};

use crate::kernel::flows::{FlowKey, stored};
use crate::kernel::frame::tag;
use crate::kernel::host;
use crate::kernel::outcome::{self, Hook};
use crate::kernel::sample::{UPLINK, UPLINK_MAC};
use crate::scenarios::frames::{ends, frame, is_report_to};
use crate::scenarios::in_kernel::InKernel;

/// A node, its agent, and its maps.
#[derive(Default)]
pub struct Node {
    /// The node's name, zone and addresses; pods are added as they are asked for.
    pub view: NodeView,
    model: Model,
    observed: Observed,
    pub(super) tables: MemoryTables,
    /// For how long kube-proxy's connections stay with it.
    pub handover: Duration,
    handovers: Handovers,
    /// What clients on the node get.
    pub clients_inside: ClientsInside,
    /// The same tables and packets in the kernel.
    kernel: Option<Rc<InKernel>>,
}

/// One packet's flow.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Who sends.
    pub source: SocketAddr,
    /// To which address and port.
    pub destination: SocketAddr,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It reached this endpoint.
    Reached(SocketAddr),
    /// It was left alone.
    Passed,
    /// It ended here.
    Dropped,
    /// Its sender was told that the port is unreachable.
    Rejected,
}

impl Node {
    /// A node of that name, whose packets go through the kernel as well, if there is one.
    pub fn new(node_name: String, zone: String, addresses: BTreeSet<IpAddr>, kernel: Option<Rc<InKernel>>) -> Self {
        if let Some(kernel) = &kernel {
            kernel.begin();
        }
        let primary =
            FamilyAddresses { v4: addresses.iter().find_map(ipv4_of), v6: addresses.iter().find_map(ipv6_of) };
        let view = NodeView { node_name, zone: Some(zone), addresses, primary, pods: BTreeMap::new() };
        Self { view, kernel, ..Self::default() }
    }

    /// The clock of the tables.
    pub fn set_time(&mut self, now_s: u64) {
        self.tables.now_ns = now_s.saturating_mul(1_000_000_000);
        self.is_ahead();
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
        self.clients_inside.narrow(&mut desired);
        self.handovers.limit(&mut desired, &self.observed, self.handover, now_ms);
        let plan = plan(&desired, &self.observed, &Limits::default(), now_ms);
        for op in &plan.ops {
            self.observed.apply(op, now_ms);
        }
        ensure!(plan.waiting.is_empty(), "the plan is not done in one round: {:?}", plan.waiting);
        self.load();
        self.is_ahead();
        Ok(())
    }

    /// The kernel's maps are not these tables any more.
    fn is_ahead(&self) {
        if let Some(kernel) = &self.kernel {
            kernel.is_behind();
        }
    }

    /// Each pod has a link of its own, for as long as the case runs; pods with the node's address are on its network.
    fn locate(&mut self, pods: BTreeSet<IpAddr>) {
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
        load_family(&mut self.tables.v4, observed);
        load_family(&mut self.tables.v6, observed);
        let FamilyAddresses { v4, v6 } = self.view.primary;
        self.tables.v4.report_addresses = v4.map(|own| (UPLINK, stored(own.into()))).into_iter().collect();
        self.tables.v6.report_addresses = v6.map(|own| (UPLINK, stored(own.into()))).into_iter().collect();
        self.tables.members = observed.members.iter().map(|(index, member)| (index, *member)).collect();
        self.tables.backends = observed.backends.iter().map(|(id, backend)| (id, *backend)).collect();
        let words = observed.slots.iter().flat_map(|(base, words)| (*base..).zip(words));
        self.tables.slots = words.map(|(index, word)| (index, word.0)).collect();
    }

    /// The first packet of a flow.
    pub fn open(&self, flow: Flow) -> Result<Outcome> {
        self.send(flow, if flow.protocol == UDP { 0 } else { SYN }, None)
    }

    /// The same without the kernel, which is told of it before its next packet.
    pub fn open_in_memory(&self, flow: Flow) -> Result<Outcome> {
        let frame = frame(flow.protocol, flow.source, flow.destination, if flow.protocol == UDP { 0 } else { SYN });
        let run = host::run(&self.tables, Hook::Tc, &frame);
        self.is_ahead();
        self.tables.stages.borrow_mut().clear();
        judged(flow, &frame, &run)
    }

    /// A later packet of a flow.
    pub fn go_on(&self, flow: Flow) -> Result<Outcome> {
        self.send(flow, if flow.protocol == UDP { 0 } else { ACK }, None)
    }

    /// The endpoint takes up the flow that was opened: it answers, and its kernel has the connection.
    pub fn establish(&mut self, flow: Flow, endpoint: SocketAddr) -> Result<()> {
        self.answer(flow, endpoint, SYN | ACK)?;
        let backends = self.tables.backends.values().filter(|backend| backend.socket().ip() == endpoint.ip());
        let netns_ids: BTreeSet<i32> = backends.map(|backend| backend.netns_id).collect();
        match FlowKey::between(flow.source, endpoint)? {
            FlowKey::V4(key) => self.tables.v4.sockets.extend(netns_ids.iter().map(|&id| ((id, key), Proof::Owned))),
            FlowKey::V6(key) => self.tables.v6.sockets.extend(netns_ids.iter().map(|&id| ((id, key), Proof::Owned))),
        }
        if let Some(kernel) = self.kernel.as_ref().filter(|_| flow.protocol == TCP) {
            kernel.connect(flow.source, endpoint)?;
        }
        self.send(flow, ACK, None)?;
        self.answer(flow, endpoint, ACK)
    }

    /// A packet of the client, perhaps only its first bytes.
    pub fn send(&self, flow: Flow, flags: u8, cut_to: Option<usize>) -> Result<Outcome> {
        let mut frame = frame(flow.protocol, flow.source, flow.destination, flags);
        frame.truncate(cut_to.unwrap_or(frame.len()));
        self.send_frame(flow, &frame)
    }

    /// The same with a VLAN tag.
    pub fn send_tagged(&self, flow: Flow, flags: u8, vlan: u16) -> Result<Outcome> {
        let frame = frame(flow.protocol, flow.source, flow.destination, flags);
        self.send_frame(flow, &[&frame[..12], &tag("vlan", vlan), &frame[12..]].concat())
    }

    fn send_frame(&self, flow: Flow, frame: &[u8]) -> Result<Outcome> {
        let run = self.run(Hook::Tc, frame)?;
        judged(flow, frame, &run)
    }

    fn answer(&self, flow: Flow, endpoint: SocketAddr, flags: u8) -> Result<()> {
        let source = self.reply(Flow { source: endpoint, destination: flow.source, ..flow }, flags)?;
        ensure!(source == flow.destination, "the answer of {endpoint} leaves as {source}");
        Ok(())
    }

    /// A packet of a pod passes its link and the uplink: as whose it leaves.
    pub fn reply(&self, flow: Flow, flags: u8) -> Result<SocketAddr> {
        let frame = frame(flow.protocol, flow.source, flow.destination, flags);
        let at_link = self.run(Hook::Pod, &frame)?;
        let last = if at_link.frame == frame { self.run(Hook::Egress, &frame)? } else { at_link };
        Ok(ends(&last.frame).0)
    }

    /// A frame of the client, whatever it is.
    pub fn run_frame(&self, frame: &[u8]) -> Result<outcome::Outcome> {
        self.run(Hook::Tc, frame)
    }

    /// A frame at a hook, in memory and in the kernel.
    pub(super) fn run(&self, hook: Hook, frame: &[u8]) -> Result<outcome::Outcome> {
        let run = match &self.kernel {
            Some(kernel) => kernel.run(&self.tables, hook, frame),
            None => Ok(host::run(&self.tables, hook, frame)),
        };
        self.tables.stages.borrow_mut().clear();
        run
    }
}

/// What became of the client's packet.
fn judged(flow: Flow, frame: &[u8], run: &outcome::Outcome) -> Result<Outcome> {
    match run.reason.map(|reason| reason.disposition()) {
        Some(Disposition::Forward) => {
            let (source, destination) = ends(&run.frame);
            ensure!(source == flow.source, "the client's address became {source}");
            Ok(Outcome::Reached(destination))
        }
        Some(Disposition::Drop) => Ok(Outcome::Dropped),
        Some(Disposition::Reply) => {
            ensure!(is_report_to(&run.frame, flow.source.ip()), "what was sent back is no report to the client");
            Ok(Outcome::Rejected)
        }
        Some(Disposition::Pass) | None => {
            ensure!(run.frame == frame, "a packet that was passed on has changed");
            Ok(Outcome::Passed)
        }
    }
}

/// The operator of a scenario lists every externalIP, each by itself.
fn allowing_every_external_ip(objects: &[Object]) -> Policy {
    let services = objects.iter().filter_map(|object| match object {
        Object::Service(service) => Some(service),
        _ => None,
    });
    let named: BTreeSet<IpAddr> = services.flat_map(|service| service.external_ips.iter().copied()).collect();
    Policy { external_ip_cidrs: named.into_iter().map(IpNet::from).collect(), ..Policy::default() }
}

fn ipv4_of(address: &IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(address) = address { Some(*address) } else { None }
}

fn ipv6_of(address: &IpAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(address) = address { Some(*address) } else { None }
}

/// What packets of one family meet; the flows and the clients' affinity stay.
fn load_family<F: InMemory>(tables: &mut FamilyTables<F>, observed: &Observed)
where
    F::EndpointKey: Keys,
{
    let keyed = |(key, id): (&_, &u32)| Some((F::EndpointKey::of_endpoint(key)?, *id));
    tables.backend_ids = observed.backend_ids.iter().filter_map(keyed).collect();
    let keyed = |(key, frontend): (&_, &Frontend)| Some((F::EndpointKey::of_endpoint(key)?, *frontend));
    tables.frontends = observed.frontends.iter().filter_map(keyed).collect();
    let keyed = |(key, inside): (&_, &Inside)| Some((F::EndpointKey::of_endpoint(key)?, *inside));
    tables.inside = observed.inside.entries.iter().filter_map(keyed).collect();
    tables.endpoints = endpoints::<F>(observed);
    let family = if F::VERSION == 4 { Family::V4 } else { Family::V6 };
    let ranges = observed.source_ranges.iter().flat_map(|(id, ranges)| ranges.iter().map(move |range| (*id, range)));
    let own = ranges.filter(|(_, range)| Family::of(range.addr()) == family);
    tables.source_ranges = own.map(|(id, range)| (id, stored(range.addr()), range.prefix_len().into())).collect();
}

/// The protocol that an endpoint is kept with counts for nothing.
fn endpoints<F: InMemory>(observed: &Observed) -> BTreeMap<u32, F::EndpointKey>
where
    F::EndpointKey: Keys,
{
    let regions = observed.inside.regions.iter();
    let endpoints = regions.flat_map(|(&(_, base), region)| (base..).zip(&region.endpoints));
    let keyed = |(index, &socket): (u32, &SocketAddr)| {
        Some((index, F::EndpointKey::of_endpoint(&Endpoint { socket, protocol: Protocol::Tcp })?))
    };
    endpoints.filter_map(keyed).collect()
}

fn link(ifindex: u32) -> PodLink {
    PodLink {
        ifindex,
        name: format!("veth{ifindex}"),
        is_veth: true,
        netns_id: Some(ifindex as i32),
        host_mac: [2; 6],
        pod_mac: Some([4; 6]),
        ..PodLink::default()
    }
}
