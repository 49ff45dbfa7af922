//! The tables for clients inside, in ordinary memory.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::abi::{Inside, InsideAffinity, InsideAffinityKey, InsideFlow, InsideFlowKey, NetnsAddressKey};
use crate::inside::{InsideTables, Peer};
use crate::memory::{InMemory, MemoryTables};

/// The maps of both families.
#[derive(Clone, Debug, Default)]
pub struct InsideMemory {
    /// `NETNS_ADDRESSES`.
    pub addresses: BTreeMap<NetnsAddressKey, [u8; 16]>,
    /// `INSIDE_AFFINITY`.
    pub affinity: RefCell<BTreeMap<InsideAffinityKey, InsideAffinity>>,
    /// `INSIDE_FLOWS` and `INSIDE_UDP_FLOWS`.
    pub flows: RefCell<BTreeMap<InsideFlowKey, InsideFlow>>,
}

impl<F: InMemory> InsideTables<F> for MemoryTables {
    fn inside(&self, key: &F::EndpointKey) -> Option<Inside> {
        F::of(self).inside.get(key).copied()
    }

    fn endpoint(&self, index: u32) -> Option<Peer<F>> {
        F::of(self).endpoints.get(&index).map(|&key| F::peer(key))
    }

    fn address_of(&self, key: &NetnsAddressKey) -> Option<F::Address> {
        self.inside.addresses.get(key).map(|&address| F::from_stored(address))
    }

    fn inside_affinity(&self, key: &InsideAffinityKey) -> Option<InsideAffinity> {
        self.inside.affinity.borrow().get(key).copied()
    }

    fn record_inside_affinity(&self, key: &InsideAffinityKey, value: &InsideAffinity) {
        self.inside.affinity.borrow_mut().insert(*key, *value);
    }

    fn inside_flow(&self, key: &InsideFlowKey) -> Option<InsideFlow> {
        self.inside.flows.borrow().get(key).copied()
    }

    fn remember_inside_flow(&self, key: &InsideFlowKey, value: &InsideFlow) {
        self.inside.flows.borrow_mut().insert(*key, *value);
    }
}
