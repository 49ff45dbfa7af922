//! The maps that each family has for itself.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap};
use xlb_common::abi::{
    AFFINITY_MAX, AffinityEntry, BACKENDS_MAX, DIRECTORY_WORDS, ENDPOINTS_MAX, EndpointKeyV4, EndpointKeyV6, FLOWS_MAX,
    FLOWS_V6_MAX, FRAGMENTS_MAX, FRONTENDS_MAX, FlowEntry, FlowKeyV4, FlowKeyV6, FragmentEntry, FragmentKeyV4,
    FragmentKeyV6, Frontend, Inside, Member, PENDING_MAX, PINS_MAX, PLACES_MAX, PlaceV4, PlaceV6, SCTP_FLOWS_MAX,
    SCTP_PENDING_MAX, SOURCE_RANGES_MAX, SoleFrontend, SourceKeyV4, SourceKeyV6, UDP_FLOWS_MAX, UDP_FLOWS_V6_MAX,
    UDP_PENDING_MAX, VIPS_MAX,
};

#[map]
pub static FRONTENDS_V4: HashMap<EndpointKeyV4, Frontend> = HashMap::with_max_entries(FRONTENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static BACKEND_IDS_V4: HashMap<EndpointKeyV4, u32> = HashMap::with_max_entries(BACKENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static FLOWS_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(FLOWS_MAX, 0);
#[map]
pub static PENDING_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(PENDING_MAX, 0);
#[map]
pub static UDP_FLOWS_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(UDP_FLOWS_MAX, 0);
#[map]
pub static UDP_PENDING_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(UDP_PENDING_MAX, 0);
#[map]
pub static SCTP_FLOWS_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(SCTP_FLOWS_MAX, 0);
#[map]
pub static SCTP_PENDING_V4: LruHashMap<FlowKeyV4, FlowEntry> = LruHashMap::with_max_entries(SCTP_PENDING_MAX, 0);
#[map]
pub static SOLE_FRONTENDS_V4: HashMap<EndpointKeyV4, SoleFrontend> =
    HashMap::with_max_entries(BACKENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static SOLE_FRONTENDS_V6: HashMap<EndpointKeyV6, SoleFrontend> =
    HashMap::with_max_entries(BACKENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static FRONTENDS_V6: HashMap<EndpointKeyV6, Frontend> = HashMap::with_max_entries(FRONTENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static BACKEND_IDS_V6: HashMap<EndpointKeyV6, u32> = HashMap::with_max_entries(BACKENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static FLOWS_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(FLOWS_V6_MAX, 0);
#[map]
pub static PENDING_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(PENDING_MAX, 0);
#[map]
pub static UDP_FLOWS_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(UDP_FLOWS_V6_MAX, 0);
#[map]
pub static UDP_PENDING_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(UDP_FLOWS_V6_MAX, 0);
#[map]
pub static SCTP_FLOWS_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(SCTP_FLOWS_MAX, 0);
#[map]
pub static SCTP_PENDING_V6: LruHashMap<FlowKeyV6, FlowEntry> = LruHashMap::with_max_entries(SCTP_PENDING_MAX, 0);
#[map]
pub static SOURCE_RANGES_V4: LpmTrie<SourceKeyV4, u32> =
    LpmTrie::with_max_entries(SOURCE_RANGES_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static SOURCE_RANGES_V6: LpmTrie<SourceKeyV6, u32> =
    LpmTrie::with_max_entries(SOURCE_RANGES_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static AFFINITY_V4: LruHashMap<SourceKeyV4, AffinityEntry> = LruHashMap::with_max_entries(AFFINITY_MAX, 0);
#[map]
pub static AFFINITY_V6: LruHashMap<SourceKeyV6, AffinityEntry> = LruHashMap::with_max_entries(AFFINITY_MAX, 0);
#[map]
pub static PINS_V4: LruHashMap<FlowKeyV4, Member> = LruHashMap::with_max_entries(PINS_MAX, 0);
#[map]
pub static PINS_V6: LruHashMap<FlowKeyV6, Member> = LruHashMap::with_max_entries(PINS_MAX, 0);
#[map]
pub static FRAGMENTS_V4: LruHashMap<FragmentKeyV4, FragmentEntry> = LruHashMap::with_max_entries(FRAGMENTS_MAX, 0);
#[map]
pub static FRAGMENTS_V6: LruHashMap<FragmentKeyV6, FragmentEntry> = LruHashMap::with_max_entries(FRAGMENTS_MAX, 0);
#[map]
pub static INSIDE_V4: HashMap<EndpointKeyV4, Inside> = HashMap::with_max_entries(FRONTENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static INSIDE_V6: HashMap<EndpointKeyV6, Inside> = HashMap::with_max_entries(FRONTENDS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static ENDPOINTS_V4: Array<EndpointKeyV4> = Array::with_max_entries(ENDPOINTS_MAX, 0);
#[map]
pub static ENDPOINTS_V6: Array<EndpointKeyV6> = Array::with_max_entries(ENDPOINTS_MAX, 0);
#[map]
pub static VIPS_V4: HashMap<[u8; 4], u32> = HashMap::with_max_entries(VIPS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static VIPS_V6: HashMap<[u8; 16], u32> = HashMap::with_max_entries(VIPS_MAX, BPF_F_NO_PREALLOC);
#[map]
pub static DIRECTORY_V4: Array<u64> = Array::with_max_entries(DIRECTORY_WORDS, BPF_F_MMAPABLE);
#[map]
pub static DIRECTORY_V6: Array<u64> = Array::with_max_entries(DIRECTORY_WORDS, BPF_F_MMAPABLE);
#[map]
pub static PLACES_V4: Array<PlaceV4> = Array::with_max_entries(PLACES_MAX, 0);
#[map]
pub static PLACES_V6: Array<PlaceV6> = Array::with_max_entries(PLACES_MAX, 0);
