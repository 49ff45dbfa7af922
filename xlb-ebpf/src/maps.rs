//! The maps, and how they answer for the path's tables.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use xlb_common::abi::{
    AFFINITY_MAX, AffinityEntry, BACKENDS_MAX, Backend, Config, EndpointKeyV4, EndpointKeyV6, FLOWS_MAX, FLOWS_V6_MAX,
    FRONTENDS_MAX, FlowEntry, FlowKeyV4, FlowKeyV6, Frontend, MEMBERS_MAX, Member, PENDING_MAX, SERVICES_MAX,
    SLOTS_MAX, SOURCE_RANGES_MAX, ServiceRecord, SourceKeyV4, SourceKeyV6, UDP_FLOWS_MAX, UDP_FLOWS_V6_MAX,
    UDP_PENDING_MAX, UPLINKS_MAX, Uplink,
};
use xlb_common::slot::SlotWord;
use xlb_common::tables::{FlowTable, Proof, Tables};
use xlb_common::{Reason, V4};

use crate::prove::prove;

#[map]
static FRONTENDS_V4: HashMap<EndpointKeyV4, Frontend> = HashMap::with_max_entries(FRONTENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
static SLOTS: Array<u64> = Array::with_max_entries(SLOTS_MAX, BPF_F_MMAPABLE);
#[map]
static MEMBERS: Array<Member> = Array::with_max_entries(MEMBERS_MAX, 0);
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(BACKENDS_MAX, 0);
#[map]
static BACKEND_IDS_V4: HashMap<EndpointKeyV4, u32> = HashMap::with_max_entries(BACKENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
static SERVICES: HashMap<u32, ServiceRecord> = HashMap::with_max_entries(SERVICES_MAX, BPF_F_NO_PREALLOC);
#[map]
static FLOWS_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(FLOWS_MAX, 0);
#[map]
static PENDING_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(PENDING_MAX, 0);
#[map]
static UDP_FLOWS_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(UDP_FLOWS_MAX, 0);
#[map]
static UDP_PENDING_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(UDP_PENDING_MAX, 0);
#[map]
static FRONTENDS_V6: HashMap<EndpointKeyV6, Frontend> = HashMap::with_max_entries(FRONTENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
static BACKEND_IDS_V6: HashMap<EndpointKeyV6, u32> = HashMap::with_max_entries(BACKENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
static FLOWS_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(FLOWS_V6_MAX, 0);
#[map]
static PENDING_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(PENDING_MAX, 0);
#[map]
static UDP_FLOWS_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(UDP_FLOWS_V6_MAX, 0);
#[map]
static UDP_PENDING_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(UDP_FLOWS_V6_MAX, 0);
#[map]
static SOURCE_RANGES_V4: LpmTrie<SourceKeyV4, u32> = LpmTrie::with_max_entries(SOURCE_RANGES_MAX, BPF_F_NO_PREALLOC);
#[map]
static SOURCE_RANGES_V6: LpmTrie<SourceKeyV6, u32> = LpmTrie::with_max_entries(SOURCE_RANGES_MAX, BPF_F_NO_PREALLOC);
#[map]
static AFFINITY_V4: LruHashMap<SourceKeyV4, AffinityEntry> = LruHashMap::with_max_entries(AFFINITY_MAX, 0);
#[map]
static AFFINITY_V6: LruHashMap<SourceKeyV6, AffinityEntry> = LruHashMap::with_max_entries(AFFINITY_MAX, 0);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
#[map]
static UPLINKS: Array<Uplink> = Array::with_max_entries(UPLINKS_MAX, 0);

/// The maps, asked on behalf of one run of a program.
pub struct Maps<'a, C: EbpfContext> {
    ctx: &'a C,
}

impl<'a, C: EbpfContext> Maps<'a, C> {
    /// The tables for a run.
    #[inline(always)]
    pub fn of(ctx: &'a C) -> Self {
        Self { ctx }
    }
}

/// Whether any backend is served through the host's stack.
#[inline(always)]
pub fn is_stack_in_use() -> bool {
    CONFIG.get(0).is_some_and(|config| config.stack_in_use != 0)
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

#[inline(always)]
fn flows(table: FlowTable) -> &'static LruHashMap<FlowKeyV4, FlowEntry> {
    match table {
        FlowTable::Tcp => &FLOWS_V4,
        FlowTable::TcpPending => &PENDING_V4,
        FlowTable::Udp => &UDP_FLOWS_V4,
        FlowTable::UdpPending => &UDP_PENDING_V4,
    }
}

impl<C: EbpfContext> Tables<V4> for Maps<'_, C> {
    #[inline(always)]
    fn frontend(&self, key: &EndpointKeyV4) -> Option<Frontend> {
        // SAFETY: the value is replaced as a whole by the agent, never changed in place; it is read at once.
        unsafe { FRONTENDS_V4.get(key) }.copied()
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
    fn backend(&self, id: u32) -> Option<Backend> {
        BACKENDS.get(id).copied()
    }

    #[inline(always)]
    fn is_backend(&self, key: &EndpointKeyV4) -> bool {
        // SAFETY: only the presence of the entry counts.
        unsafe { BACKEND_IDS_V4.get(key) }.is_some()
    }

    #[inline(always)]
    fn is_our_mac(&self, ifindex: u32, mac: [u8; 6]) -> bool {
        UPLINKS.get(ifindex % UPLINKS_MAX).is_none_or(|uplink| uplink.ifindex != ifindex || uplink.mac == mac)
    }

    #[inline(always)]
    fn flow(&self, table: FlowTable, key: &FlowKeyV4) -> Option<FlowEntry> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); a torn read is
        // one of two entries of the same flow.
        unsafe { flows(table).get(key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, table: FlowTable, key: &FlowKeyV4, entry: &FlowEntry) {
        // A full LRU evicts; a failed insertion is met by the reply's own reason.
        let _ = flows(table).insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn prove(&self, backend: &Backend, key: &FlowKeyV4) -> Proof {
        prove(self.ctx, backend.netns_id, key)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper takes and touches nothing.
        (unsafe { bpf_jiffies64() }) as u32
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        count(reason);
    }
}
