//! Which maps belong to which IP version.

use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap};
use xlb_common::abi::{
    AffinityEntry, EndpointKeyV4, EndpointKeyV6, FlowEntry, FlowKeyV4, FlowKeyV6, FragmentEntry, FragmentKeyV4,
    FragmentKeyV6, Frontend, Inside, Member, SoleFrontend, SourceKeyV4, SourceKeyV6, Uplink,
};
use xlb_common::directory::{Found, Placed, find};
use xlb_common::parse::TcpView;
use xlb_common::tables::FlowTable;
use xlb_common::{Family, V4, V6};

use crate::cookies;

use super::declared::{
    AFFINITY_V4, AFFINITY_V6, BACKEND_IDS_V4, BACKEND_IDS_V6, DIRECTORY_V4, DIRECTORY_V6, ENDPOINTS_V4, ENDPOINTS_V6,
    FLOWS_V4, FLOWS_V6, FRAGMENTS_V4, FRAGMENTS_V6, FRONTENDS_V4, FRONTENDS_V6, INSIDE_V4, INSIDE_V6, PENDING_V4,
    PENDING_V6, PINS_V4, PINS_V6, PLACES_V4, PLACES_V6, SCTP_FLOWS_V4, SCTP_FLOWS_V6, SCTP_PENDING_V4, SCTP_PENDING_V6,
    SOLE_FRONTENDS_V4, SOLE_FRONTENDS_V6, SOURCE_RANGES_V4, SOURCE_RANGES_V6, UDP_FLOWS_V4, UDP_FLOWS_V6,
    UDP_PENDING_V4, UDP_PENDING_V6, VIPS_V4, VIPS_V6,
};

/// The maps that a family has for itself.
pub trait FamilyMaps: Family {
    /// The frontend of a VIP, port and protocol.
    fn frontend(key: &Self::EndpointKey) -> Option<&'static Frontend>;
    /// The same for a packet of a kind.
    fn frontend_of_kind(key: &Self::EndpointKey) -> Option<&'static Frontend>;
    /// Backends' ids by address, port and protocol.
    fn backend_ids() -> &'static HashMap<Self::EndpointKey, u32>;
    /// Backends' only frontends, by address, port and protocol.
    fn sole_frontends() -> &'static HashMap<Self::EndpointKey, SoleFrontend>;
    /// One of the flow maps.
    fn flows(table: FlowTable) -> &'static LruHashMap<Self::FlowKey, FlowEntry>;
    /// Source ranges.
    fn source_ranges() -> &'static LpmTrie<Self::SourceKey, u32>;
    /// Where the owners of flows were found.
    fn pins() -> &'static LruHashMap<Self::FlowKey, Member>;
    /// Where clients' last connections went.
    fn affinity() -> &'static LruHashMap<Self::SourceKey, AffinityEntry>;
    /// Where the first fragments of datagrams went.
    fn fragments() -> &'static LruHashMap<Self::FragmentKey, FragmentEntry>;
    /// Services as clients inside see them, by VIP, port and protocol.
    fn inside() -> &'static HashMap<Self::EndpointKey, Inside>;
    /// Endpoints of the whole cluster.
    fn endpoints() -> &'static Array<Self::EndpointKey>;
    /// What is known of VIPs.
    fn vips() -> &'static HashMap<Self::Address, u32>;
    /// The node's address on an uplink; zero: it has none.
    fn address_of(uplink: &Uplink) -> Self::Address;
    /// Whether this kernel gave the SYN cookie that the segment acknowledges.
    fn gave_cookie(key: &Self::FlowKey, tcp: &TcpView) -> bool;
}

#[inline(always)]
fn frontend_by<K: Placed>(
    key: &K,
    directory: &'static Array<u64>,
    places: &'static Array<K::Place>,
    frontends: &'static HashMap<K, Frontend>,
) -> Option<&'static Frontend> {
    match find(key, |index| directory.get(index).copied(), |index| places.get(index)) {
        Found::Here(frontend) => Some(frontend),
        Found::Nowhere => None,
        Found::Ask => frontend_in(key, frontends),
    }
}

