//! What the maps say, in words: one value for text, JSON and tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use xlb_common::Reason;
use xlb_common::abi::{
    Backend, Frontend, Inside, Member, ServiceStats, Settings, frontend_flags as flags, inside_flags, vip_flags,
};
use xlb_common::tables::FlowTable;

use crate::agent::report::Report;
use crate::maps::family::Flow;
use crate::maps::live::LiveMaps;
use crate::plan::Observed;
use crate::plan::desired::{Protocol, Refusal};
use crate::plan::observed::ObservedService;

/// Most flows shown of each table.
const FLOWS_SHOWN_MAX: usize = 10_000;

/// Everything that `xlb inspect` shows.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Completed updates of the maps.
    pub generation: u64,
    /// The agent, if one ever reported.
    pub agent: Option<AgentView>,
    /// Service ports.
    pub services: Vec<ServiceView>,
    /// VIPs.
    pub vips: Vec<VipView>,
    /// What becomes of packets to ports of VIPs that no service has: `pass`, `drop` or `reject`.
    pub unowned: &'static str,
    /// Backends.
    pub backends: Vec<BackendView>,
    /// Flows.
    pub flows: Vec<FlowView>,
    /// Packets and events by reason, those that occurred.
    pub counters: BTreeMap<&'static str, u64>,
    /// What is asked for and not done.
    pub refusals: Vec<Refusal>,
    /// What is done later.
    pub waiting: Vec<Refusal>,
}

/// The agent's last word.
#[derive(Debug, Serialize)]
pub struct AgentView {
    /// Whether it runs now.
    pub is_running: bool,
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Name of its node.
    pub node_name: String,
    /// Uplinks with their front doors.
    pub uplinks: Vec<String>,
    /// When the maps were last equal to what is asked for, in seconds since 1970.
    pub in_sync_at_s: u64,
}

/// A Service port.
#[derive(Debug, Serialize)]
pub struct ServiceView {
    /// `namespace/name:port`.
    pub name: String,
    /// Its VIPs with port and protocol, for example `203.0.113.10:80/tcp`.
    pub frontends: Vec<String>,
    /// What happens without a usable backend: `drop`, `reject` or `pass`.
    pub when_empty: &'static str,
    /// The clients that its filtered frontends are open to; absent: all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourcesView>,
    /// How long a client's connections keep going to the same backend, in seconds; absent: they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_s: Option<u32>,
    /// Those of its frontends whose older TCP connections may be with the host's stack; absent: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handed_over: Vec<String>,
    /// Slots; zero: the only backend gets everything.
    pub slots: u32,
    /// Its backends on this node.
    pub backends: Vec<ShareView>,
    /// What clients inside get; absent: they are not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<InsideView>,
    /// What was counted since it got its id; absent: it has no numbers of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficView>,
}

/// A VIP.
#[derive(Debug, Serialize)]
pub struct VipView {
    /// Its address.
    pub address: IpAddr,
    /// Whether a service of it has a backend on this node that takes new connections.
    pub is_usable: bool,
    /// Whether it answers echo requests.
    pub answers_echo: bool,
}

/// What a service has had to do.
#[derive(Debug, Serialize)]
pub struct TrafficView {
    /// Packets from clients outside to its pods.
    pub packets_to_pods: u64,
    /// Bytes of these, from the IP header on.
    pub bytes_to_pods: u64,
    /// Packets back to these clients.
    pub packets_to_clients: u64,
    /// Bytes of these, from the IP header on.
    pub bytes_to_clients: u64,
    /// TCP connections that its pods accepted, and UDP flows that began.
    pub new_flows: u64,
    /// Sockets of clients inside that were directed to one of its endpoints.
    pub inside_flows: u64,
}

impl From<&ServiceStats> for TrafficView {
    fn from(stats: &ServiceStats) -> Self {
        Self {
            packets_to_pods: stats.packets_to_pods,
            bytes_to_pods: stats.bytes_to_pods,
            packets_to_clients: stats.packets_to_clients,
            bytes_to_clients: stats.bytes_to_clients,
            new_flows: stats.new_flows,
            inside_flows: stats.inside_flows,
        }
    }
}

/// What clients inside get: processes of this node, and of pods on it.
#[derive(Debug, Serialize)]
pub struct InsideView {
    /// Endpoints of the whole cluster that get their connections; zero: they are refused.
    pub endpoints: u32,
    /// Those that only go on with the datagrams of sockets that they had.
    pub lingering: u32,
    /// Endpoints of this node that connections of clients in pods get instead; absent: they get those of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_pods: Option<u32>,
}

/// The clients that a service is open to.
#[derive(Debug, Serialize)]
pub struct SourcesView {
    /// The frontends that are filtered.
    pub frontends: Vec<String>,
    /// Whom they are open to; none: nobody.
    pub ranges: Vec<String>,
}

