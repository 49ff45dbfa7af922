//! What the maps hold of some services: enough to plan for these as if all were planned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use xlb_common::abi::{Frontend, Member};

use super::desired::{Protocol, ServiceName};
use super::endpoint::Endpoint;
use super::endpoints::ObservedInside;
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

impl Observed {
    /// The part of the services in `scope`. None: it is in doubt, as the maps do not hold what the last whole plan led to;
    /// somebody else has such a frontend, or they lead to a pod that is not among theirs.
    #[must_use]
    pub fn part(&self, scope: &Scope) -> Option<Self> {
        let mut part = Self { stack_in_use: self.stack_in_use, generation: self.generation, ..Self::default() };
        part.frontends = found(&scope.frontends, &self.frontends);
        let addresses: BTreeSet<IpAddr> = scope.frontends.iter().map(|key| key.socket.ip()).collect();
        part.vips = addresses.iter().filter_map(|address| Some((*address, *self.vips.get(address)?))).collect();
        part.inside = self.inside.part(&scope.frontends);
        let ids: BTreeSet<u32> = part.frontends.values().map(|frontend| frontend.service).collect();
        for id in ids {
            let service = self.services.get(&id).filter(|service| scope.names.contains(&service.name))?;
            self.add_service(id, service, &mut part);
        }
        for &address in &scope.pods {
            let (first, last) = (SocketAddr::new(address, 0), SocketAddr::new(address, u16::MAX));
            let (first, last) = (endpoint(first, Protocol::Tcp), endpoint(last, Protocol::Udp));
            part.sole_frontends.extend(self.sole_frontends.range(first..=last).map(|(&pod, &sole)| (pod, sole)));
            for (&key, &id) in self.backend_ids.range(first..=last) {
                part.backend_ids.insert(key, id);
                part.backends.extend(self.backends.get(&id).map(|backend| (id, *backend)));
            }
        }
        self.leads_nowhere_else(&part).then_some(part)
    }

    fn add_service(&self, id: u32, service: &ObservedService, part: &mut Self) {
        part.services.insert(id, service.clone());
        part.source_ranges.extend(self.source_ranges.get(&id).map(|ranges| (id, ranges.clone())));
        if let Some(words) = self.words(service) {
            part.slots.insert(service.slots_base, words.to_vec());
        }
        part.members.extend(self.members_of(service).map(|(&index, &member)| (index, member)));
    }

    fn members_of(&self, service: &ObservedService) -> impl Iterator<Item = (&u32, &Member)> {
        self.members.range(service.members_base..service.members_base + service.members)
    }

    /// Whether every backend in use to which the part's services refer is in the part.
    fn leads_nowhere_else(&self, part: &Self) -> bool {
        let is_sole = |frontend: &&Frontend| frontend.slots == 0;
        let soles = part.frontends.values().filter(is_sole).map(|frontend| frontend.sole);
        let mut references = part.members.values().copied().chain(soles);
        references.all(|member| {
            let backend = self.backends.get(&member.id());
            let is_current =
                backend.is_some_and(|backend| backend.is_in_use() && backend.generation == member.generation);
            !is_current || part.backends.contains_key(&member.id())
        })
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

fn endpoint(socket: SocketAddr, protocol: Protocol) -> Endpoint {
    Endpoint { socket, protocol }
}
