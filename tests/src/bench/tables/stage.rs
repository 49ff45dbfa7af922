//! A node's maps in this kernel, and what should be in them: one service with many backends among others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use xlb_common::slot::SlotWord;
use xlb_userspace::maps::live::LiveMaps;
use xlb_userspace::maps::object::{self, Sizes};
use xlb_userspace::maps::pins::PinDirectory;
use xlb_userspace::node::PodLink;
use xlb_userspace::plan::desired::{
    Delivery, Desired, DesiredBackend, DesiredService, Family, Protocol, ServiceName, WhenEmpty,
};
use xlb_userspace::plan::observed::QUARANTINE_MS;
use xlb_userspace::plan::part::Scope;
use xlb_userspace::plan::{Endpoint, Observed, Op, Plan, plan, plan_part};

use super::timed;
use crate::lab::{Lab, LabSpec};

/// The VIP of the service that changes; the others have those after it.
const VIP: u32 = 0xc612_0000; // 198.18.0.0
/// Its pods from this address on.
const FIRST_POD: u32 = 0x0a01_0000; // 10.1.0.0
/// The only pods of others from this address on.
const FIRST_OTHER_POD: u32 = 0x0ac8_0000; // 10.200.0.0
/// How many others have a pod here.
const OTHER_PODS: u32 = 250;
/// Entries of flow maps, which are not in the way here.
const FLOWS: u32 = 1024;

/// For what a plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The service that changed, as the agent does mostly.
    Part,
    /// All services, as it does at its start.
    Whole,
}

/// What a change took, and what it wrote into the slots.
pub struct Took {
    /// To take what the maps hold of the service, and to plan.
    pub planned: Duration,
    /// To write into the kernel's maps, and to note that.
    pub written: Duration,
    /// The words, by their index.
    pub words: Vec<(u32, SlotWord)>,
}

/// The maps, with the agent's view of them.
pub struct Stage {
    maps: LiveMaps,
    slots: Array<MapData, u64>,
    observed: Observed,
    changing: Desired,
    all: Desired,
    /// Pods that the maps know of the service.
    pods: BTreeSet<IpAddr>,
    next_pod: u32,
    now_ms: u64,
    /// Removes the pins at the end, also those of a run that was killed.
    _lab: Lab,
}

impl Stage {
    /// So many other services, one at least.
    pub fn new(others: u32) -> Result<Stage> {
        let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
        let pins = PinDirectory::new(lab.pin_directory());
        pins.make_root()?;
        pins.make_version()?;
        object::open(object::OBJECT, &pins, &Sizes { flows: FLOWS, fragments: FLOWS, ..Sizes::default() }, 0)?;
        let slots = MapData::from_pin(pins.map("SLOTS")).context("opening SLOTS")?;
        let mut stage = Stage {
            maps: LiveMaps::open(&pins)?,
            slots: Map::from_map_data(slots)?.try_into()?,
            observed: Observed::default(),
            changing: Desired::default(),
            all: Desired::default(),
            pods: BTreeSet::new(),
            next_pod: 0,
            now_ms: 0,
            _lab: lab,
        };
        let other = |number: u32| {
            let pod = (number < OTHER_PODS).then(|| pod(FIRST_OTHER_POD + number));
            (name(&format!("other-{number}")), service(VIP + 1 + number, pod))
        };
        stage.all.services = (0..others).map(other).collect();
        stage.follow(Extent::Whole)?;
        Ok(stage)
    }

    /// Lets pods come that were never there.
    pub fn add_pods(&mut self, count: u32) {
        let new = self.next_pod..self.next_pod + count;
        self.next_pod = new.end;
        self.change(|backends| backends.extend(new.clone().map(|number| pod(FIRST_POD + number))));
    }

    /// Lets the oldest pods go.
    pub fn remove_oldest(&mut self, count: usize) {
        self.change(|backends| (0..count).for_each(|_| drop(backends.pop_first())));
    }

    /// Ends the service, if it is there.
    pub fn end_service(&mut self) -> Result<()> {
        if self.changing.services.is_empty() {
            return Ok(());
        }
        for desired in [&mut self.changing, &mut self.all] {
            desired.services.remove(&name("web"));
        }
        self.follow(Extent::Part).map(drop)
    }

    /// Slots that the service has.
    pub fn slot_count(&self) -> u32 {
        let web = name("web").to_string();
        self.observed.services.values().find(|service| service.name == web).map_or(0, |service| service.slots)
    }