/// A backend's part in a service.
#[derive(Clone, Debug, Serialize)]
pub struct ShareView {
    /// The pod's address and port.
    pub address: SocketAddr,
    /// Slots it owns: its share of new connections.
    pub slots: u32,
    /// Slots it owned before and may hold connections of.
    pub former_slots: u32,
}

/// A backend.
#[derive(Debug, Serialize)]
pub struct BackendView {
    /// Its id.
    pub id: u32,
    /// The pod's address and port.
    pub address: SocketAddr,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// `direct` or `stack`.
    pub delivery: &'static str,
    /// The host's end of its link, if it has one.
    pub interface: Option<String>,
    /// The pod's namespace id; absent: its sockets cannot be asked.
    pub netns_id: Option<i32>,
    /// Whether XDP may redirect to it.
    pub takes_xdp: bool,
    /// How often the id got a new meaning.
    pub generation: u32,
}

/// A flow.
#[derive(Debug, Serialize)]
pub struct FlowView {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// `accepted`, `pending` or `closed`.
    pub state: &'static str,
    /// The client.
    pub client: SocketAddr,
    /// The port of the client's address that the pod sees in place of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_at_pod: Option<u16>,
    /// The VIP and port that it speaks to.
    pub vip: SocketAddr,
    /// The pod that answers.
    pub pod: SocketAddr,
    /// `direct` or `stack`.
    pub delivery: &'static str,
    /// The uplink by which it came and replies leave.
    pub uplink: String,
}

impl Inspection {
    /// Reads the maps and the agent's report.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn take(maps: &LiveMaps, bpffs_dir: &Path) -> Result<Self> {
        let observed = maps.observed()?;
        let report = Report::read(bpffs_dir);
        let counted = report.as_ref().map_or(0, |report| report.counted_services);
        let settings = maps.config()?.settings;
        let happened = maps.counters()?.into_iter().filter(|(_, count)| *count > 0);
        Ok(Self {
            generation: observed.generation,
            services: observed
                .services
                .iter()
                .map(|(id, it)| {
                    let traffic = maps.service_stats(*id, counted).map(|stats| TrafficView::from(&stats));
                    ServiceView { traffic, ..service_view(&observed, *id, it) }
                })
                .collect(),
            vips: observed.vips.iter().map(|(&address, &flags)| vip_view(address, flags, settings)).collect(),
            unowned: unowned(settings),
            backends: observed
                .backends
                .iter()
                .filter(|(_, it)| it.is_in_use())
                .map(|(id, it)| backend_view(id, it))
                .collect(),
            flows: flows(maps),
            counters: happened.map(|(reason, count)| (Reason::label(reason), count)).collect(),
            refusals: report.as_ref().map(|report| report.refusals.clone()).unwrap_or_default(),
            waiting: report.as_ref().map(|report| report.waiting.clone()).unwrap_or_default(),
            agent: report.map(agent_view),
        })
    }
}

fn agent_view(report: Report) -> AgentView {
    AgentView {
        is_running: report.is_of_running_agent(),
        pid: report.pid,
        version: report.version,
        node_name: report.node_name,
        uplinks: report.uplinks,
        in_sync_at_s: report.in_sync_at_s,
    }
}

/// A service as the maps tell of it, without its traffic.
pub(crate) fn service_view(observed: &Observed, id: u32, service: &ObservedService) -> ServiceView {
    let frontends = observed.frontends.iter().filter(|(_, frontend)| frontend.service == id);
    let sole = frontends.clone().find(|(_, frontend)| frontend.slots == 0).map(|(_, frontend)| frontend.sole);
    let backends = match sole {
        Some(sole) => share(observed, sole, 0, 0).into_iter().collect(),
        None => shares(observed, service),
    };
    ServiceView {
        name: service.name.clone(),
        frontends: frontends.clone().map(|(key, _)| key.to_string()).collect(),
        when_empty: when_empty(frontends.clone().map(|(_, frontend)| frontend.flags)),
        sources: sources(observed, id),
        affinity_s: frontends.clone().map(|(_, frontend)| frontend.affinity_s).find(|&seconds| seconds != 0),
        handed_over: handed_over(observed, id),
        slots: if sole.is_some() { 0 } else { service.slots },
        backends,
        inside: observed.inside.entries.values().find(|inside| inside.service == id).map(inside_view),
        traffic: None,
    }
}

fn vip_view(address: IpAddr, flags: u32, settings: Settings) -> VipView {
    let is_usable = flags & vip_flags::USABLE != 0;
    VipView { address, is_usable, answers_echo: is_usable && settings.answers_echo() }
}

