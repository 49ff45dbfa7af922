//! Tables in ordinary memory: what tests fill, and what a packet's path can be asked against without a kernel.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::abi::{Backend, EndpointKeyV4, FlowEntry, FlowKeyV4, Frontend, Member};
use crate::family::V4;
use crate::reason::Reason;
use crate::slot::SlotWord;
use crate::tables::{FlowTable, Proof, Stage, Tables};

/// The maps as collections. A flow map has no limit here: eviction is the simulator's affair.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// `FRONTENDS_V4`.
    pub frontends: BTreeMap<EndpointKeyV4, Frontend>,
    /// `SLOTS`.
    pub slots: BTreeMap<u32, u64>,
    /// `MEMBERS`.
    pub members: BTreeMap<u32, Member>,
    /// `BACKENDS`.
    pub backends: BTreeMap<u32, Backend>,
    /// `BACKEND_IDS_V4`.
    pub backend_ids: BTreeMap<EndpointKeyV4, u32>,
    /// Uplinks and their MACs; an uplink that is not listed accepts every MAC.
    pub uplinks: BTreeMap<u32, [u8; 6]>,
    /// What the pods' kernels know: by namespace id and flow; absent is [`Proof::Absent`].
    pub sockets: BTreeMap<(i32, FlowKeyV4), Proof>,
    /// The clock.
    pub now: u32,
    /// The flow maps, by table and key.
    pub flows: RefCell<BTreeMap<(u8, FlowKeyV4), FlowEntry>>,
    /// Counters.
    pub counts: RefCell<BTreeMap<Reason, u64>>,
    /// The steps of the path, in order.
    pub stages: RefCell<Vec<Stage>>,
}

impl MemoryTables {
    /// A flow's entry.
    #[must_use]
    pub fn flow_of(&self, table: FlowTable, key: &FlowKeyV4) -> Option<FlowEntry> {
        self.flows.borrow().get(&(table as u8, *key)).copied()
    }
}

impl Tables<V4> for MemoryTables {
    fn frontend(&self, key: &EndpointKeyV4) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn slot(&self, index: u32) -> Option<SlotWord> {
        self.slots.get(&index).copied().map(SlotWord)
    }

    fn member(&self, index: u32) -> Option<Member> {
        self.members.get(&index).copied()
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(&id).copied()
    }

    fn is_backend(&self, key: &EndpointKeyV4) -> bool {
        self.backend_ids.contains_key(key)
    }

    fn is_our_mac(&self, ifindex: u32, mac: [u8; 6]) -> bool {
        self.uplinks.get(&ifindex).is_none_or(|&uplink| uplink == mac)
    }

    fn flow(&self, table: FlowTable, key: &FlowKeyV4) -> Option<FlowEntry> {
        self.flow_of(table, key)
    }

    fn remember(&self, table: FlowTable, key: &FlowKeyV4, entry: &FlowEntry) {
        self.flows.borrow_mut().insert((table as u8, *key), *entry);
    }

    fn prove(&self, backend: &Backend, key: &FlowKeyV4) -> Proof {
        self.sockets.get(&(backend.netns_id, *key)).copied().unwrap_or(Proof::Absent)
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn count(&self, reason: Reason) {
        *self.counts.borrow_mut().entry(reason).or_default() += 1;
    }

    fn note(&self, stage: Stage) {
        self.stages.borrow_mut().push(stage);
    }
}
