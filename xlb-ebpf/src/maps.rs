//! The maps, and how they answer for the path's tables.

use core::ops::Deref;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use xlb_common::Reason;
use xlb_common::abi::{
    AffinityEntry, BACKENDS_MAX, Backend, COUNTED_SERVICES_MAX, Config, FlowEntry, FragmentEntry, Frontend,
    MEMBERS_MAX, Member, OTHER_SERVICES, SERVICE_STATS_MAX, SERVICES_MAX, SLOTS_MAX, ServiceRecord, ServiceStats,
    Settings, SoleFrontend, UPLINKS_MAX, Uplink, WAYS_MAX, Way, WayKey, uplink_flags,
};
use xlb_common::budget::{Budget, Spending};
use xlb_common::opening::Opening;
use xlb_common::parse::{Parsed, TcpView};
use xlb_common::select::Pick;
use xlb_common::slot::SlotWord;
use xlb_common::tables::{FlowTable, Proof, Step, Tables, now_of};

use crate::apart::Apart;
use crate::prove::prove;
use crate::route::route;
use crate::steps::each_until;

pub use self::family::FamilyMaps;
use self::handshakes::note_half_open;

mod declared;
mod family;
mod handshakes;

#[map]
static SLOTS: Array<u64> = Array::with_max_entries(SLOTS_MAX, BPF_F_MMAPABLE);
#[map]
static MEMBERS: Array<Member> = Array::with_max_entries(MEMBERS_MAX, 0);
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(BACKENDS_MAX, 0);
#[map]
static SERVICES: HashMap<u32, ServiceRecord> = HashMap::with_max_entries(SERVICES_MAX, BPF_F_NO_PREALLOC);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);
#[map]
static SERVICE_STATS: PerCpuArray<ServiceStats> = PerCpuArray::with_max_entries(SERVICE_STATS_MAX, 0);
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static UPLINKS: Array<Uplink> = Array::with_max_entries(UPLINKS_MAX, 0);
#[map]
static WAYS: HashMap<WayKey, Way> = HashMap::with_max_entries(WAYS_MAX, BPF_F_NO_PREALLOC);
#[map]
static BUDGETS: PerCpuArray<Budget> = PerCpuArray::with_max_entries(Spending::COUNT as u32, 0);

/// Services that have numbers of their own: those whose ids are below it; zero: no service is counted. The agent writes it
/// before the verifier reads the programs, which removes what is not done.
#[unsafe(no_mangle)]
static COUNTED_SERVICES: u32 = COUNTED_SERVICES_MAX;

/// The maps, asked on behalf of one run of a program.
///
/// For packets `OF_KIND` frontends are looked for in FRONTENDS at once: the verifier walks through what follows for either place
/// that a frontend may be in, and the programs for kinds are its longest.
pub struct Maps<'a, C: EbpfContext, const OF_KIND: bool = false> {
    ctx: &'a C,
}

impl<'a, C: EbpfContext> Maps<'a, C> {
    /// The tables for a run.
    #[inline(always)]
    pub fn of(ctx: &'a C) -> Self {
        Self { ctx }
    }
}

impl<'a, C: EbpfContext> Maps<'a, C, true> {
    /// The tables for a run about a packet of a kind.
    #[inline(always)]
    pub fn of_kind(ctx: &'a C) -> Self {
        Self { ctx }
    }
}

/// Whether packets that came by this interface came from outside; zero is none, and what an unused entry has.
#[inline(always)]
pub fn is_uplink(ifindex: u32) -> bool {
    ifindex != 0 && UPLINKS.get(ifindex % UPLINKS_MAX).is_some_and(|uplink| uplink.ifindex == ifindex)
}

/// Whether any backend is served through the host's stack.
#[inline(always)]
pub fn is_stack_in_use() -> bool {
    CONFIG.get(0).is_some_and(|config| config.stack_in_use != 0)
}

/// What the operator chose.
#[inline(always)]
pub fn settings() -> Settings {
    CONFIG.get(0).map_or(Settings::default(), |config| config.settings)
}

/// Counts a packet or event on this CPU.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counter) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: the entry is this CPU's alone, and a program is not interrupted by itself; at worst, a count is lost
        // to a softirq in between.
        unsafe { *counter += 1 };
    }
}

