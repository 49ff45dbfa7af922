//! What every Service was answered last, so that only those are decided again that something happened to. Pure.
//!
//! A round decides and plans a part: the Services that were touched, and all that are tied to them ([`Ties`]). Invariant:
//! what is kept is what deciding for all Services would give, and the plan for a part is the plan for all
//! (`agent::kept` and `plan` property tests).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::agent::inside::ClientsInside;
use crate::agent::linger;
use crate::model::desired::{Refusals, in_order, local_pods};
use crate::model::frontends::{asked, claiming_services, claims, is_in_doubt};
use crate::model::objects::Service;
use crate::model::ties::{Tie, Ties};
use crate::model::{Answer, Model, ObjectName, Policy, Setting, answer};
use crate::plan::desired::{Desired, DesiredService, Family, Protocol, Refusal, ServiceName};
use crate::plan::part::{Part, Scope};
use crate::plan::{Limits, Observed, Plan, object_of_backend, plan, plan_part};

/// Most Services of a part. With more it is quicker to decide for all.
pub const PART_MAX: usize = 512;

/// The answers that hold.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    services: BTreeMap<ServiceName, DesiredService>,
    refusals: Refusals,
    ties: Ties,
    /// Services that depend on all others: [`is_in_doubt`].
    in_doubt: BTreeSet<ObjectName>,
    /// How many of the services each family has.
    families: BTreeMap<Family, usize>,
}

/// What was decided for some Services, or for all.
#[derive(Debug)]
pub struct Decided {
    /// What is asked for of them.
    pub desired: Desired,
    /// Which services lose a pod that is gone.
    pub losing: BTreeSet<ServiceName>,
    /// What the maps hold of them; none: all of it counts.
    part: Option<Part<'static>>,
    /// Which Services; none: all.
    names: Option<BTreeSet<ObjectName>>,
    refusals: Refusals,
}

impl Decided {
    /// What is to be done for it.
    pub fn plan(&self, observed: &Observed, limits: &Limits, now_ms: u64) -> Plan {
        match &self.part {
            Some(part) => plan_part(&self.desired, part, observed, limits, now_ms),
            None => plan(&self.desired, observed, limits, now_ms),
        }
    }

    /// The backends that a part has, as objects of refusals.
    pub fn backends(&self) -> BTreeSet<String> {
        self.part.iter().flat_map(|part| &part.backend_ids).map(|(key, _)| object_of_backend(key)).collect()
    }
}

impl Kept {
    /// The Services to decide for when these were touched: they, those that depend on everything, and all that are tied
    /// to them, before or from now on. None: all.
    pub fn part(
        &mut self,
        touched: &BTreeSet<ObjectName>,
        (policy, model, node_name): (&Policy, &Model, &str),
    ) -> Option<BTreeSet<ObjectName>> {
        if touched.is_empty() {
            return Some(BTreeSet::new());
        }
        for name in touched {
            let service = claiming(name, model, policy);
            self.ties.add(name, &tie(name, service, (policy, model, node_name)));
            self.doubt(name, service.is_some_and(|service| is_in_doubt(service, policy)));
        }
        self.ties.closure(touched.union(&self.in_doubt).cloned().collect(), PART_MAX)
    }

    /// The addresses of the pods of these Services: the node has to find them before anything is decided.
    pub fn pods_of<'a>(&'a self, names: &'a BTreeSet<ObjectName>) -> impl Iterator<Item = IpAddr> + 'a {
        names.iter().flat_map(|name| self.ties.pods_of(name)).copied()
    }

    /// Decides for the Services of a part. None: the maps do not hold what they should, so all is to be decided.
    pub fn decide_part(
        &self,
        names: BTreeSet<ObjectName>,
        setting: Setting,
        observed: &Observed,
        clients_inside: ClientsInside,
    ) -> Option<Decided> {
        let services = names.iter().filter_map(|name| claiming(name, setting.model, setting.policy)).collect();
        let Answer { services, refusals } = answer(services, setting);
        let mut scope = Scope { pods: self.pods_of(&names).collect(), ..Scope::default() };
        scope.frontends.extend(names.iter().flat_map(|name| self.ties.frontends_of(name)));
        names.iter().flat_map(|name| self.services_of(name)).for_each(|(name, _)| scope.add_name(name));
        services.keys().for_each(|name| scope.add_name(name));
        let part = observed.part(&scope)?;
        let mut desired = Desired { services, refusals: Vec::new() };
        let losing = complete(&mut desired, setting, (&part.observed, observed), clients_inside);
        Some(Decided { desired, losing, part: Some(part), names: Some(names), refusals })
    }

