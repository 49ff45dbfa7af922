//! Tables in ordinary memory: what tests fill, and what a packet's path can be asked against without a kernel.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};

use crate::abi::{
    AffinityEntry, Backend, FlowEntry, FragmentEntry, Frontend, Inside, Member, ServiceStats, Settings, SoleFrontend,
    Way, WayKey, uplink_flags,
};
use crate::budget::{Budget, Spending};
use crate::family::{Family, V4, V6};
use crate::parse::TcpView;
use crate::reason::Reason;
use crate::slot::SlotWord;
use crate::tables::{FlowTable, Proof, Stage, Tables};

pub use self::inside::InsideMemory;
pub use self::links::LinkMemory;

mod inside;
mod links;
pub mod outcome;
pub mod run;

/// The maps as collections. A flow map has no limit here: eviction is the simulator's affair.
///
/// What belongs to IPv4 is reached without naming it: `tables.frontends` beside `tables.v6.frontends`.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// IPv4's own.
    pub v4: FamilyTables<V4>,
    /// IPv6's own.
    pub v6: FamilyTables<V6>,
    /// What both families have for clients inside.
    pub inside: InsideMemory,
    /// What both families have for clients at links.
    pub links: LinkMemory,
    /// `SLOTS`.
    pub slots: BTreeMap<u32, u64>,
    /// `MEMBERS`.
    pub members: BTreeMap<u32, Member>,
    /// `BACKENDS`.
    pub backends: BTreeMap<u32, Backend>,
    /// Uplinks and their MACs; an uplink that is not listed accepts every MAC.
    pub uplinks: BTreeMap<u32, [u8; 6]>,
    /// What is to be minded at uplinks; of those that are not listed: nothing.
    pub uplink_flags: BTreeMap<u32, u16>,
    /// `WAYS`.
    pub ways: BTreeMap<WayKey, Way>,
    /// How the host would send to any client by its only uplink; none: it has several, or no route.
    pub route: Option<Way>,
    /// The clock, in units of its own ([`Tables::now`]).
    pub now: u32,
    /// The clock in nanoseconds.
    pub now_ns: u64,
    /// `BUDGETS`; none: answers are sent without a limit.
    pub budgets: Option<Cell<[Budget; Spending::COUNT]>>,
    /// What the operator chose.
    pub settings: Cell<Settings>,
    /// Counters.
    pub counts: RefCell<BTreeMap<Reason, u64>>,
    /// `SERVICE_STATS`.
    pub service_stats: RefCell<BTreeMap<u16, ServiceStats>>,
    /// The steps of the path, in order.
    pub stages: RefCell<Vec<Stage>>,
}

/// The maps that each family has for itself.
#[derive(Clone, Debug)]
pub struct FamilyTables<F: Family> {
    /// `FRONTENDS_V4` or `FRONTENDS_V6`.
    pub frontends: BTreeMap<F::EndpointKey, Frontend>,
    /// `BACKEND_IDS_V4` or `BACKEND_IDS_V6`.
    pub backend_ids: BTreeMap<F::EndpointKey, u32>,
    /// `SOLE_FRONTENDS_V4` or `SOLE_FRONTENDS_V6`.
    pub sole_frontends: BTreeMap<F::EndpointKey, SoleFrontend>,
    /// What the pods' kernels know: by namespace id and flow; absent is [`Proof::Absent`].
    pub sockets: BTreeMap<(i32, F::FlowKey), Proof>,
    /// The SYN cookies that pods' kernels gave: flow, sequence and acknowledgement number of the client's answer.
    pub cookies: BTreeSet<(F::FlowKey, u32, u32)>,
    /// The flow maps, by table and key.
    pub flows: RefCell<BTreeMap<(u8, F::FlowKey), FlowEntry>>,
    /// `SOURCE_RANGES_V4` or `SOURCE_RANGES_V6`: service, and the range's address and prefix length.
    pub source_ranges: BTreeSet<(u32, [u8; 16], u32)>,
    /// `PINS_V4` or `PINS_V6`.
    pub pins: RefCell<BTreeMap<F::FlowKey, Member>>,
    /// `AFFINITY_V4` or `AFFINITY_V6`.
    pub affinity: RefCell<BTreeMap<F::SourceKey, AffinityEntry>>,
    /// `FRAGMENTS_V4` or `FRAGMENTS_V6`.
    pub fragments: RefCell<BTreeMap<F::FragmentKey, FragmentEntry>>,
    /// `VIPS_V4` or `VIPS_V6`.
    pub vips: BTreeMap<[u8; 16], u32>,
    /// The node's address on an uplink.
    pub report_addresses: BTreeMap<u32, [u8; 16]>,
    /// `INSIDE_V4` or `INSIDE_V6`.
    pub inside: BTreeMap<F::EndpointKey, Inside>,
    /// `ENDPOINTS_V4` or `ENDPOINTS_V6`.
    pub endpoints: BTreeMap<u32, F::EndpointKey>,
}