impl<F: FamilyMaps, C: Apart<F>, const OF_KIND: bool> Tables<F> for Maps<'_, C, OF_KIND> {
    type Flow = &'static FlowEntry;

    #[inline(always)]
    fn frontend(&self, key: F::EndpointKey) -> Option<impl Deref<Target = Frontend>> {
        if OF_KIND { F::frontend_of_kind(&key) } else { F::frontend(&key) }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<SlotWord> {
        SLOTS.get(index).copied().map(SlotWord)
    }

    #[inline(always)]
    fn member(&self, index: u32) -> Option<Member> {
        MEMBERS.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<impl Deref<Target = Backend>> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn is_backend(&self, key: &F::EndpointKey) -> bool {
        // SAFETY: only the presence of the entry counts.
        unsafe { F::backend_ids().get(key) }.is_some()
    }

    #[inline(always)]
    fn sole_frontend(&self, pod: &F::EndpointKey) -> Option<SoleFrontend> {
        // SAFETY: the agent replaces the value as a whole, and the kernel frees the old one when every program that may
        // see it has ended.
        unsafe { F::sole_frontends().get(pod) }.copied()
    }

    #[inline(always)]
    fn route(&self, vip: F::Address, client: F::Address) -> Option<Way> {
        let uplink = CONFIG.get(0)?.only_uplink;
        if uplink == 0 { None } else { route::<F, C>(self.ctx, uplink, vip, client) }
    }

    #[inline(always)]
    fn is_our_mac(&self, ifindex: u32, mac: [u8; 6]) -> bool {
        UPLINKS
            .get(ifindex % UPLINKS_MAX)
            .is_none_or(|uplink| uplink.ifindex != ifindex || word(uplink.mac) == word(mac))
    }

    #[inline(always)]
    fn uplink_flags(&self, ifindex: u32) -> u16 {
        match UPLINKS.get(ifindex % UPLINKS_MAX) {
            Some(uplink) if uplink.ifindex == ifindex => uplink.flags | uplink.hot,
            _ => uplink_flags::MOVED,
        }
    }

    #[inline(always)]
    fn note_half_open(&self, ifindex: u32) {
        note_half_open(ifindex);
    }

    #[inline(always)]
    fn way(&self, key: &WayKey) -> Option<Way> {
        // SAFETY: the agent replaces the value as a whole, and the kernel frees the old one when every program that may
        // see it has ended.
        unsafe { WAYS.get(key) }.copied()
    }

    #[inline(always)]
    fn flow_at(&self, table: FlowTable, key: &F::FlowKey) -> Option<&'static FlowEntry> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); a torn read is
        // one of two entries of the same flow.
        unsafe { F::flows(table).get(key) }
    }

    #[inline(always)]
    fn remember(&self, table: FlowTable, key: &F::FlowKey, entry: &FlowEntry) {
        // A full LRU evicts; a failed insertion is met by the reply's own reason.
        let _ = F::flows(table).insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn forget(&self, table: FlowTable, key: &F::FlowKey) {
        // An entry that was evicted is gone already.
        let _ = F::flows(table).remove(key);
    }

    #[inline(always)]
    fn change(&self, table: FlowTable, key: &F::FlowKey, change: impl FnOnce(&mut FlowEntry)) -> bool {
        let Some(entry) = F::flows(table).get_ptr_mut(key) else { return false };
        // SAFETY: the entry stays writable until the program has ended (RCU). What changes are numbers of which each value
        // is one; of two programs that change them at once the later one wins.
        change(unsafe { &mut *entry });
        true
    }

    #[inline(always)]
    fn is_allowed_source(&self, service: u32, client: F::Address) -> bool {
        let bits = 8 * size_of::<F::SourceKey>() as u32;
        F::source_ranges().get(Key::new(bits, F::source_key(service, client))).is_some()
    }

    #[inline(always)]
    fn affinity(&self, service: u32, client: F::Address) -> Option<AffinityEntry> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); a torn read is one
        // of two backends that the client went to, of which a reader takes only one that owns its slot.
        unsafe { F::affinity().get(F::source_key(service, client)) }.copied()
    }

    #[inline(always)]
    fn record_affinity(&self, service: u32, client: F::Address, entry: &AffinityEntry) {
        // A full LRU evicts; without a record the client's next connection goes to the owner of its slot.
        let _ = F::affinity().insert(F::source_key(service, client), entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn fragment(&self, key: &F::FragmentKey) -> Option<FragmentEntry> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); a torn read is one
        // of two datagrams with one identification.
        unsafe { F::fragments().get(key) }.copied()
    }

    #[inline(always)]
    fn record_fragment(&self, key: &F::FragmentKey, entry: &FragmentEntry) {
        // A full LRU evicts; what follows a fragment without a record is left to the stack.
        let _ = F::fragments().insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn prove(&self, backend: &Backend, key: &F::FlowKey) -> Proof {
        prove::<F, C>(self.ctx, backend.netns_id, key)
    }

    #[inline(always)]
    fn gave_cookie(&self, key: &F::FlowKey, tcp: &TcpView) -> bool {
        F::gave_cookie(key, tcp)
    }

    #[inline(always)]
    fn pin(&self, key: &F::FlowKey) -> Option<Member> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); whatever it says, the
        // backend is asked again.
        unsafe { F::pins().get(key) }.copied()
    }

    #[inline(always)]
    fn record_pin(&self, key: &F::FlowKey, member: &Member) {
        // A full LRU evicts; without a pin the flow's owner is searched for again.
        let _ = F::pins().insert(key, member, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper takes and touches nothing.
        now_of(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes and touches nothing.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn report_address(&self, ifindex: u32) -> Option<F::Address> {
        let uplink = UPLINKS.get(ifindex % UPLINKS_MAX)?;
        let address = F::address_of(uplink);
        (uplink.ifindex == ifindex && F::is_unicast(address)).then_some(address)
    }

    #[inline(always)]
    fn may_spend(&self, spending: Spending) -> bool {
        let Some(budget) = BUDGETS.get_ptr_mut(spending as u32) else { return false };
        // SAFETY: the entry is this CPU's alone; a softirq in between costs or gives one answer.
        unsafe { (*budget).take(spending, bpf_ktime_get_coarse_ns()) }
    }

    #[inline(always)]
    fn vip(&self, address: F::Address) -> Option<u32> {
        // SAFETY: the agent replaces the value as a whole, and the kernel frees the old one when every program that may see
        // it has ended.
        unsafe { F::vips().get(&address) }.copied()
    }

    #[inline(always)]
    fn settings(&self) -> Settings {
        settings()
    }

    #[inline(always)]
    fn each_until<S: Step<Self>>(&self, count: u32, body: S) -> S {
        each_until(Self { ctx: self.ctx }, count, body)
    }

    #[inline(always)]
    fn ask_owners(&self, frontend: &Frontend, parsed: &Parsed<F>, is_by_client: bool) -> Pick {
        self.ctx.ask_owners(frontend, parsed, is_by_client)
    }

    #[inline(always)]
    fn search_owner(&self, frontend: &Frontend, parsed: &Parsed<F>, waiting: Pick) -> Pick {
        self.ctx.search_owner(frontend, parsed, waiting)
    }

    #[inline(always)]
    fn ask_entries(&self, frontend: &Frontend, parsed: &Parsed<F>) -> Pick {
        self.ctx.ask_entries(frontend, parsed)
    }

    #[inline(always)]
    fn admit_source(&self, frontend: &Frontend, parsed: &Parsed<F>, pick: Pick) -> Result<(), Reason> {
        self.ctx.admit_source(frontend, parsed, pick)
    }

    #[inline(always)]
    fn is_to_relearn(&self, parsed: &Parsed<F>, pick: Pick) -> bool {
        self.ctx.is_to_relearn(parsed, pick)
    }

    #[inline(always)]
    fn hear_client(&self, parsed: &Parsed<F>, pick: Pick) -> Pick {
        self.ctx.hear_client(parsed, pick)
    }

    #[inline(always)]
    fn open(&self, opening: &Opening<F>) -> Result<bool, Reason> {
        self.ctx.open(opening)
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        count(reason);
    }

    #[inline(always)]
    fn count_service(&self, index: u16, change: impl FnOnce(&mut ServiceStats)) {
        // SAFETY: the agent changes it before the program is loaded, which the compiler does not know, and nobody afterwards.
        let counted = unsafe { (&raw const COUNTED_SERVICES).read_volatile() };
        if counted == 0 {
            return;
        }
        let index = if u32::from(index) < counted { index } else { OTHER_SERVICES };
        if let Some(stats) = SERVICE_STATS.get_ptr_mut(index.into()) {
            // SAFETY: as for `count`.
            change(unsafe { &mut *stats });
        }
    }
}

/// Compared as a number, which is one instruction.
#[inline(always)]
const fn word([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}
