//! The live maps as the packet path sees them, for `xlb explain`: everything is read, nothing is written or counted.

use std::cell::RefCell;

use anyhow::{Context, Result, bail};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use xlb_common::abi::{Backend, EndpointKeyV4, FlowEntry, FlowKeyV4, FlowKeyV6, Frontend, Member, ProofQuestion};
use xlb_common::slot::SlotWord;
use xlb_common::tables::{FlowTable, Proof, Stage, Tables};
use xlb_common::{Family as _, Reason, V4};

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

    /// What the kernel of the namespace knows of a flow. Namespace ids are those of the caller's own namespace.
    ///
    /// # Errors
    /// When the kernel refuses the test-run.
    pub fn ask(&self, netns_id: i32, flow: FlowKeyV4) -> Result<Proof> {
        let question = ProofQuestion { ethernet: [0; 16], flow: widened(flow), netns_id, family: 4 };
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

/// An IPv4 flow where a question has room for either family's.
fn widened(flow: FlowKeyV4) -> FlowKeyV6 {
    let FlowKeyV4 { client, pod, client_port, pod_port } = flow;
    FlowKeyV6 { client: V4::to_stored(client), pod: V4::to_stored(pod), client_port, pod_port }
}

impl Tables<V4> for LiveTables<'_> {
    fn frontend(&self, key: &EndpointKeyV4) -> Option<Frontend> {
        self.maps.frontend(key)
    }

    fn slot(&self, index: u32) -> Option<SlotWord> {
        self.maps.slot(index)
    }

    fn member(&self, index: u32) -> Option<Member> {
        self.maps.member(index)
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.maps.backend(id)
    }

    fn is_backend(&self, key: &EndpointKeyV4) -> bool {
        self.maps.is_backend(key)
    }

    fn is_our_mac(&self, _ifindex: u32, _mac: [u8; 6]) -> bool {
        true
    }

    fn flow(&self, table: FlowTable, key: &FlowKeyV4) -> Option<FlowEntry> {
        self.maps.flow(table, key)
    }

    fn remember(&self, _table: FlowTable, _key: &FlowKeyV4, _entry: &FlowEntry) {}

    fn prove(&self, backend: &Backend, key: &FlowKeyV4) -> Proof {
        self.ask(backend.netns_id, *key).unwrap_or(Proof::Absent)
    }

    fn now(&self) -> u32 {
        0
    }

    fn count(&self, _reason: Reason) {}

    fn note(&self, stage: Stage) {
        self.stages.borrow_mut().push(stage);
    }
}