impl<F: Family> FamilyTables<F> {
    /// A flow's entry.
    #[must_use]
    pub fn flow_of(&self, table: FlowTable, key: &F::FlowKey) -> Option<FlowEntry> {
        self.flows.borrow().get(&(table as u8, *key)).copied()
    }

    /// Whether one of a service's ranges contains the address.
    #[must_use]
    pub fn is_in_range(&self, service: u32, address: [u8; 16]) -> bool {
        let first_bits =
            |address: [u8; 16], bits: u32| u128::from_be_bytes(address).checked_shr(128 - bits).unwrap_or(0);
        self.source_ranges
            .iter()
            .any(|&(of, range, bits)| of == service && first_bits(range, bits) == first_bits(address, bits))
    }
}

impl<F: Family> Default for FamilyTables<F> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backend_ids: BTreeMap::new(),
            sole_frontends: BTreeMap::new(),
            sockets: BTreeMap::new(),
            cookies: BTreeSet::new(),
            flows: RefCell::default(),
            source_ranges: BTreeSet::new(),
            pins: RefCell::default(),
            affinity: RefCell::default(),
            fragments: RefCell::default(),
            vips: BTreeMap::new(),
            report_addresses: BTreeMap::new(),
            inside: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }
}

impl Deref for MemoryTables {
    type Target = FamilyTables<V4>;

    fn deref(&self) -> &FamilyTables<V4> {
        &self.v4
    }
}

impl DerefMut for MemoryTables {
    fn deref_mut(&mut self) -> &mut FamilyTables<V4> {
        &mut self.v4
    }
}

/// A family whose maps [`MemoryTables`] has.
pub trait InMemory: Family {
    /// Its own.
    fn of(tables: &MemoryTables) -> &FamilyTables<Self>;
    /// Its own, to be filled.
    fn of_mut(tables: &mut MemoryTables) -> &mut FamilyTables<Self>;
}

impl InMemory for V4 {
    fn of(tables: &MemoryTables) -> &FamilyTables<Self> {
        &tables.v4
    }

    fn of_mut(tables: &mut MemoryTables) -> &mut FamilyTables<Self> {
        &mut tables.v4
    }
}

impl InMemory for V6 {
    fn of(tables: &MemoryTables) -> &FamilyTables<Self> {
        &tables.v6
    }

    fn of_mut(tables: &mut MemoryTables) -> &mut FamilyTables<Self> {
        &mut tables.v6
    }
}

impl<F: InMemory> Tables<F> for MemoryTables {
    type Flow = Box<FlowEntry>;

    fn frontend(&self, key: F::EndpointKey) -> Option<impl Deref<Target = Frontend>> {
        F::of(self).frontends.get(&key).copied().map(Box::new)
    }

    fn slot(&self, index: u32) -> Option<SlotWord> {
        self.slots.get(&index).copied().map(SlotWord)
    }

    fn member(&self, index: u32) -> Option<Member> {
        self.members.get(&index).copied()
    }

    fn backend(&self, id: u32) -> Option<impl Deref<Target = Backend>> {
        self.backends.get(&id)
    }

    fn is_backend(&self, key: &F::EndpointKey) -> bool {
        F::of(self).backend_ids.contains_key(key)
    }

    fn sole_frontend(&self, pod: &F::EndpointKey) -> Option<SoleFrontend> {
        F::of(self).sole_frontends.get(pod).copied()
    }

