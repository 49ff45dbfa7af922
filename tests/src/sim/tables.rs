//! The maps as the path reads them, in arrays and LRU maps of their real sizes; and what a new agent finds in them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use xlb_common::abi::{
    self, AffinityEntry, Backend, CLUSTER_NETWORKS, EndpointKeyV4, FlowEntry, FlowKeyV4, FragmentEntry, FragmentKeyV4,
    Frontend, Member, ServiceStats, Settings, SoleFrontend, Way, WayKey, uplink_flags,
};
use xlb_common::budget::Spending;
use xlb_common::family::{Family, V4};
use xlb_common::hot::HalfOpen;
use xlb_common::parse::TcpView;
use xlb_common::reason::Reason;
use xlb_common::slot::SlotWord;
use xlb_common::tables::{FlowTable, Proof, Tables, now_of};
use xlb_userspace::maps::object::Sizes;
use xlb_userspace::plan::observed::{Observed, Resting};
use xlb_userspace::plan::{Endpoint, Op};

use super::clock::TICKS_PER_MS;
use super::lru::Lru;
use super::packet::{Held, Holders, State, number_of};

#[path = "tables/v6.rs"]
mod v6;

/// Possible CPUs of the machine that the maps are on.
const CPUS: u32 = 1;

/// The maps.
pub struct SimTables {
    frontends: Vec<(EndpointKeyV4, Frontend)>,
    slots: Vec<u64>,
    members: Vec<Member>,
    backends: Vec<Backend>,
    backend_ids: HashSet<EndpointKeyV4>,
    sole_frontends: HashMap<EndpointKeyV4, SoleFrontend>,
    flows: [RefCell<Lru<FlowKeyV4, FlowEntry>>; 4],
    pins: RefCell<Lru<FlowKeyV4, Member>>,
    /// All of it as the agent's own words have it.
    whole: Observed,
    half_open: Cell<HalfOpen>,
    /// What the pods' kernels have of the packet under way.
    pub holders: Cell<Holders>,
    /// The tick.
    pub now: Cell<u64>,
    /// Whether slots forget their former owners: a mistake that has to be found.
    pub forgets_owners: bool,
    /// What the operator chose.
    pub settings: Settings,
}

impl SimTables {
    /// Empty maps, as large as an agent with `--max-flows` makes them.
    #[must_use]
    pub fn new(max_flows: u32) -> Self {
        let maps = Sizes { flows: max_flows, ..Sizes::default() }.maps();
        let flows = |name| {
            let shape = maps.iter().find(|shape| shape.name == name).expect("a map of this name");
            RefCell::new(Lru::new(shape.entries, CPUS))
        };
        Self {
            frontends: Vec::new(),
            slots: Vec::new(),
            members: Vec::new(),
            backends: Vec::new(),
            backend_ids: HashSet::new(),
            sole_frontends: HashMap::new(),
            flows: ["FLOWS_V4", "PENDING_V4", "UDP_FLOWS_V4", "UDP_PENDING_V4"].map(flows),
            pins: RefCell::new(Lru::new(abi::PINS_MAX, CPUS)),
            whole: Observed::default(),
            half_open: Cell::default(),
            holders: Cell::new(Holders::NONE),
            now: Cell::new(0),
            forgets_owners: false,
            settings: Settings::NONE,
        }
    }

