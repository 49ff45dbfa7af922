//! A case from start to verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use xlb_common::abi::SCTP;
use xlb_userspace::plan::desired::Family;
use xlb_userspace::source::address::parse_address;

use super::case::{Case, Client, Defaults, Endpoint, Expect, Packet, Port, Service, Slice, Step};
use super::cleanup;
use super::edge::{self, address};
use super::expected::{self, compare, endpoint, has_affinity};
use super::health::{self, Asked};
use super::in_kernel::InKernel;
use super::inside::{Sockets, clients_inside, is_inside};
use super::missing::{self, Feature, Note, Situation};
use super::node::{Flow, Node, Outcome};
use super::objects::translated;
use crate::kernel::frame::{ICMP, ICMP_V6};

/// Flows by which the set of endpoints is found, at least, for each of them, and at most. Each is a fresh source port.
const FLOWS_MIN: usize = 512;
const FLOWS_PER_ENDPOINT: usize = 64;
const FLOWS_MAX: usize = 32_768;
/// The first of them go through the kernel as well.
const FLOWS_IN_KERNEL: usize = 64;
/// Flows that are tried until one meets the endpoint that a case wants.
const FLOWS_PER_ESTABLISHED: usize = 4096;
/// For how long kube-proxy's flows stay with it, in cases that have such flows.
const HANDOVER: Duration = Duration::from_secs(3600);
/// Source ports begin here, and begin anew.
const FIRST_SOURCE_PORT: u16 = 1024;
/// Name of a node that is not this one.
const ELSEWHERE: &str = "another-node";

/// What a case came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is as expected.
    Passed,
    /// Something that xlb can do is not.
    Failed(String),
    /// It needs what xlb cannot do yet; the rest of it is as expected.
    NotYet(BTreeSet<Feature>),
    /// The runner does not understand it.
    Unsupported(String),
}

/// How cases are run.
#[derive(Clone, Default)]
pub struct Terms {
    /// What only another node can serve is expected as well.
    pub wants_remote: bool,
    /// The programs that packets go through as well; none: memory alone.
    pub kernel: Option<Rc<InKernel>>,
}

/// What a file says, and the runner does not understand.
#[derive(Debug)]
pub struct NotUnderstood(pub String);

/// Runs a case. The notes say what of it is not xlb's.
#[must_use]
pub fn run(case: &Case, defaults: &Defaults, terms: &Terms) -> (Verdict, BTreeSet<Note>) {
    let mut notes = BTreeSet::new();
    (verdict(case, defaults, terms, &mut notes), notes)
}