#[inline(always)]
fn frontend_in<K: Placed>(key: &K, frontends: &'static HashMap<K, Frontend>) -> Option<&'static Frontend> {
    // SAFETY: the agent replaces the value as a whole, never in place, and the kernel frees the old one when every program
    // that may see it has ended.
    unsafe { frontends.get(key) }
}

impl FamilyMaps for V4 {
    #[inline(always)]
    fn frontend(key: &EndpointKeyV4) -> Option<&'static Frontend> {
        frontend_by(key, &DIRECTORY_V4, &PLACES_V4, &FRONTENDS_V4)
    }

    #[inline(always)]
    fn frontend_of_kind(key: &EndpointKeyV4) -> Option<&'static Frontend> {
        frontend_in(key, &FRONTENDS_V4)
    }

    #[inline(always)]
    fn backend_ids() -> &'static HashMap<EndpointKeyV4, u32> {
        &BACKEND_IDS_V4
    }

    #[inline(always)]
    fn sole_frontends() -> &'static HashMap<EndpointKeyV4, SoleFrontend> {
        &SOLE_FRONTENDS_V4
    }

    #[inline(always)]
    fn flows(table: FlowTable) -> &'static LruHashMap<FlowKeyV4, FlowEntry> {
        match table {
            FlowTable::Tcp => &FLOWS_V4,
            FlowTable::TcpPending => &PENDING_V4,
            FlowTable::Udp => &UDP_FLOWS_V4,
            FlowTable::UdpPending => &UDP_PENDING_V4,
            FlowTable::Sctp => &SCTP_FLOWS_V4,
            FlowTable::SctpPending => &SCTP_PENDING_V4,
        }
    }

    #[inline(always)]
    fn source_ranges() -> &'static LpmTrie<SourceKeyV4, u32> {
        &SOURCE_RANGES_V4
    }

    #[inline(always)]
    fn pins() -> &'static LruHashMap<FlowKeyV4, Member> {
        &PINS_V4
    }

    #[inline(always)]
    fn affinity() -> &'static LruHashMap<SourceKeyV4, AffinityEntry> {
        &AFFINITY_V4
    }

    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragmentKeyV4, FragmentEntry> {
        &FRAGMENTS_V4
    }

    #[inline(always)]
    fn inside() -> &'static HashMap<EndpointKeyV4, Inside> {
        &INSIDE_V4
    }

    #[inline(always)]
    fn endpoints() -> &'static Array<EndpointKeyV4> {
        &ENDPOINTS_V4
    }

    #[inline(always)]
    fn vips() -> &'static HashMap<[u8; 4], u32> {
        &VIPS_V4
    }

    #[inline(always)]
    fn address_of(uplink: &Uplink) -> [u8; 4] {
        uplink.address_v4
    }

    #[inline(always)]
    fn gave_cookie(key: &FlowKeyV4, tcp: &TcpView) -> bool {
        cookies::gave_v4(key, tcp)
    }
}

impl FamilyMaps for V6 {
    #[inline(always)]
    fn frontend(key: &EndpointKeyV6) -> Option<&'static Frontend> {
        frontend_by(key, &DIRECTORY_V6, &PLACES_V6, &FRONTENDS_V6)
    }

    #[inline(always)]
    fn frontend_of_kind(key: &EndpointKeyV6) -> Option<&'static Frontend> {
        frontend_in(key, &FRONTENDS_V6)
    }

    #[inline(always)]
    fn backend_ids() -> &'static HashMap<EndpointKeyV6, u32> {
        &BACKEND_IDS_V6
    }

    #[inline(always)]
    fn sole_frontends() -> &'static HashMap<EndpointKeyV6, SoleFrontend> {
        &SOLE_FRONTENDS_V6
    }

    #[inline(always)]
    fn flows(table: FlowTable) -> &'static LruHashMap<FlowKeyV6, FlowEntry> {
        match table {
            FlowTable::Tcp => &FLOWS_V6,
            FlowTable::TcpPending => &PENDING_V6,
            FlowTable::Udp => &UDP_FLOWS_V6,
            FlowTable::UdpPending => &UDP_PENDING_V6,
            FlowTable::Sctp => &SCTP_FLOWS_V6,
            FlowTable::SctpPending => &SCTP_PENDING_V6,
        }
    }

    #[inline(always)]
    fn source_ranges() -> &'static LpmTrie<SourceKeyV6, u32> {
        &SOURCE_RANGES_V6
    }

    #[inline(always)]
    fn pins() -> &'static LruHashMap<FlowKeyV6, Member> {
        &PINS_V6
    }

    #[inline(always)]
    fn affinity() -> &'static LruHashMap<SourceKeyV6, AffinityEntry> {
        &AFFINITY_V6
    }

    #[inline(always)]
    fn fragments() -> &'static LruHashMap<FragmentKeyV6, FragmentEntry> {
        &FRAGMENTS_V6
    }

    #[inline(always)]
    fn inside() -> &'static HashMap<EndpointKeyV6, Inside> {
        &INSIDE_V6
    }

    #[inline(always)]
    fn endpoints() -> &'static Array<EndpointKeyV6> {
        &ENDPOINTS_V6
    }

    #[inline(always)]
    fn vips() -> &'static HashMap<[u8; 16], u32> {
        &VIPS_V6
    }

    #[inline(always)]
    fn address_of(uplink: &Uplink) -> [u8; 16] {
        uplink.address_v6
    }

    #[inline(always)]
    fn gave_cookie(key: &FlowKeyV6, tcp: &TcpView) -> bool {
        cookies::gave_v6(key, tcp)
    }
}
