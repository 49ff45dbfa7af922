//! IPv6's maps are empty: its rules are the same code, and the simulated clients speak IPv4.

use std::ops::Deref;

use xlb_common::abi::{
    AffinityEntry, Backend, EndpointKeyV6, FlowEntry, FlowKeyV6, FragmentEntry, FragmentKeyV6, Frontend, Member,
    ServiceStats, Settings, SoleFrontend, Way, WayKey,
};
use xlb_common::budget::Spending;
use xlb_common::family::{V4, V6};
use xlb_common::parse::TcpView;
use xlb_common::reason::Reason;
use xlb_common::slot::SlotWord;
use xlb_common::tables::{FlowTable, Proof, Tables};

use super::{Found, SimTables};

impl Tables<V6> for SimTables {
    type Flow = Found;

    fn frontend(&self, _key: EndpointKeyV6) -> Option<impl Deref<Target = Frontend>> {
        None::<&Frontend>
    }

    fn slot(&self, index: u32) -> Option<SlotWord> {
        Tables::<V4>::slot(self, index)
    }

    fn member(&self, index: u32) -> Option<Member> {
        Tables::<V4>::member(self, index)
    }

    fn backend(&self, id: u32) -> Option<impl Deref<Target = Backend>> {
        Tables::<V4>::backend(self, id)
    }

    fn is_backend(&self, _key: &EndpointKeyV6) -> bool {
        false
    }

    fn sole_frontend(&self, _pod: &EndpointKeyV6) -> Option<SoleFrontend> {
        None
    }

    fn route(&self, _vip: [u8; 16], _client: [u8; 16]) -> Option<Way> {
        None
    }

    fn is_our_mac(&self, _ifindex: u32, _mac: [u8; 6]) -> bool {
        true
    }

    fn uplink_flags(&self, _ifindex: u32) -> u16 {
        0
    }

    fn note_half_open(&self, _ifindex: u32) {}

    fn way(&self, _key: &WayKey) -> Option<Way> {
        None
    }

    fn flow_at(&self, _table: FlowTable, _key: &FlowKeyV6) -> Option<Found> {
        None
    }

    fn forget(&self, _table: FlowTable, _key: &FlowKeyV6) {}

    fn change(&self, _table: FlowTable, _key: &FlowKeyV6, _change: impl FnOnce(&mut FlowEntry)) -> bool {
        false
    }

    fn remember(&self, _table: FlowTable, _key: &FlowKeyV6, _entry: &FlowEntry) {}

    fn is_allowed_source(&self, _service: u32, _client: [u8; 16]) -> bool {
        true
    }

    fn affinity(&self, _service: u32, _client: [u8; 16]) -> Option<AffinityEntry> {
        None
    }

    fn record_affinity(&self, _service: u32, _client: [u8; 16], _entry: &AffinityEntry) {}

    fn fragment(&self, _key: &FragmentKeyV6) -> Option<FragmentEntry> {
        None
    }

    fn record_fragment(&self, _key: &FragmentKeyV6, _entry: &FragmentEntry) {}

    fn prove(&self, _backend: &Backend, _key: &FlowKeyV6) -> Proof {
        Proof::Absent
    }

    fn gave_cookie(&self, _key: &FlowKeyV6, _tcp: &TcpView) -> bool {
        false
    }

    fn pin(&self, _key: &FlowKeyV6) -> Option<Member> {
        None
    }

    fn record_pin(&self, _key: &FlowKeyV6, _member: &Member) {}

    fn now(&self) -> u32 {
        Tables::<V4>::now(self)
    }

    fn now_ns(&self) -> u64 {
        Tables::<V4>::now_ns(self)
    }

    fn report_address(&self, _ifindex: u32) -> Option<[u8; 16]> {
        None
    }

    fn may_spend(&self, _spending: Spending) -> bool {
        true
    }

    fn vip(&self, _address: [u8; 16]) -> Option<u32> {
        None
    }

    fn settings(&self) -> Settings {
        Settings::default()
    }

    fn count(&self, _reason: Reason) {}

    fn count_service(&self, _index: u16, change: impl FnOnce(&mut ServiceStats)) {
        change(&mut ServiceStats::default());
    }
}
