//! The objects known so far. It keeps what was said, and judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::objects::{Kind, NetworkPolicyPresence, Object, ObjectKey, ObjectName, Service, Slice};

/// One piece of news from a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The object is new or has changed; it is given whole.
    Applied(Object),
    /// The object is gone.
    Deleted(ObjectKey),
    /// The source has told of everything once.
    Synced,
}

/// All that the sources have told.
///
/// Objects are kept apart by kind and name, so the order in which a Service and its slices arrive does not matter
/// (semantics 14.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    services: BTreeMap<ObjectName, Service>,
    slices: BTreeMap<ObjectName, Slice>,
    policies: BTreeMap<ObjectName, NetworkPolicyPresence>,
    is_synced: bool,
}

impl Model {
    /// Takes in one event; answers whether it changed anything.
    pub fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Applied(Object::Service(service)) => put(&mut self.services, service.name.clone(), *service),
            Event::Applied(Object::Slice(slice)) => put(&mut self.slices, slice.name.clone(), slice),
            Event::Applied(Object::Policy(policy)) => put(&mut self.policies, policy.name.clone(), policy),
            Event::Deleted(ObjectKey { kind, name }) => match kind {
                Kind::Service => self.services.remove(&name).is_some(),
                Kind::EndpointSlice => self.slices.remove(&name).is_some(),
                Kind::NetworkPolicy => self.policies.remove(&name).is_some(),
            },
            Event::Synced => !std::mem::replace(&mut self.is_synced, true),
        }
    }

    /// The events that make this model hold exactly `objects`, and synced. None if it does already.
    ///
    /// What is new comes before what vanished, so that no prefix of the events serves less than before and after.
    pub fn changes_to(&self, objects: &[Object]) -> Vec<Event> {
        let listed: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
        let applied = objects.iter().filter(|object| !self.holds(object)).cloned().map(Event::Applied);
        let deleted = self.keys().filter(|key| !listed.contains(key)).map(Event::Deleted);
        let synced = (!self.is_synced).then_some(Event::Synced);
        applied.chain(deleted).chain(synced).collect()
    }

    /// Whether every source has told of everything once. Before that, nothing may be programmed from this model.
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// The Services, in order of their names.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The EndpointSlices, in order of their names.
    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.values()
    }

    /// The NetworkPolicies, in order of their names.
    pub fn policies(&self) -> impl Iterator<Item = &NetworkPolicyPresence> {
        self.policies.values()
    }

    fn holds(&self, object: &Object) -> bool {
        match object {
            Object::Service(service) => self.services.get(&service.name) == Some(service.as_ref()),
            Object::Slice(slice) => self.slices.get(&slice.name) == Some(slice),
            Object::Policy(policy) => self.policies.get(&policy.name) == Some(policy),
        }
    }

    fn keys(&self) -> impl Iterator<Item = ObjectKey> {
        let of = |kind| move |name: &ObjectName| ObjectKey { kind, name: name.clone() };
        let services = self.services.keys().map(of(Kind::Service));
        let slices = self.slices.keys().map(of(Kind::EndpointSlice));
        let policies = self.policies.keys().map(of(Kind::NetworkPolicy));
        services.chain(slices).chain(policies)
    }
}

fn put<T: PartialEq>(objects: &mut BTreeMap<ObjectName, T>, name: ObjectName, object: T) -> bool {
    if objects.get(&name) == Some(&object) {
        return false;
    }
    objects.insert(name, object);
    true
}
