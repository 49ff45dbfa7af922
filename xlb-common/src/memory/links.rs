//! The tables for clients at links, in ordinary memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::abi::{InsideAffinity, InsideFlow, LinkFlowKey};
use crate::links::LinkTables;
use crate::memory::{InMemory, MemoryTables};

/// The maps of both families.
#[derive(Clone, Debug, Default)]
pub struct LinkMemory {
    /// `LINK_FLOWS` and `LINK_UDP_FLOWS`.
    pub flows: RefCell<BTreeMap<LinkFlowKey, InsideFlow>>,
    /// `LINK_AFFINITY`, by service and client.
    pub affinity: RefCell<BTreeMap<(u32, [u8; 16]), InsideAffinity>>,
    /// `CLIENT_LINKS`.
    pub clients: RefCell<BTreeSet<u32>>,
}

impl<F: InMemory> LinkTables<F> for MemoryTables {
    fn link_flow(&self, key: &LinkFlowKey) -> Option<InsideFlow> {
        self.links.flows.borrow().get(key).copied()
    }

    fn remember_link_flow(&self, key: &LinkFlowKey, value: &InsideFlow) {
        self.links.flows.borrow_mut().insert(*key, *value);
    }

    fn link_affinity(&self, service: u32, client: F::Address) -> Option<InsideAffinity> {
        self.links.affinity.borrow().get(&(service, F::to_stored(client))).copied()
    }

    fn record_link_affinity(&self, service: u32, client: F::Address, value: &InsideAffinity) {
        self.links.affinity.borrow_mut().insert((service, F::to_stored(client)), *value);
    }

    fn has_clients(&self, ifindex: u32) -> bool {
        self.links.clients.borrow().contains(&ifindex)
    }

    fn note_clients(&self, ifindex: u32) {
        self.links.clients.borrow_mut().insert(ifindex);
    }
}
