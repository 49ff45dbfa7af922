//! xlb's agent: the real planner, whose operations are done one by one while packets pass.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use xlb_common::abi::BACKENDS_MAX;
use xlb_userspace::agent::linger;
use xlb_userspace::node::{Location, PodLink};
use xlb_userspace::plan::desired::{
    Delivery, Desired, DesiredBackend, DesiredService, Family, Protocol, ServiceName, WhenEmpty,
};
use xlb_userspace::plan::{Limits, Observed, Op, plan};

use super::clock::TICKS_PER_MS;
use super::cluster::{Cluster, Phase, PodState, SERVICES};
use super::packet::Pod;
use super::tables::SimTables;
use super::xlb::{link_of, socket_of};

/// What the agent believes the maps to hold, and what it is about to do.
#[derive(Default)]
pub struct Agent {
    observed: Observed,
    operations: VecDeque<Op>,
}

impl Agent {
    /// A new agent, which begins with what the maps hold.
    #[must_use]
    pub fn reading(tables: &SimTables) -> Self {
        Self { observed: tables.read_back(), operations: VecDeque::new() }
    }

    /// Plans, if nothing is left of the last plan. When to look again for what waits for room.
    pub fn look(&mut self, cluster: &Cluster, tables: &SimTables) -> Option<u64> {
        let now_ms = tables.now.get() / TICKS_PER_MS;
        let mut desired = desired(cluster);
        linger::keep_living(&mut desired, &self.observed, &locations(cluster));
        let sole_frontends = if tables.settings.pods_are_clusters() { BACKENDS_MAX } else { 0 };
        let limits = Limits { sole_frontends, ..Limits::default() };
        let plan = plan(&desired, &self.observed, &limits, now_ms);
        self.operations = plan.ops.into();
        plan.retry_at_ms.map(|at_ms| at_ms.saturating_sub(now_ms).max(1) * TICKS_PER_MS)
    }

    /// Does some operations. Whether there are more.
    pub fn work(&mut self, tables: &mut SimTables, operations: usize) -> bool {
        let now_ms = tables.now.get() / TICKS_PER_MS;
        for op in self.operations.drain(..operations.min(self.operations.len())) {
            tables.apply(&op);
            self.observed.apply(&op, now_ms);
        }
        !self.operations.is_empty()
    }

    /// Operations that are still to be done.
    #[must_use]
    pub fn left(&self) -> usize {
        self.operations.len()
    }
}

/// What the API server has told, as the model makes it: ready endpoints get new connections, those that end keep theirs, or
/// get new ones where nobody is ready. What is neither lingers, if its pod lives.
fn desired(cluster: &Cluster) -> Desired {
    let mut services = BTreeMap::new();
    for (number, service) in SERVICES.iter().enumerate() {
        let takers: BTreeSet<Pod> = cluster.takers(number).into_iter().collect();
        let is_listed =
            |pod: &PodState| pod.service == number && matches!(pod.known, Some(Phase::Ready | Phase::Terminating));
        let listed = (0..).zip(&cluster.pods).filter(|(_, pod)| is_listed(pod) && pod.lives());
        let backends =
            listed.map(|(pod, state)| (socket_of(state.socket()), backend(pod, state, takers.contains(&pod))));
        let protocol = Protocol::of_number(service.protocol);
        let backends: BTreeMap<_, _> = backends.collect();
        let name = ServiceName {
            namespace: "default".into(),
            name: service.name.into(),
            port: String::new(),
            protocol,
            family: Family::V4,
        };
        let forgets_departed = protocol == Protocol::Udp && !backends.is_empty();
        let service = DesiredService {
            vips: service.vips.iter().map(|&vip| IpAddr::from(Ipv4Addr::from(vip))).collect(),
            port: service.port,
            when_empty: WhenEmpty::Drop,
            backends,
            forgets_departed,
            ..DesiredService::default()
        };
        services.insert(name, service);
    }
    Desired { services, refusals: Vec::new() }
}

fn backend(pod: Pod, state: &PodState, takes_new: bool) -> DesiredBackend {
    DesiredBackend { takes_new, weight: 1, delivery: Delivery::Direct(link(pod, state)) }
}

fn link(pod: Pod, state: &PodState) -> PodLink {
    PodLink {
        ifindex: link_of(pod),
        name: String::new(),
        is_veth: true,
        netns_id: (!state.is_hidden).then_some(state.netns_id),
        host_mac: [2; 6],
        pod_mac: Some([4; 6]),
        ..PodLink::default()
    }
}

/// Where netlink says that each living pod is.
fn locations(cluster: &Cluster) -> BTreeMap<IpAddr, Location> {
    let living = (0..).zip(&cluster.pods).filter(|(_, pod)| pod.lives());
    living.map(|(pod, state)| (state.ip(), Location::Link(link(pod, state)))).collect()
}