    /// Plans and does what is asked for, after all that rested may be used again.
    pub fn follow(&mut self, extent: Extent) -> Result<Took> {
        self.now_ms += QUARANTINE_MS;
        let scope = self.scope();
        let (planned, plan) = timed(|| self.plan(extent, &scope));
        let plan = plan.context("the maps do not hold what was written")?;
        ensure!(plan.is_complete() && !plan.ops.is_empty(), "not all can be done, or nothing is: {:?}", plan.refusals);
        let (written, result) = timed(|| self.carry_out(&plan));
        result?;
        self.pods = self.wanted_pods().collect();
        let word = |op: &Op| match op {
            Op::PutSlot { index, word } => Some((*index, *word)),
            _ => None,
        };
        Ok(Took { planned, written, words: plan.ops.iter().filter_map(word).collect() })
    }

    /// Writes words that the map holds already by one call of bpf(2) each.
    pub fn write_by_calls(&mut self, words: &[(u32, SlotWord)]) -> Result<Duration> {
        let write = |(index, word): &(u32, SlotWord)| self.slots.set(*index, word.0, 0);
        let (time, result) = timed(|| words.iter().try_for_each(write));
        result.context("writing SLOTS")?;
        Ok(time)
    }

    /// Writes a word as an operation of a plan does.
    pub fn write_word(&mut self, index: u32, word: SlotWord) -> Result<()> {
        self.maps.apply(&Op::PutSlot { index, word })
    }

    /// The first of so many slots at the end of the map: none of the services reaches them.
    pub fn last_slots(&self, count: u32) -> u32 {
        self.maps.limits().slots - count
    }

    fn plan(&self, extent: Extent, scope: &Scope) -> Option<Plan> {
        let (observed, limits) = (&self.observed, self.maps.limits());
        match extent {
            Extent::Whole => Some(plan(&self.all, observed, limits, self.now_ms)),
            Extent::Part => Some(plan_part(&self.changing, &observed.part(scope)?, observed, limits, self.now_ms)),
        }
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<()> {
        for op in &plan.ops {
            self.maps.apply(op)?;
            self.observed.apply(op, self.now_ms);
        }
        Ok(())
    }

    /// What the agent knows to be touched: the service, its VIP, and the pods that it has or shall have.
    fn scope(&self) -> Scope {
        let frontend = endpoint((Ipv4Addr::from(VIP), 80).into());
        let mut scope = Scope { frontends: [frontend].into(), ..Scope::default() };
        scope.add_name(&name("web"));
        scope.pods = self.wanted_pods().chain(self.pods.iter().copied()).collect();
        scope
    }

    fn wanted_pods(&self) -> impl Iterator<Item = IpAddr> {
        self.changing.services.values().flat_map(|service| service.backends.keys()).map(|socket| socket.ip())
    }

    fn change(&mut self, change: impl Fn(&mut BTreeMap<SocketAddr, DesiredBackend>)) {
        for desired in [&mut self.changing, &mut self.all] {
            change(&mut desired.services.entry(name("web")).or_insert_with(|| service(VIP, [])).backends);
        }
    }
}

fn name(name: &str) -> ServiceName {
    let (namespace, port) = ("default".into(), String::new());
    ServiceName { namespace, name: name.into(), port, protocol: Protocol::Tcp, family: Family::V4 }
}

fn service(vip: u32, backends: impl IntoIterator<Item = (SocketAddr, DesiredBackend)>) -> DesiredService {
    DesiredService {
        vips: BTreeSet::from([IpAddr::from(Ipv4Addr::from(vip))]),
        port: 80,
        when_empty: WhenEmpty::Drop,
        backends: backends.into_iter().collect(),
        ..DesiredService::default()
    }
}

fn pod(address: u32) -> (SocketAddr, DesiredBackend) {
    let link = PodLink { ifindex: address, name: "pod".into(), is_veth: true, host_mac: [2; 6], ..PodLink::default() };
    (socket(address), DesiredBackend { takes_new: true, weight: 1, delivery: Delivery::Direct(link) })
}

fn socket(address: u32) -> SocketAddr {
    (Ipv4Addr::from(address), 8080).into()
}

fn endpoint(socket: SocketAddr) -> Endpoint {
    Endpoint { socket, protocol: Protocol::Tcp }
}
