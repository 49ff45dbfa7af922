//! The live maps as the packet path sees them, for `xlb explain`: everything is read, nothing is written or counted.

use std::cell::RefCell;
use std::ops::Deref;

use anyhow::{Context, Result, bail};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use xlb_common::abi::{
    AffinityEntry, Backend, EndpointKeyV4, EndpointKeyV6, FlowEntry, FlowKeyV6, FragmentEntry, Frontend, Member,
    ProofQuestion, ServiceStats, Settings, SoleFrontend, Way, WayKey,
};
use xlb_common::budget::Spending;
use xlb_common::parse::TcpView;
use xlb_common::slot::SlotWord;
use xlb_common::tables::{FlowTable, Proof, Stage, Tables, now_of};
use xlb_common::{Family, Reason};

use crate::maps::family::FamilyMaps;
use crate::maps::kernel;
use crate::maps::keys::Keys;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;

/// The tables of a running dataplane, with the steps that a path took through them.
pub struct LiveTables<'a> {
    maps: &'a LiveMaps,
    prove: SchedClassifier,
    /// What the path did, in order.
    pub stages: RefCell<Vec<Stage>>,
}

impl<'a> LiveTables<'a> {
    /// Tables over `maps`, which are pinned in `pins` beside the program that asks pods' kernels.
    ///
    /// # Errors
    /// When that program is not pinned.
    pub fn new(maps: &'a LiveMaps, pins: &PinDirectory) -> Result<Self> {
        let path = pins.program("prove");
        let prove = SchedClassifier::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { maps, prove, stages: RefCell::default() })
    }

    /// What the kernel of the namespace knows of a flow of that IP version. Namespace ids are those of the caller's own namespace.
    ///
    /// # Errors
    /// When the kernel refuses the test-run.
    pub fn ask(&self, netns_id: i32, family: u8, flow: FlowKeyV6) -> Result<Proof> {
        let question = ProofQuestion { ethernet: [0; 16], flow, netns_id, family: family.into() };
        let mut options = TestRunOptions::new();
        options.data_in = Some(bytemuck::bytes_of(&question));
        let answer = self.prove.test_run(options).context("asking a pod's kernel by test-run")?.return_value;
        match answer {
            0 => Ok(Proof::Absent),
            1 => Ok(Proof::Listening),
            2 => Ok(Proof::HalfOpen),
            3 => Ok(Proof::TimeWait),
            4 => Ok(Proof::Owned),
            other => bail!("the program `prove` answered {other}: it is of another version of xlb"),
        }
    }
}

/// Keys whose maps [`LiveMaps`] has.
pub trait Live: Keys {
    /// The family's maps.
    fn of(maps: &LiveMaps) -> &FamilyMaps<Self>;
}

impl Live for EndpointKeyV4 {
    fn of(maps: &LiveMaps) -> &FamilyMaps<Self> {
        &maps.v4
    }
}

impl Live for EndpointKeyV6 {
    fn of(maps: &LiveMaps) -> &FamilyMaps<Self> {
        &maps.v6
    }
}

impl<F: Family> Tables<F> for LiveTables<'_>
where
    F::EndpointKey: Live<FlowKey = F::FlowKey, SourceKey = F::SourceKey, Address = F::Address>,
{
    type Flow = Box<FlowEntry>;

    fn frontend(&self, key: F::EndpointKey) -> Option<impl Deref<Target = Frontend>> {
        F::EndpointKey::of(self.maps).frontend(&key).map(Box::new)
    }

    fn slot(&self, index: u32) -> Option<SlotWord> {
        self.maps.slot(index)
    }

    fn member(&self, index: u32) -> Option<Member> {
        self.maps.member(index)
    }

    fn backend(&self, id: u32) -> Option<impl Deref<Target = Backend>> {
        self.maps.backend(id).map(Box::new)
    }

    fn is_backend(&self, key: &F::EndpointKey) -> bool {
        F::EndpointKey::of(self.maps).is_backend(key)
    }

    fn sole_frontend(&self, pod: &F::EndpointKey) -> Option<SoleFrontend> {
        F::EndpointKey::of(self.maps).sole_frontend(pod)
    }

    /// What a pod answers is not explained.
    fn route(&self, _vip: F::Address, _client: F::Address) -> Option<Way> {
        None
    }

    fn is_our_mac(&self, _ifindex: u32, _mac: [u8; 6]) -> bool {
        true
    }

    /// The packet that is explained comes by no uplink, and nothing is to be written for it.
    fn uplink_flags(&self, _ifindex: u32) -> u16 {
        0
    }

    fn note_half_open(&self, _ifindex: u32) {}

    fn way(&self, _key: &WayKey) -> Option<Way> {
        None
    }

    fn flow_at(&self, table: FlowTable, key: &F::FlowKey) -> Option<Box<FlowEntry>> {
        F::EndpointKey::of(self.maps).flow(table, key).map(Box::new)
    }

    fn remember(&self, _table: FlowTable, _key: &F::FlowKey, _entry: &FlowEntry) {}

    fn forget(&self, _table: FlowTable, _key: &F::FlowKey) {}

    fn change(&self, _table: FlowTable, _key: &F::FlowKey, _change: impl FnOnce(&mut FlowEntry)) -> bool {
        false
    }

    fn is_allowed_source(&self, service: u32, client: F::Address) -> bool {
        F::EndpointKey::of(self.maps).is_allowed_source(F::source_key(service, client))
    }

    fn affinity(&self, service: u32, client: F::Address) -> Option<AffinityEntry> {
        F::EndpointKey::of(self.maps).affinity(F::source_key(service, client))
    }

    fn record_affinity(&self, _service: u32, _client: F::Address, _entry: &AffinityEntry) {}

    /// The packet that is explained is whole.
    fn fragment(&self, _key: &F::FragmentKey) -> Option<FragmentEntry> {
        None
    }

    fn record_fragment(&self, _key: &F::FragmentKey, _entry: &FragmentEntry) {}

    fn prove(&self, backend: &Backend, key: &F::FlowKey) -> Proof {
        self.ask(backend.netns_id, F::VERSION, F::EndpointKey::widened(*key)).unwrap_or(Proof::Absent)
    }

    /// The packet that is explained has no numbers.
    fn gave_cookie(&self, _key: &F::FlowKey, _tcp: &TcpView) -> bool {
        false
    }

    fn pin(&self, key: &F::FlowKey) -> Option<Member> {
        F::EndpointKey::of(self.maps).pin(key)
    }

    fn record_pin(&self, _key: &F::FlowKey, _member: &Member) {}

    fn now(&self) -> u32 {
        now_of(Tables::<F>::now_ns(self))
    }

    /// The clock that the programs record affinity by.
    fn now_ns(&self) -> u64 {
        kernel::now_ns().unwrap_or_default()
    }

    /// The packet that is explained came by no uplink: its report is told of as the VIP's.
    fn report_address(&self, _ifindex: u32) -> Option<F::Address> {
        None
    }

    /// Nothing is sent, so nothing is spent.
    fn may_spend(&self, _spending: Spending) -> bool {
        true
    }

    fn vip(&self, address: F::Address) -> Option<u32> {
        F::EndpointKey::of(self.maps).vip(address)
    }

    fn settings(&self) -> Settings {
        self.maps.config().map_or(Settings::default(), |config| config.settings)
    }

    fn count(&self, _reason: Reason) {}

    fn count_service(&self, _index: u16, _change: impl FnOnce(&mut ServiceStats)) {}

    fn note(&self, stage: Stage) {
        self.stages.borrow_mut().push(stage);
    }
}
