//! The objects known so far. It keeps what was said, and judges nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::names::NodeNames;
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
    /// The names of each Service's slices.
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    policies: BTreeMap<ObjectName, NetworkPolicyPresence>,
    node_names: NodeNames,
    is_synced: bool,
}

impl Model {
    /// Takes in one event; answers whether it changed anything.
    pub fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Applied(Object::Service(service)) => put(&mut self.services, service.name.clone(), *service),
            Event::Applied(Object::Slice(slice)) => self.put_slice(slice),
            Event::Applied(Object::Policy(policy)) => put(&mut self.policies, policy.name.clone(), policy),
            Event::Deleted(ObjectKey { kind, name }) => match kind {
                Kind::Service => self.services.remove(&name).is_some(),
                Kind::EndpointSlice => self.remove_slice(&name),
                Kind::NetworkPolicy => self.policies.remove(&name).is_some(),
            },
            Event::Synced => !std::mem::replace(&mut self.is_synced, true),
        }
    }

    /// The same, and notes the Services for whom it may matter.
    pub fn take_in(&mut self, event: Event, touched: &mut BTreeSet<ObjectName>) -> bool {
        let names = self.touched_by(&event);
        let is_news = self.apply(event);
        if is_news {
            touched.extend(names);
        }
        is_news
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

    /// The Service of that name.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// The EndpointSlices of a Service that count, in order of their names.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name)).filter(|slice| slice.labels.are_ours())
    }

    /// The EndpointSlices, in order of their names.
    pub fn slices(&self) -> impl Iterator<Item = &Slice> {
        self.slices.values()
    }

    /// The NetworkPolicies, in order of their names.
    pub fn policies(&self) -> impl Iterator<Item = &NetworkPolicyPresence> {
        self.policies.values()
    }

    /// Whether some NetworkPolicy of the namespace restricts what reaches pods.
    pub fn restricts_ingress(&self, namespace: &str) -> bool {
        within(&self.policies, namespace).any(|(_, policy)| policy.restricts_ingress)
    }

    /// Before the event is applied.
    fn touched_by(&self, event: &Event) -> Vec<ObjectName> {
        let known_slice = |name| self.slices.get(name).and_then(|slice: &Slice| slice.service.clone());
        match event {
            Event::Applied(Object::Service(service)) => vec![service.name.clone()],
            Event::Applied(Object::Slice(slice)) => {
                slice.service.clone().into_iter().chain(known_slice(&slice.name)).collect()
            }
            Event::Applied(Object::Policy(policy)) => self.services_within(&policy.name.namespace),
            Event::Deleted(ObjectKey { kind: Kind::Service, name }) => vec![name.clone()],
            Event::Deleted(ObjectKey { kind: Kind::EndpointSlice, name }) => known_slice(name).into_iter().collect(),
            Event::Deleted(ObjectKey { kind: Kind::NetworkPolicy, name }) => self.services_within(&name.namespace),
            Event::Synced => Vec::new(),
        }
    }

    fn services_within(&self, namespace: &str) -> Vec<ObjectName> {
        within(&self.services, namespace).map(|(name, _)| name.clone()).collect()
    }

    fn put_slice(&mut self, mut slice: Slice) -> bool {
        if self.slices.get(&slice.name) == Some(&slice) {
            return false;
        }
        self.node_names.share(&mut slice.endpoints);
        let (name, service) = (slice.name.clone(), slice.service.clone());
        let was = self.slices.insert(name.clone(), slice);
        if let Some(was) = was {
            self.node_names.release(was.endpoints);
            if was.service != service {
                self.forget_slice_of(was.service, &name);
            }
        }
        if let Some(service) = service {
            self.slices_of.entry(service).or_default().insert(name);
        }
        true
    }

    fn remove_slice(&mut self, name: &ObjectName) -> bool {
        let Some(was) = self.slices.remove(name) else { return false };
        self.node_names.release(was.endpoints);
        self.forget_slice_of(was.service, name);
        true
    }

    fn forget_slice_of(&mut self, service: Option<ObjectName>, name: &ObjectName) {
        let Some(service) = service else { return };
        if let Some(names) = self.slices_of.get_mut(&service) {
            names.remove(name);
            if names.is_empty() {
                self.slices_of.remove(&service);
            }
        }
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

/// The objects of a namespace.
fn within<'a, T>(
    objects: &'a BTreeMap<ObjectName, T>,
    namespace: &str,
) -> impl Iterator<Item = (&'a ObjectName, &'a T)> {
    let first = ObjectName { namespace: namespace.into(), name: String::new() };
    let namespace = first.namespace.clone();
    objects.range(first..).take_while(move |(name, _)| name.namespace == namespace)
}
