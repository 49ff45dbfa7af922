//! What the maps hold of some services: enough to plan for these as if all were planned.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use xlb_common::abi::{Frontend, Member};

use super::cursor::Cursor;
use super::desired::{Protocol, ServiceName};
use super::endpoint::Endpoint;
use super::endpoints::ObservedInside;
use super::id_set::IdSet;
use super::observed::{Observed, ObservedService};

/// Which services. Whoever shares a frontend or a pod with one of them is one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Their names, as `SERVICES` has them, of those that are served and those that shall be.
    pub names: BTreeSet<String>,
    /// The frontends that they have or ask for.
    pub frontends: BTreeSet<Endpoint>,
    /// The addresses of the pods that they have or ask for.
    pub pods: BTreeSet<IpAddr>,
}

impl Scope {
    /// Adds a service's name.
    pub fn add_name(&mut self, name: &ServiceName) {
        self.names.insert(name.to_string());
    }
}

/// What the maps hold of some services, or of all.
#[derive(Clone, Debug, PartialEq)]
pub struct Part<'a> {
    /// What they have. Of some services slots, members and backends are left with the whole, and backends' ids are apart.
    pub observed: Cow<'a, Observed>,
    /// `BACKEND_IDS_V4` and `BACKEND_IDS_V6` of their pods, in order.
    pub backend_ids: Vec<(Endpoint, u32)>,
}

impl Observed {
    /// All of it.
    #[must_use]
    pub fn whole(&self) -> Part<'_> {
        let backend_ids = self.backend_ids.iter().map(|(&key, &id)| (key, id)).collect();
        Part { observed: Cow::Borrowed(self), backend_ids }
    }

    /// The part of the services in `scope`. None: it is in doubt, as the maps do not hold what the last whole plan led to;
    /// somebody else has such a frontend, or they lead to a pod that is not among theirs.
    #[must_use]
    pub fn part(&self, scope: &Scope) -> Option<Part<'static>> {
        let mut part = Self { stack_in_use: self.stack_in_use, generation: self.generation, ..Self::default() };
        part.frontends = found(&scope.frontends, &self.frontends);
        let addresses: BTreeSet<IpAddr> = scope.frontends.iter().map(|key| key.socket.ip()).collect();
        part.vips = addresses.iter().filter_map(|address| Some((*address, *self.vips.get(address)?))).collect();
        part.inside = self.inside.part(&scope.frontends);
        let ids: BTreeSet<u32> = part.frontends.values().map(|frontend| frontend.service).collect();
        for id in ids {
            let service = self.services.get(&id).filter(|service| scope.names.contains(&service.name))?;
            part.services.insert(id, service.clone());
        }
        let ranges = part.services.keys().filter_map(|id| self.source_ranges.get_key_value(id));
        part.source_ranges = ranges.map(|(&id, ranges)| (id, ranges.clone())).collect();
        part.sole_frontends = of_pods(&scope.pods, &self.sole_frontends).into_iter().collect();
        let backend_ids = of_pods(&scope.pods, &self.backend_ids);
        let part = Part { observed: Cow::Owned(part), backend_ids };
        self.leads_nowhere_else(&part).then_some(part)
    }

    fn members_of(&self, service: &ObservedService) -> impl Iterator<Item = (u32, &Member)> {
        self.members.range(service.members_base..service.members_base + service.members)
    }

    /// Whether every backend in use to which the part's services refer is in the part.
    fn leads_nowhere_else(&self, part: &Part) -> bool {
        let Part { observed, backend_ids } = part;
        let is_sole = |frontend: &&Frontend| frontend.slots == 0;
        let soles = observed.frontends.values().filter(is_sole).map(|frontend| frontend.sole);
        let members =
            observed.services.values().flat_map(|service| self.members_of(service)).map(|(_, member)| *member);
        let of_part = IdSet::of(backend_ids.iter().map(|(_, id)| *id));
        let is_current = |member: Member| {
            let backend = self.backends.get(&member.id());
            backend.is_some_and(|backend| backend.is_in_use() && backend.generation == member.generation)
        };
        members.chain(soles).all(|member| of_part.contains(member.id()) || !is_current(member))
    }

    /// The addresses of the backends to which a frontend's service refers, as far as they are in use.
    pub fn pods_behind<'a>(&'a self, frontend: &'a Frontend) -> impl Iterator<Item = IpAddr> + 'a {
        let service = self.services.get(&frontend.service);
        let members = service.into_iter().flat_map(|service| self.members_of(service)).map(|(_, member)| *member);
        let sole = (frontend.slots == 0).then_some(frontend.sole);
        members.chain(sole).filter_map(|member| {
            let backend = self.backends.get(&member.id())?;
            (backend.is_in_use() && backend.generation == member.generation).then(|| backend.socket().ip())
        })
    }
}

impl ObservedInside {
    /// The entries of these frontends, and what they lead to.
    fn part(&self, frontends: &BTreeSet<Endpoint>) -> Self {
        let entries = found(frontends, &self.entries);
        let regions = entries.iter().filter_map(|(key, entry)| {
            let at = (key.family(), entry.endpoints_base);
            self.regions.get(&at).map(|region| (at, region.clone()))
        });
        Self { regions: regions.collect(), entries, resting: BTreeMap::new() }
    }
}

fn found<T: Copy>(keys: &BTreeSet<Endpoint>, all: &BTreeMap<Endpoint, T>) -> BTreeMap<Endpoint, T> {
    keys.iter().filter_map(|key| Some((*key, *all.get(key)?))).collect()
}

/// The entries of these addresses, in order.
fn of_pods<T: Copy>(pods: &BTreeSet<IpAddr>, all: &BTreeMap<Endpoint, T>) -> Vec<(Endpoint, T)> {
    if all.is_empty() {
        return Vec::new();
    }
    let (mut all, mut found) = (Cursor::new(all), Vec::with_capacity(pods.len()));
    for &address in pods {
        let first = Endpoint { socket: SocketAddr::new(address, 0), protocol: Protocol::Tcp };
        let last = Endpoint { socket: SocketAddr::new(address, u16::MAX), protocol: Protocol::Sctp };
        for (key, value) in all.between(&first, &last) {
            found.push((*key, *value));
        }
    }
    found
}