    /// Does one operation of the agent.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::PutBackend { id, backend } => put(&mut self.backends, id, backend),
            Op::PutMember { index, member } => put(&mut self.members, index, member),
            Op::PutSlot { index, word } => {
                put(&mut self.slots, index, if self.forgets_owners { word.0 | !0xff } else { word.0 });
            }
            Op::PutBackendId { ref key, .. } => drop(self.backend_ids.insert(key_of(key))),
            Op::RemoveBackendId { ref key } => drop(self.backend_ids.remove(&key_of(key))),
            Op::PutSoleFrontend { ref pod, sole } => drop(self.sole_frontends.insert(key_of(pod), sole)),
            Op::RemoveSoleFrontend { ref pod } => drop(self.sole_frontends.remove(&key_of(pod))),
            Op::PutFrontend { ref key, frontend } => {
                self.frontends.retain(|(other, _)| *other != key_of(key));
                self.frontends.push((key_of(key), frontend));
            }
            Op::RemoveFrontend { ref key } => self.frontends.retain(|(other, _)| *other != key_of(key)),
            _ => {}
        }
        self.whole.apply(op, self.now.get() / TICKS_PER_MS);
    }

    /// What a new agent reads: nothing of what rests, and words only where a service's record says that there are any.
    #[must_use]
    pub fn read_back(&self) -> Observed {
        let mut found = self.whole.clone();
        found.resting = Resting::default();
        found.inside.resting.clear();
        found.unclaimed_slots.clear();
        for service in found.services.values() {
            let words = self.slots.iter().skip(service.slots_base as usize).take(service.slots as usize);
            if service.slots > 0 {
                found.slots.insert(service.slots_base, words.map(|&word| SlotWord(word)).collect());
            }
        }
        let is_recorded = |index: &u32| {
            let mut services = found.services.values();
            services.any(|one| (one.members_base..one.members_base + one.members).contains(index))
        };
        let members = self.whole.members.iter().filter(|(index, _)| is_recorded(index));
        found.members = members.map(|(index, &member)| (index, member)).collect();
        found
    }

    /// What a pod's kernel has of the packet under way, by the address and what else tells the pod.
    fn held(&self, key: &FlowKeyV4, is_pod: impl Fn(&Held) -> bool) -> State {
        let now = self.now.get() as u32;
        let is_it = |held: &&Held| held.address == key.pod && now < held.until && is_pod(held);
        self.holders.get().0.iter().find(is_it).map_or(State::Nothing, |held| held.state)
    }

    /// Whether the flow has an entry in one of the two maps of its protocol.
    #[must_use]
    pub fn knows(&self, tables: [FlowTable; 2], key: &FlowKeyV4) -> bool {
        tables.iter().any(|&table| self.flows[table as usize].borrow().peek(key).is_some())
    }

    /// Entries that made room for others so far: TCP's, its pending, UDP's, its pending.
    #[must_use]
    pub fn evicted(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|table: usize| self.flows[table].borrow().evicted())
    }
}

/// The word that an array has where nothing was written yet.
fn put<T: Copy + Default>(array: &mut Vec<T>, index: u32, value: T) {
    let index = index as usize;
    if array.len() <= index {
        array.resize(index + 1, T::default());
    }
    array[index] = value;
}

fn key_of(endpoint: &Endpoint) -> EndpointKeyV4 {
    let address = match endpoint.socket.ip() {
        std::net::IpAddr::V4(address) => address.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    };
    V4::endpoint_key(address, endpoint.socket.port().to_be_bytes(), endpoint.protocol.number())
}

/// A flow's entry, as it was when it was looked up.
pub struct Found(FlowEntry);

impl Deref for Found {
    type Target = FlowEntry;

    fn deref(&self) -> &FlowEntry {
        &self.0
    }
}

impl Tables<V4> for SimTables {
    type Flow = Found;

    fn frontend(&self, key: EndpointKeyV4) -> Option<impl Deref<Target = Frontend>> {
        self.frontends.iter().find(|(other, _)| *other == key).map(|(_, frontend)| frontend)
    }

    fn slot(&self, index: u32) -> Option<SlotWord> {
        self.slots.get(index as usize).copied().map(SlotWord)
    }

    fn member(&self, index: u32) -> Option<Member> {
        self.members.get(index as usize).copied()
    }

    fn backend(&self, id: u32) -> Option<impl Deref<Target = Backend>> {
        self.backends.get(id as usize)
    }

    fn is_backend(&self, key: &EndpointKeyV4) -> bool {
        self.backend_ids.contains(key)
    }