fn verdict(case: &Case, defaults: &Defaults, terms: &Terms, notes: &mut BTreeSet<Note>) -> Verdict {
    let unread = case.unread();
    if !unread.is_empty() {
        let names = unread.into_iter().collect::<Vec<_>>().join(", ");
        return Verdict::Unsupported(format!("fields that the runner does not know: {names}"));
    }
    let mut run = Run::new(case, defaults, terms);
    let result = match case.kind.as_str() {
        "packet" => run.play(&[only_step(case)]),
        "sequence" => run.play(&case.steps),
        "service_health" => health::service_health(case, &run.node.view.node_name),
        "flow_cleanup" => cleanup::check(case, defaults, terms, (&mut run.missing, &mut run.notes)),
        "packet_edge" => run.edges(case),
        "proxy_health" => health::proxy_health(case),
        other => return Verdict::Unsupported(format!("kind {other}")),
    };
    notes.append(&mut run.notes);
    match result {
        Err(error) if error.downcast_ref::<NotUnderstood>().is_some() => Verdict::Unsupported(format!("{error:#}")),
        Err(error) => Verdict::Failed(format!("{error:#}")),
        Ok(()) if run.missing.is_empty() => Verdict::Passed,
        Ok(()) => Verdict::NotYet(run.missing),
    }
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotUnderstood {}

fn only_step(case: &Case) -> Step {
    Step {
        at_s: 0,
        services: None,
        slices: None,
        client: case.client.clone(),
        packet: case.packet.clone(),
        expect: case.expect.clone(),
        health_of: None,
        unread: BTreeMap::new(),
    }
}

/// A case under way.
pub(super) struct Run {
    pub(super) node: Node,
    sockets: Sockets,
    pub(super) services: Vec<Service>,
    pub(super) slices: Vec<Slice>,
    pod_detection: String,
    /// Flows that exist already, by the step that goes on with them.
    established: BTreeMap<usize, Flow>,
    /// What the flows of a step came to, if it was the same for all.
    chosen: BTreeMap<usize, Outcome>,
    next_port: u16,
    wants_remote: bool,
    missing: BTreeSet<Feature>,
    notes: BTreeSet<Note>,
}

impl Run {
    pub(super) fn new(case: &Case, defaults: &Defaults, terms: &Terms) -> Self {
        let this_node = case.this_node.as_ref().unwrap_or(&defaults.this_node);
        let zone = case.node_zone.as_ref().unwrap_or(&defaults.node_zone);
        let addresses = case.node_ips.as_ref().unwrap_or(&defaults.node_ips);
        let addresses = addresses.iter().filter_map(|text| parse_address(text));
        let pod_detection = case.pod_detection.as_ref().unwrap_or(&defaults.pod_detection).clone();
        let mut node = Node::new(this_node.clone(), zone.clone(), addresses.collect(), terms.kernel.clone());
        node.clients_inside = clients_inside(&pod_detection);
        Self {
            node,
            sockets: Sockets::default(),
            services: case.services.clone(),
            slices: case.slices.clone(),
            pod_detection,
            established: BTreeMap::new(),
            chosen: BTreeMap::new(),
            next_port: FIRST_SOURCE_PORT,
            wants_remote: terms.wants_remote,
            missing: BTreeSet::new(),
            notes: BTreeSet::new(),
        }
    }

    fn play(&mut self, steps: &[Step]) -> Result<()> {
        ensure!(!steps.is_empty(), NotUnderstood("it has no steps".into()));
        if self.has_hosts_flow(steps) {
            self.node.handover = HANDOVER;
        }
        self.begin_earlier(steps)?;
        self.learn(0)?;
        for (index, step) in steps.iter().enumerate() {
            let place = || if steps.len() == 1 { "its packet".into() } else { format!("step {index}") };
            self.step(index, steps).with_context(place)?;
            if let Some(of) = &step.health_of {
                self.check_health(of, step).with_context(place)?;
            }
        }
        Ok(())
    }

    fn edges(&mut self, case: &Case) -> Result<()> {
        ensure!(!case.packets.is_empty(), NotUnderstood("it has no packets".into()));
        let client = case.client.as_ref().ok_or_else(|| NotUnderstood("it has no client".into()))?;
        self.learn(0)?;
        let mut reached = Vec::new();
        for (index, packet) in case.packets.iter().enumerate() {
            let endpoint = edge::check(&self.node, &client.ip, packet, &reached);
            reached.push(endpoint.with_context(|| format!("packet {index}"))?);
        }
        Ok(())
    }

    fn step(&mut self, index: usize, steps: &[Step]) -> Result<()> {
        let step = &steps[index];
        self.node.set_time(step.at_s);
        if step.services.is_some() || step.slices.is_some() {
            self.services = step.services.clone().unwrap_or_else(|| self.services.clone());
            self.slices = step.slices.clone().unwrap_or_else(|| self.slices.clone());
            self.learn(step.at_s * 1000)?;
        }
        for (later, step) in steps.iter().enumerate().skip(index + 1) {
            self.establish(later, step)?;
        }
        match (&step.client, &step.packet) {
            (Some(client), Some(packet)) => self.check(index, step, client, packet),
            (_, None) if step.health_of.is_some() => Ok(()),
            _ => bail!(NotUnderstood("it has no client, no packet, or neither and no `health_of`".into())),
        }
    }

    /// A first packet of an existing flow: the flow began when its endpoint was the service's only one, and the service
    /// open to everyone, by whichever policy.
    fn begin_earlier(&mut self, steps: &[Step]) -> Result<()> {
        let Some(packet) = &steps[0].packet else { return Ok(()) };
        let Some(flow) = &packet.flow else { return Ok(()) };
        let before = self.slices_with_only(packet, &flow.established_to)?;
        let now = (self.services.clone(), std::mem::replace(&mut self.slices, before));
        for service in &mut self.services {
            (service.lb_source_ranges, service.external_traffic_policy) = (None, None);
        }
        self.learn(0)?;
        self.establish(0, &steps[0])?;
        (self.services, self.slices) = now;
        Ok(())
    }

    /// Slices in which the packet's Service port has no other endpoint.
    pub(super) fn slices_with_only(&self, packet: &Packet, endpoint: &str) -> Result<Vec<Slice>> {
        let is_remote = missing::is_remote(endpoint, &self.slices, &self.node.view.node_name);
        let node = if is_remote { ELSEWHERE } else { &self.node.view.node_name };
        let endpoint = expected::endpoint(endpoint)?;
        let mut slices = Vec::new();
        for service in &self.services {
            for port in &service.ports {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                if port.port == packet.dport.map(i32::from) && protocol == packet.proto {
                    slices.push(Slice {
                        service: Some(format!("{}/{}", service.namespace, service.name)),
                        name: None,
                        address_type: Family::of(endpoint.ip()).to_string(),
                        ports: vec![Port { port: Some(endpoint.port().into()), node_port: None, ..port.clone() }],
                        endpoints: vec![Endpoint {
                            ip: Some(endpoint.ip().to_string()),
                            node: Some(node.to_owned()),
                            ..Endpoint::default()
                        }],
                        labels: BTreeMap::new(),
                        unread: BTreeMap::new(),
                    });
                }
            }
        }
        Ok(slices)
    }

    pub(super) fn learn(&mut self, now_ms: u64) -> Result<()> {
        let objects = translated(&self.services, &self.slices)?;
        self.node.learn(&objects, now_ms)
    }

    /// Opens the flow that a later step goes on with, as soon as its endpoint can be met.
    fn establish(&mut self, index: usize, step: &Step) -> Result<()> {
        let (Some(client), Some(packet)) = (&step.client, &step.packet) else { return Ok(()) };
        let Some(flow) = &packet.flow else { return Ok(()) };
        let expect = self.expected(client, step)?;
        let missing = self.situation(client, packet, &expect).missing();
        if self.established.contains_key(&index) || !missing.is_empty() {
            return Ok(());
        }
        let is_hosts = self.is_hosts(client, packet);
        let endpoint = endpoint(&flow.established_to)?;
        let tries = if packet.sport.is_some() { 1 } else { FLOWS_PER_ESTABLISHED };
        for _ in 0..tries {
            let flow = self.flow(client, packet)?;
            let outcome = self.open_in_memory(client, flow)?;
            if is_hosts && outcome == Outcome::Passed {
                self.notes.insert(missing::HOSTS_FLOW);
                self.established.insert(index, flow);
                return Ok(());
            }
            if outcome == Outcome::Reached(endpoint) {
                match is_inside(client) {
                    true => self.sockets.establish(flow, endpoint),
                    false => self.node.establish(flow, endpoint)?,
                }
                self.established.insert(index, flow);
                return Ok(());
            }
        }
        Ok(())
    }

    fn check(&mut self, index: usize, step: &Step, client: &Client, packet: &Packet) -> Result<()> {
        let expect = self.expected(client, step)?;
        let missing = self.situation(client, packet, &expect).missing();
        self.missing.extend(&missing);
        if !missing.is_empty() {
            return Ok(());
        }
        if packet.flow.is_some() {
            let flow = *self.established.get(&index).context("its flow could not be begun before")?;
            let outcome = match is_inside(client) {
                true => self.sockets.go_on(&mut self.node.tables, client, flow),
                false => self.node.go_on(flow)?,
            };
            return self.compare(client, step, &[outcome].into(), false);
        }
        let enough = (expect.endpoints.len() * FLOWS_PER_ENDPOINT).clamp(FLOWS_MIN, FLOWS_MAX);
        let flows = if packet.sport.is_some() { 1 } else { enough };
        let outcomes: Result<BTreeSet<Outcome>> = (0..flows)
            .map(|number| {
                let flow = self.flow(client, packet)?;
                if number < FLOWS_IN_KERNEL { self.open(client, flow) } else { self.open_in_memory(client, flow) }
            })
            .collect();
        let (outcomes, is_sticky) = (outcomes?, has_affinity(&self.services, packet));
        self.compare(client, step, &outcomes, flows > 1 && !is_sticky)?;
        if outcomes.len() == 1 {
            self.chosen.extend(outcomes.first().map(|outcome| (index, *outcome)));
        }
        ensure!(!is_sticky || outcomes.len() == 1, "one client met several endpoints: {outcomes:?}");
        self.check_same(&expect, index)
    }

    fn open(&mut self, client: &Client, flow: Flow) -> Result<Outcome> {
        if is_inside(client) {
            Ok(self.sockets.open(&mut self.node.tables, client, flow))
        } else {
            self.node.open(flow)
        }
    }

    fn open_in_memory(&mut self, client: &Client, flow: Flow) -> Result<Outcome> {
        if is_inside(client) { self.open(client, flow) } else { self.node.open_in_memory(flow) }
    }

    /// Where all that Kubernetes expects is wanted, what holds on this node alone is not enough, and still has to hold.
    fn compare(&mut self, client: &Client, step: &Step, got: &BTreeSet<Outcome>, is_spread: bool) -> Result<()> {
        let whole = Expect::parse(step.expect.as_ref())?;
        let here = compare(&self.expected(client, step)?, got, is_spread);
        if self.wants_remote && whole.local_only.is_some() && !is_inside(client) {
            if compare(&whole, got, is_spread).is_ok() {
                return Ok(());
            }
            self.missing.insert(missing::REMOTE);
        }
        here
    }

    fn check_same(&self, expect: &Expect, index: usize) -> Result<()> {
        let Some(step) = expect.same_as_step else { return Ok(()) };
        let (before, now) = (self.chosen.get(&step), self.chosen.get(&index));
        ensure!(before.is_some() && before == now, "expected what step {step} met, {before:?}, got {now:?}");
        Ok(())
    }

    fn check_health(&self, of: &str, step: &Step) -> Result<()> {
        let expect = step.expect.as_ref().context("it expects nothing")?;
        let objects = translated(&self.services, &self.slices)?;
        health::check_port(objects, &self.node.view.node_name, of, &Asked::default(), expect)
    }

    fn situation<'a>(&'a self, client: &'a Client, packet: &'a Packet, expect: &'a Expect) -> Situation<'a> {
        Situation {
            slices: &self.slices,
            this_node: &self.node.view.node_name,
            pod_detection: &self.pod_detection,
            client,
            packet,
            expect,
            wants_remote: self.wants_remote,
        }
    }

    pub(super) fn flow(&mut self, client: &Client, packet: &Packet) -> Result<Flow> {
        let port = packet.sport.unwrap_or(self.next_port);
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_SOURCE_PORT);
        Ok(Flow {
            protocol: protocol(&packet.proto)?,
            source: SocketAddr::new(address(&client.ip)?, port),
            destination: SocketAddr::new(address(&packet.dst)?, packet.dport.unwrap_or_default()),
        })
    }
}

/// IP protocol number of a protocol's name.
pub(super) fn protocol(name: &str) -> Result<u8> {
    match name {
        "ICMP" => Ok(ICMP),
        "ICMPv6" => Ok(ICMP_V6),
        "TCP" => Ok(6),
        "UDP" => Ok(17),
        "GRE" => Ok(47),
        "SCTP" => Ok(SCTP),
        _ => bail!(NotUnderstood(format!("{name} is no protocol that the runner knows"))),
    }
}
