//! Flows of both families in one collection, for what tests compare and tell.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use xlb_common::abi::{FlowEntry, FlowKeyV4, FlowKeyV6};
use xlb_common::memory::{FamilyTables, InMemory, MemoryTables};
use xlb_common::{Family, V4, V6};

/// Flows by table and key.
pub type Flows = BTreeMap<(u8, FlowKey), FlowEntry>;

/// The key of a flow, as a pod of either family sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowKey {
    /// IPv4.
    V4(FlowKeyV4),
    /// IPv6.
    V6(FlowKeyV6),
}

impl FlowKey {
    /// From both ends, which are of one family.
    pub fn between(client: SocketAddr, pod: SocketAddr) -> Result<Self> {
        let (client_port, pod_port) = (client.port().to_be_bytes(), pod.port().to_be_bytes());
        Ok(match (client.ip(), pod.ip()) {
            (IpAddr::V4(client), IpAddr::V4(pod)) => {
                Self::V4(V4::flow_key((client.octets(), client_port), (pod.octets(), pod_port)))
            }
            (IpAddr::V6(client), IpAddr::V6(pod)) => {
                Self::V6(V6::flow_key((client.octets(), client_port), (pod.octets(), pod_port)))
            }
            (client, pod) => bail!("{client} and {pod} are of two families"),
        })
    }

    /// Client and pod.
    #[must_use]
    pub fn ends(&self) -> [SocketAddr; 2] {
        match self {
            Self::V4(key) => [socket(key.client, key.client_port), socket(key.pod, key.pod_port)],
            Self::V6(key) => [socket(key.client, key.client_port), socket(key.pod, key.pod_port)],
        }
    }
}

/// An address and port in network byte order.
pub fn socket(address: impl Into<IpAddr>, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be_bytes(port))
}

/// The address that `Backend` and `FlowEntry` keep, of a family.
#[must_use]
pub fn stored(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => V4::to_stored(address.octets()),
        IpAddr::V6(address) => address.octets(),
    }
}

/// All flows that the tables have.
#[must_use]
pub fn of(tables: &MemoryTables) -> Flows {
    let mut flows = Flows::new();
    flows.extend(tables.v4.flows.borrow().iter().map(|((table, key), entry)| ((*table, FlowKey::V4(*key)), *entry)));
    flows.extend(tables.v6.flows.borrow().iter().map(|((table, key), entry)| ((*table, FlowKey::V6(*key)), *entry)));
    flows
}

/// Replaces all flows of the tables, which know nothing of fragments then.
pub fn set(tables: &MemoryTables, flows: &Flows) {
    tables.v4.fragments.borrow_mut().clear();
    tables.v6.fragments.borrow_mut().clear();
    clear::<V4>(tables).flows.borrow_mut().extend(flows.iter().filter_map(|((table, key), entry)| match key {
        FlowKey::V4(key) => Some(((*table, *key), *entry)),
        FlowKey::V6(_) => None,
    }));
    clear::<V6>(tables).flows.borrow_mut().extend(flows.iter().filter_map(|((table, key), entry)| match key {
        FlowKey::V6(key) => Some(((*table, *key), *entry)),
        FlowKey::V4(_) => None,
    }));
}

fn clear<F: InMemory>(tables: &MemoryTables) -> &FamilyTables<F> {
    F::of(tables).flows.borrow_mut().clear();
    F::of(tables)
}
