//! What the maps hold, as far as the page shows it: from what the agent knows of them, or was read back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use xlb_common::abi::{Backend, Frontend, Member, frontend_flags as flags};

use crate::cli::services::takes_new;
use crate::model::ObjectName;
use crate::plan::desired::{ServiceName, WhenEmpty};
use crate::plan::observed::ObservedService;
use crate::plan::{Endpoint, Observed};

/// Everything that is served, those with backends on this node first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Completed updates of the maps before it was taken.
    pub generation: u64,
    /// The services.
    pub services: Vec<Row>,
}

/// A Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id in the maps.
    pub id: u32,
    /// `namespace/name:port`, as everywhere.
    pub name: String,
    /// Its VIPs with port and protocol.
    pub frontends: Vec<Endpoint>,
    /// What becomes of new connections when it has nobody for them.
    pub when_empty: WhenEmpty,
    /// Slots; zero: the only backend gets everything.
    pub slots: u32,
    /// Its backends on this node.
    pub backends: Vec<Share>,
}

/// A backend's part in a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its id in the maps.
    pub id: u32,
    /// The pod's address and port.
    pub address: SocketAddr,
    /// Slots that it owns: its share of new connections.
    pub slots: u32,
    /// Slots that it owned before, and may hold connections of.
    pub former_slots: u32,
    /// Whether packets go straight to its link.
    pub is_direct: bool,
    /// The host's end of its link; zero: it has none.
    pub ifindex: u32,
    /// Whether its sockets cannot be asked.
    pub is_hidden: bool,
}

impl Shown {
    /// What these maps hold.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        let mut services: BTreeMap<u32, Row> =
            observed.services.iter().map(|(&id, service)| (id, row(id, service))).collect();
        let mut soles = BTreeMap::new();
        for (key, frontend) in &observed.frontends {
            let Some(row) = services.get_mut(&frontend.service) else { continue };
            row.frontends.push(*key);
            // Of several frontends the strictest counts.
            row.when_empty = row.when_empty.max(when_empty(frontend));
            if frontend.slots == 0 {
                soles.entry(frontend.service).or_insert(frontend.sole);
            }
        }
        for (id, row) in &mut services {
            match soles.get(id) {
                Some(sole) => (row.slots, row.backends) = (0, share(observed, *sole, 0, 0).into_iter().collect()),
                None => row.backends = shares(observed, &observed.services[id]),
            }
        }
        let mut services: Vec<Row> = services.into_values().collect();
        services
            .sort_by(|one, other| (one.backends.is_empty(), &one.name).cmp(&(other.backends.is_empty(), &other.name)));
        Self { generation: observed.generation, services }
    }

    /// The Services that are among them.
    #[must_use]
    pub fn objects(&self) -> BTreeSet<ObjectName> {
        self.services.iter().filter_map(Row::object).collect()
    }
}

impl Row {
    /// The Service that it is of. Not kept: there may be ten thousand rows, and few whose Service anybody looks for.
    #[must_use]
    pub fn object(&self) -> Option<ObjectName> {
        let ServiceName { namespace, name, .. } = ServiceName::parse(&self.name)?;
        Some(ObjectName { namespace, name })
    }

    /// Whether a backend takes new connections.
    #[must_use]
    pub fn takes_new(&self) -> bool {
        self.backends.iter().any(|share| takes_new(share.slots, self.slots))
    }
}

fn row(id: u32, service: &ObservedService) -> Row {
    Row {
        id,
        name: service.name.clone(),
        frontends: Vec::new(),
        when_empty: WhenEmpty::Pass,
        slots: service.slots,
        backends: Vec::new(),
    }
}

fn when_empty(frontend: &Frontend) -> WhenEmpty {
    match () {
        () if frontend.has(flags::REJECT_WHEN_EMPTY) => WhenEmpty::Reject,
        () if frontend.has(flags::DROP_WHEN_EMPTY) => WhenEmpty::Drop,
        () => WhenEmpty::Pass,
    }
}

fn shares(observed: &Observed, service: &ObservedService) -> Vec<Share> {
    let named = observed.named(service);
    named.filter_map(|(member, owned, owned_before)| share(observed, member, owned, owned_before)).collect()
}

fn share(observed: &Observed, member: Member, slots: u32, former_slots: u32) -> Option<Share> {
    let backend: &Backend = observed.backends.get(&member.id())?;
    let is_current = backend.is_in_use() && backend.generation == member.generation;
    is_current.then(|| Share {
        id: member.id(),
        address: backend.socket(),
        slots,
        former_slots,
        is_direct: backend.is_direct(),
        ifindex: backend.ifindex,
        is_hidden: backend.is_hidden(),
    })
}