const fn unowned(settings: Settings) -> &'static str {
    match (settings.stops_unowned(), settings.rejects_unowned()) {
        (_, true) => "reject",
        (true, false) => "drop",
        _ => "pass",
    }
}

fn inside_view(&Inside { endpoints, lingering, local, flags, .. }: &Inside) -> InsideView {
    let for_pods = (flags & inside_flags::LOCAL_FOR_PODS != 0).then_some(local);
    InsideView { endpoints, lingering, for_pods }
}

fn when_empty(flags: impl Iterator<Item = u16>) -> &'static str {
    match flags.fold(0, |all, flags| all | flags) {
        all if all & flags::REJECT_WHEN_EMPTY != 0 => "reject",
        all if all & flags::DROP_WHEN_EMPTY != 0 => "drop",
        _ => "pass",
    }
}

fn handed_over(observed: &Observed, id: u32) -> Vec<String> {
    let own = observed.frontends.iter().filter(|(_, frontend)| frontend.service == id);
    own.filter(|(_, frontend)| frontend.has(flags::HOST_BEFORE)).map(|(key, _)| key.to_string()).collect()
}

fn sources(observed: &Observed, id: u32) -> Option<SourcesView> {
    let is_filtered = |frontend: &Frontend| frontend.service == id && frontend.flags & flags::SOURCE_RANGES != 0;
    let filtered = observed.frontends.iter().filter(|(_, frontend)| is_filtered(frontend));
    let frontends: Vec<String> = filtered.map(|(key, _)| key.to_string()).collect();
    let ranges = observed.source_ranges.get(&id).into_iter().flatten().map(ToString::to_string).collect();
    (!frontends.is_empty()).then_some(SourcesView { frontends, ranges })
}

/// Each member that some slot names, with how many slots it owns and owned.
fn shares(observed: &Observed, service: &ObservedService) -> Vec<ShareView> {
    let mut owned: BTreeMap<u8, (u32, u32)> = BTreeMap::new();
    for word in observed.slots.get(&service.slots_base).into_iter().flatten() {
        if let Some(owner) = word.current() {
            owned.entry(owner).or_default().0 += 1;
        }
        for owner in word.previous() {
            owned.entry(owner).or_default().1 += 1;
        }
    }
    let view = |(owner, (current, former)): (u8, (u32, u32))| {
        let member = observed.members.get(&(service.members_base + u32::from(owner)))?;
        share(observed, *member, current, former)
    };
    owned.into_iter().filter_map(view).collect()
}

fn share(observed: &Observed, member: Member, slots: u32, former_slots: u32) -> Option<ShareView> {
    let backend = observed.backends.get(&member.id())?;
    let is_current = backend.is_in_use() && backend.generation == member.generation;
    is_current.then(|| ShareView { address: backend.socket(), slots, former_slots })
}

fn backend_view(id: u32, backend: &Backend) -> BackendView {
    BackendView {
        id,
        address: backend.socket(),
        protocol: Protocol::of_number(backend.protocol).name(),
        delivery: if backend.is_direct() { "direct" } else { "stack" },
        interface: (backend.ifindex != 0).then(|| interface(backend.ifindex)),
        netns_id: (!backend.is_hidden()).then_some(backend.netns_id),
        takes_xdp: backend.takes_xdp(),
        generation: backend.generation,
    }
}

fn flows(maps: &LiveMaps) -> Vec<FlowView> {
    let tables = [
        (FlowTable::Tcp, "tcp", "accepted"),
        (FlowTable::TcpPending, "tcp", "pending"),
        (FlowTable::Udp, "udp", "accepted"),
        (FlowTable::UdpPending, "udp", "pending"),
        (FlowTable::Sctp, "sctp", "accepted"),
        (FlowTable::SctpPending, "sctp", "pending"),
    ];
    let view = |(table, protocol, state)| {
        maps.flows(table).take(FLOWS_SHOWN_MAX).map(move |flow| flow_view(protocol, state, &flow))
    };
    tables.into_iter().flat_map(view).collect()
}

fn flow_view(protocol: &'static str, state: &'static str, flow: &Flow) -> FlowView {
    FlowView {
        protocol,
        state: if flow.entry.is_closed() { "closed" } else { state },
        client: flow.client,
        port_at_pod: flow.port_at_pod,
        vip: flow.vip,
        pod: flow.pod,
        delivery: if flow.entry.is_stack() { "stack" } else { "direct" },
        uplink: interface(flow.entry.ingress_ifindex),
    }
}

/// Name of an interface of this namespace, or its number.
#[must_use]
pub fn interface(ifindex: u32) -> String {
    let name = nix::net::if_::if_indextoname(ifindex);
    name.map_or_else(|_| format!("interface {ifindex}"), |name| name.to_string_lossy().into_owned())
}