    fn sole_frontend(&self, pod: &EndpointKeyV4) -> Option<SoleFrontend> {
        self.sole_frontends.get(pod).copied()
    }

    fn route(&self, _vip: [u8; 4], _client: [u8; 4]) -> Option<Way> {
        Some(Way { ifindex: super::xlb::UPLINK, ..Way::default() })
    }

    fn is_our_mac(&self, _ifindex: u32, _mac: [u8; 6]) -> bool {
        true
    }

    fn uplink_flags(&self, _ifindex: u32) -> u16 {
        if self.half_open.get().is_hot != 0 { uplink_flags::HOT } else { 0 }
    }

    fn note_half_open(&self, _ifindex: u32) {
        let mut half_open = self.half_open.get();
        half_open.note(1, Tables::<V4>::now_ns(self));
        self.half_open.set(half_open);
    }

    fn way(&self, _key: &WayKey) -> Option<Way> {
        None
    }

    fn flow_at(&self, table: FlowTable, key: &FlowKeyV4) -> Option<Found> {
        self.flows.get(table as usize)?.borrow_mut().get(key).map(Found)
    }

    fn change(&self, table: FlowTable, key: &FlowKeyV4, change: impl FnOnce(&mut FlowEntry)) -> bool {
        self.flows.get(table as usize).is_some_and(|flows| flows.borrow_mut().change(key, change))
    }

    fn forget(&self, table: FlowTable, key: &FlowKeyV4) {
        if let Some(flows) = self.flows.get(table as usize) {
            flows.borrow_mut().remove(key);
        }
    }

    fn remember(&self, table: FlowTable, key: &FlowKeyV4, entry: &FlowEntry) {
        if let Some(flows) = self.flows.get(table as usize) {
            flows.borrow_mut().insert(*key, *entry);
        }
    }

    fn is_allowed_source(&self, service: u32, _client: [u8; 4]) -> bool {
        service != CLUSTER_NETWORKS
    }

    fn affinity(&self, _service: u32, _client: [u8; 4]) -> Option<AffinityEntry> {
        None
    }

    fn record_affinity(&self, _service: u32, _client: [u8; 4], _entry: &AffinityEntry) {}

    fn fragment(&self, _key: &FragmentKeyV4) -> Option<FragmentEntry> {
        None
    }

    fn record_fragment(&self, _key: &FragmentKeyV4, _entry: &FragmentEntry) {}

    fn prove(&self, backend: &Backend, key: &FlowKeyV4) -> Proof {
        self.held(key, |held| held.netns_id == backend.netns_id).proof()
    }

    /// A cookie is of the pod's own address: the client acknowledges the one that it took.
    fn gave_cookie(&self, key: &FlowKeyV4, tcp: &TcpView) -> bool {
        let [.., acknowledged] = tcp.acknowledged.to_be_bytes();
        self.held(key, |held| number_of(held.pod) + 1 == acknowledged) == State::Cookie
    }

    fn pin(&self, key: &FlowKeyV4) -> Option<Member> {
        self.pins.borrow_mut().get(key)
    }

    fn record_pin(&self, key: &FlowKeyV4, member: &Member) {
        self.pins.borrow_mut().insert(*key, *member);
    }

    fn now(&self) -> u32 {
        now_of(Tables::<V4>::now_ns(self))
    }

    fn now_ns(&self) -> u64 {
        self.now.get() * 1_000_000 / TICKS_PER_MS
    }

    fn report_address(&self, _ifindex: u32) -> Option<[u8; 4]> {
        None
    }

    fn may_spend(&self, _spending: Spending) -> bool {
        true
    }

    fn vip(&self, _address: [u8; 4]) -> Option<u32> {
        None
    }

    fn settings(&self) -> Settings {
        self.settings
    }

    fn count(&self, _reason: Reason) {}

    fn count_service(&self, _index: u16, change: impl FnOnce(&mut ServiceStats)) {
        change(&mut ServiceStats::default());
    }
}