    /// Keeps what was decided for a part, or for all, and was done: `observed` holds it.
    pub fn keep(&mut self, decided: Decided, (policy, model, node_name): (&Policy, &Model, &str), observed: &Observed) {
        let Decided { desired, names, refusals, .. } = decided;
        let names = match names {
            Some(names) => names,
            None => {
                *self = Self::default();
                claiming_services(model, policy).map(|service| service.name.clone()).collect()
            }
        };
        names.iter().for_each(|name| self.forget(name));
        for (name, service) in desired.services {
            *self.families.entry(name.family).or_default() += 1;
            self.services.insert(name, service);
        }
        self.refusals.0.extend(refusals.0);
        for name in &names {
            let service = claiming(name, model, policy);
            let mut tie = tie(name, service, (policy, model, node_name));
            for (name, service) in self.services_of(name) {
                add_served(&mut tie, name, service, observed);
            }
            self.ties.set(name, &tie);
            self.doubt(name, service.is_some_and(|service| is_in_doubt(service, policy)));
        }
    }

    /// The Services, of these or of all, for which what was done may decide: backends that left them live on only as long as
    /// the maps lead to them. Nobody else's answer changes by a round.
    pub fn lingering(&self, names: Option<&BTreeSet<ObjectName>>) -> BTreeSet<ObjectName> {
        let lingers = |service: &DesiredService| service.backends.values().any(|backend| !backend.takes_new);
        let object = |name: &ServiceName| ObjectName { namespace: name.namespace.clone(), name: name.name.clone() };
        match names {
            Some(names) => {
                let lingers = |name: &&ObjectName| self.services_of(name).any(|(_, service)| lingers(service));
                names.iter().filter(lingers).cloned().collect()
            }
            None => {
                self.services.iter().filter(|(_, service)| lingers(service)).map(|(name, _)| object(name)).collect()
            }
        }
    }

    /// What is asked for of all Services.
    pub fn services(&self) -> &BTreeMap<ServiceName, DesiredService> {
        &self.services
    }

    /// The families that have a service.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.families.iter().filter(|(_, services)| **services > 0).map(|(&family, _)| family)
    }

    /// What Services ask for and do not get.
    pub fn refusals(&self) -> Vec<Refusal> {
        in_order(self.refusals.0.values().flatten().cloned().collect())
    }

    /// Which Services depend on what.
    pub fn ties(&self) -> &Ties {
        &self.ties
    }

    fn services_of<'a>(
        &'a self,
        name: &'a ObjectName,
    ) -> impl Iterator<Item = (&'a ServiceName, &'a DesiredService)> + 'a {
        let first = ServiceName {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            port: String::new(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let is_of = |service: &ServiceName| service.namespace == name.namespace && service.name == name.name;
        self.services.range(first..).take_while(move |(service, _)| is_of(service))
    }

    fn forget(&mut self, name: &ObjectName) {
        let names: Vec<ServiceName> = self.services_of(name).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.services.remove(&name);
            *self.families.entry(name.family).or_default() -= 1;
        }
        self.refusals.0.remove(name);
    }

    fn doubt(&mut self, name: &ObjectName, is_in_doubt: bool) {
        match is_in_doubt {
            true => self.in_doubt.insert(name.clone()),
            false => self.in_doubt.remove(name),
        };
    }
}

/// Decides for all Services.
pub fn decide(setting: Setting, observed: &Observed, clients_inside: ClientsInside) -> Decided {
    let Answer { services, refusals } = answer(claiming_services(setting.model, setting.policy).collect(), setting);
    let mut desired = Desired { services, refusals: Vec::new() };
    let losing = complete(&mut desired, setting, (observed, observed), clients_inside);
    Decided { desired, losing, part: None, names: None, refusals }
}

/// What the model does not know: which pods live on, and what the operator wants of clients inside. Answers which services
/// lose a pod.
fn complete(
    desired: &mut Desired,
    setting: Setting,
    (part, whole): (&Observed, &Observed),
    clients_inside: ClientsInside,
) -> BTreeSet<ServiceName> {
    let losing = linger::keep_living_of_part(desired, (part, whole), &setting.node.pods);
    clients_inside.narrow(desired);
    losing
}

fn claiming<'a>(name: &ObjectName, model: &'a Model, policy: &Policy) -> Option<&'a Service> {
    model.service(name).filter(|service| claims(service, policy))
}

/// What a Service asks for.
fn tie(name: &ObjectName, service: Option<&Service>, (policy, model, node_name): (&Policy, &Model, &str)) -> Tie {
    let Some(service) = service else { return Tie::default() };
    Tie { frontends: asked(service, policy), pods: local_pods(model, name, node_name).collect() }
}

/// What a service has beside that: pods that left it.
fn add_served(tie: &mut Tie, name: &ServiceName, service: &DesiredService, observed: &Observed) {
    tie.pods.extend(service.backends.keys().map(|socket| socket.ip()));
    for key in service.keys(name.protocol) {
        tie.frontends.insert(key);
        tie.pods.extend(observed.frontends.get(&key).into_iter().flat_map(|frontend| observed.pods_behind(frontend)));
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
