//! `xlb services`: Service ports, with their VIPs and backends.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use xlb_common::abi::{Frontend, Inside, Member, ServiceStats, frontend_flags as flags, inside_flags};

use super::PinArgs;
use super::output::OutputArgs;
use super::vips;
use crate::agent::report::Report;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::model::called::{is_called, no_such};
use crate::plan::observed::ObservedService;
use crate::plan::{Endpoint, Observed};

mod text;

/// What to show.
#[derive(Debug, Args)]
pub struct ServicesArgs {
    /// Only these, with all that is known of each: web, default/web, or default/web:http
    name: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pins: PinArgs,
}

/// Prints services.
///
/// # Errors
/// When there is no dataplane, none of them has the name, or the kernel refuses to read.
pub fn show(args: ServicesArgs) -> Result<()> {
    let pins = PinDirectory::new(args.pins.bpffs_dir);
    let maps = LiveMaps::open(&pins)?;
    let observed = maps.observed()?;
    let all = read(&maps, &observed, Report::read(pins.root()).as_ref());
    let Some(name) = args.name else {
        let vips = vips::read(&maps, &observed)?;
        return args.output.print(&all, |all, is_wide| text::table(all, &vips, is_wide));
    };
    let found: Vec<&ServiceView> = all.iter().filter(|service| is_called(&service.name, &name)).collect();
    if found.is_empty() {
        let known: Vec<&str> = all.iter().map(|service| service.name.as_str()).collect();
        bail!("{}", no_such(&name, &known));
    }
    args.output.print(&found, |found, _| found.iter().copied().map(text::one).collect::<Vec<_>>().join("\n"))
}

/// A Service port.
#[derive(Clone, Debug, Serialize)]
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

/// What a service has had to do.
#[derive(Clone, Debug, Serialize)]
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

/// What clients inside get: processes of this node, and of pods on it.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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
    /// Its id in the maps.
    #[serde(skip)]
    pub id: u32,
}

impl ServiceView {
    /// Whether this backend of it gets new connections.
    #[must_use]
    pub fn takes_new(&self, share: &ShareView) -> bool {
        takes_new(share.slots, self.slots)
    }
}

/// Whether a backend with so many slots of a service's gets new connections: the only backend of one without slots gets all.
pub(crate) const fn takes_new(slots: u32, of: u32) -> bool {
    of == 0 || slots > 0
}

/// All service ports of the maps; with numbers, if an agent said which have some.
#[must_use]
pub fn read(maps: &LiveMaps, observed: &Observed, report: Option<&Report>) -> Vec<ServiceView> {
    let counted = report.map_or(0, |report| report.counted_services);
    views(observed, |id| maps.service_stats(id, counted))
}

/// All service ports, in the order of their ids, with what these numbers say of each.
pub(crate) fn views(observed: &Observed, stats: impl Fn(u32) -> Option<ServiceStats>) -> Vec<ServiceView> {
    let mut frontends: BTreeMap<u32, Vec<(&Endpoint, &Frontend)>> = BTreeMap::new();
    for (key, frontend) in &observed.frontends {
        frontends.entry(frontend.service).or_default().push((key, frontend));
    }
    let inside: BTreeMap<u32, &Inside> =
        observed.inside.entries.values().map(|inside| (inside.service, inside)).collect();
    let view = |(&id, service): (&u32, &ObservedService)| {
        let frontends = frontends.get(&id).map(Vec::as_slice).unwrap_or_default();
        ServiceView {
            inside: inside.get(&id).map(|inside| inside_view(inside)),
            traffic: stats(id).map(|stats| TrafficView::from(&stats)),
            ..service_view(observed, id, service, frontends)
        }
    };
    observed.services.iter().map(view).collect()
}

fn service_view(
    observed: &Observed,
    id: u32,
    service: &ObservedService,
    frontends: &[(&Endpoint, &Frontend)],
) -> ServiceView {
    let sole = frontends.iter().find(|(_, frontend)| frontend.slots == 0).map(|(_, frontend)| frontend.sole);
    let backends = match sole {
        Some(sole) => share(observed, sole, 0, 0).into_iter().collect(),
        None => shares(observed, service),
    };
    ServiceView {
        name: service.name.clone(),
        frontends: frontends.iter().map(|(key, _)| key.to_string()).collect(),
        when_empty: when_empty(frontends),
        sources: sources(observed, id, frontends),
        affinity_s: frontends.iter().map(|(_, frontend)| frontend.affinity_s).find(|&seconds| seconds != 0),
        handed_over: names(frontends, flags::HOST_BEFORE),
        slots: if sole.is_some() { 0 } else { service.slots },
        backends,
        inside: None,
        traffic: None,
    }
}

fn when_empty(frontends: &[(&Endpoint, &Frontend)]) -> &'static str {
    match frontends.iter().fold(0, |all, (_, frontend)| all | frontend.flags) {
        all if all & flags::REJECT_WHEN_EMPTY != 0 => "reject",
        all if all & flags::DROP_WHEN_EMPTY != 0 => "drop",
        _ => "pass",
    }
}

/// The frontends with this flag.
fn names(frontends: &[(&Endpoint, &Frontend)], flag: u16) -> Vec<String> {
    frontends.iter().filter(|(_, frontend)| frontend.has(flag)).map(|(key, _)| key.to_string()).collect()
}

fn sources(observed: &Observed, id: u32, of: &[(&Endpoint, &Frontend)]) -> Option<SourcesView> {
    let frontends = names(of, flags::SOURCE_RANGES);
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
    let id = member.id();
    let backend = observed.backends.get(&id)?;
    let is_current = backend.is_in_use() && backend.generation == member.generation;
    is_current.then(|| ShareView { address: backend.socket(), slots, former_slots, id })
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

fn inside_view(&Inside { endpoints, lingering, local, flags, .. }: &Inside) -> InsideView {
    let for_pods = (flags & inside_flags::LOCAL_FOR_PODS != 0).then_some(local);
    InsideView { endpoints, lingering, for_pods }
}