    fn route(&self, _vip: F::Address, _client: F::Address) -> Option<Way> {
        self.route
    }

    fn is_our_mac(&self, ifindex: u32, mac: [u8; 6]) -> bool {
        self.uplinks.get(&ifindex).is_none_or(|&uplink| uplink == mac)
    }

    fn uplink_flags(&self, ifindex: u32) -> u16 {
        let unlisted = if self.uplinks.contains_key(&ifindex) { 0 } else { uplink_flags::MOVED };
        self.uplink_flags.get(&ifindex).copied().unwrap_or(unlisted)
    }

    /// Times are what a test says.
    fn note_half_open(&self, _ifindex: u32) {}

    fn way(&self, key: &WayKey) -> Option<Way> {
        self.ways.get(key).copied()
    }

    fn flow_at(&self, table: FlowTable, key: &F::FlowKey) -> Option<Box<FlowEntry>> {
        F::of(self).flow_of(table, key).map(Box::new)
    }

    fn remember(&self, table: FlowTable, key: &F::FlowKey, entry: &FlowEntry) {
        F::of(self).flows.borrow_mut().insert((table as u8, *key), *entry);
    }

    fn forget(&self, table: FlowTable, key: &F::FlowKey) {
        F::of(self).flows.borrow_mut().remove(&(table as u8, *key));
    }

    fn change(&self, table: FlowTable, key: &F::FlowKey, change: impl FnOnce(&mut FlowEntry)) -> bool {
        F::of(self).flows.borrow_mut().get_mut(&(table as u8, *key)).map(change).is_some()
    }

    fn is_allowed_source(&self, service: u32, client: F::Address) -> bool {
        F::of(self).is_in_range(service, F::to_stored(client))
    }

    fn affinity(&self, service: u32, client: F::Address) -> Option<AffinityEntry> {
        F::of(self).affinity.borrow().get(&F::source_key(service, client)).copied()
    }

    fn record_affinity(&self, service: u32, client: F::Address, entry: &AffinityEntry) {
        F::of(self).affinity.borrow_mut().insert(F::source_key(service, client), *entry);
    }

    fn fragment(&self, key: &F::FragmentKey) -> Option<FragmentEntry> {
        F::of(self).fragments.borrow().get(key).copied()
    }

    fn record_fragment(&self, key: &F::FragmentKey, entry: &FragmentEntry) {
        F::of(self).fragments.borrow_mut().insert(*key, *entry);
    }

    fn prove(&self, backend: &Backend, key: &F::FlowKey) -> Proof {
        F::of(self).sockets.get(&(backend.netns_id, *key)).copied().unwrap_or(Proof::Absent)
    }

    fn gave_cookie(&self, key: &F::FlowKey, tcp: &TcpView) -> bool {
        F::of(self).cookies.contains(&(*key, tcp.sequence, tcp.acknowledged))
    }

    fn pin(&self, key: &F::FlowKey) -> Option<Member> {
        F::of(self).pins.borrow().get(key).copied()
    }

    fn record_pin(&self, key: &F::FlowKey, member: &Member) {
        F::of(self).pins.borrow_mut().insert(*key, *member);
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn report_address(&self, ifindex: u32) -> Option<F::Address> {
        F::of(self).report_addresses.get(&ifindex).map(|&address| F::from_stored(address))
    }

    fn may_spend(&self, spending: Spending) -> bool {
        let Some(cell) = &self.budgets else { return true };
        let mut budgets = cell.get();
        let may = budgets[spending as usize].take(spending, self.now_ns);
        cell.set(budgets);
        may
    }

    fn vip(&self, address: F::Address) -> Option<u32> {
        F::of(self).vips.get(&F::to_stored(address)).copied()
    }

    fn settings(&self) -> Settings {
        self.settings.get()
    }

    fn count(&self, reason: Reason) {
        *self.counts.borrow_mut().entry(reason).or_default() += 1;
    }

    fn count_service(&self, index: u16, change: impl FnOnce(&mut ServiceStats)) {
        change(self.service_stats.borrow_mut().entry(index).or_default());
    }

    fn note(&self, stage: Stage) {
        self.stages.borrow_mut().push(stage);
    }
}
