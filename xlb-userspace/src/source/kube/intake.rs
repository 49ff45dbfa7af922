//! What all kinds together tell: the model's events, what stands in the way, and whether everything is known.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use super::item::{Content, Item, Marks, NodeFacts, Resource};
use super::talk::{News, Obstacle};
use super::trigger::Triggers;
use crate::health::NodeState;
use crate::model::{Event, ObjectKey, ObjectName};
use crate::plan::desired::Refusal;
use crate::source::translate::FieldError;

/// Collects the news of every kind.
#[derive(Debug)]
pub struct Intake {
    node_name: String,
    node: Option<NodeFacts>,
    unlisted: BTreeSet<Resource>,
    unreadable: BTreeMap<ObjectKey, Vec<FieldError>>,
    troubles: BTreeMap<(Resource, Obstacle), String>,
    service_uids: BTreeMap<ObjectName, String>,
    triggers: Triggers,
}

impl Intake {
    /// Knows nothing yet.
    pub fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.into(),
            node: None,
            unlisted: Resource::ALL.into(),
            unreadable: BTreeMap::new(),
            troubles: BTreeMap::new(),
            service_uids: BTreeMap::new(),
            triggers: Triggers::default(),
        }
    }

    /// What the news mean for the model.
    pub fn take(&mut self, resource: Resource, news: News) -> Option<Event> {
        match news {
            News::Put(item) => self.put(resource, *item),
            News::Gone(name) => self.gone(resource, name),
            News::Listed => self.listed(resource),
            News::Trouble(obstacle, why) => {
                self.troubles.insert((resource, obstacle), why);
                None
            }
            News::Over(obstacle) => {
                info!("{}: followed again", resource.plural());
                self.troubles.remove(&(resource, obstacle));
                None
            }
            News::WentBack { from, to } => {
                warn!(
                    "{}: the API server's version went back from {from} to {to}, as after a restored backup; \
                     everything is read again",
                    resource.plural()
                );
                None
            }
        }
    }

    /// What of the cluster cannot be followed or read.
    pub fn refusals(&self) -> Vec<Refusal> {
        let troubles = self.troubles.iter().map(|((resource, _), why)| refusal(resource.plural(), why.clone()));
        let unreadable = self.unreadable.iter().flat_map(|(key, errors)| {
            errors.iter().map(move |error| refusal(key, format!("{error}; this part is left out")))
        });
        troubles.chain(unreadable).chain(self.absent_node()).collect()
    }

    /// What was not told yet.
    pub fn waiting(&self) -> Vec<Refusal> {
        let why = "not all read yet; nothing is changed before";
        self.unlisted.iter().map(|resource| refusal(resource.plural(), why.into())).collect()
    }

    /// This node's Node object, if there is one.
    pub fn node(&self) -> Option<&NodeFacts> {
        self.node.as_ref()
    }

    /// What this node's Node object means for new flows.
    pub fn node_state(&self) -> NodeState {
        let present =
            |node: &NodeFacts| NodeState { exists: true, is_deleting: node.is_deleting, taints: node.taints.clone() };
        self.node.as_ref().map_or_else(NodeState::absent, present)
    }

    /// The uid of a Service.
    pub fn service_uid(&self, name: &ObjectName) -> Option<&str> {
        self.service_uids.get(name).map(String::as_str)
    }

    /// When what led to changes of slices since the last time happened.
    pub fn take_triggers(&mut self) -> Vec<i64> {
        self.triggers.take()
    }

    fn put(&mut self, resource: Resource, item: Item) -> Option<Event> {
        let Item { name, content, errors, marks, .. } = item;
        self.mark(resource, &name, marks);
        if let Some(key) = resource.key(name) {
            match errors.is_empty() {
                true => self.unreadable.remove(&key),
                false => self.unreadable.insert(key, errors),
            };
        }
        match content? {
            Content::Object(object) => Some(Event::Applied(object)),
            Content::Node(node) => {
                self.node = Some(node);
                None
            }
        }
    }

    fn mark(&mut self, resource: Resource, name: &ObjectName, marks: Marks) {
        match resource {
            Resource::Services => drop(marks.uid.map(|uid| self.service_uids.insert(name.clone(), uid))),
            Resource::EndpointSlices => self.triggers.note(name, marks.triggered_ms, self.unlisted.is_empty()),
            Resource::NetworkPolicies | Resource::Nodes => {}
        }
    }

    fn gone(&mut self, resource: Resource, name: ObjectName) -> Option<Event> {
        match resource {
            Resource::Services => drop(self.service_uids.remove(&name)),
            Resource::EndpointSlices => self.triggers.forget(&name),
            Resource::NetworkPolicies | Resource::Nodes => {}
        }
        let Some(key) = resource.key(name) else {
            self.node = None;
            return None;
        };
        self.unreadable.remove(&key);
        Some(Event::Deleted(key))
    }

    fn listed(&mut self, resource: Resource) -> Option<Event> {
        let is_first = self.unlisted.remove(&resource);
        (is_first && self.unlisted.is_empty()).then_some(Event::Synced)
    }

    fn absent_node(&self) -> Option<Refusal> {
        let is_absent = self.node.is_none() && !self.unlisted.contains(&Resource::Nodes);
        let why = "no Node object has this name (--node-name); no endpoint counts as local if that is wrong";
        is_absent.then(|| refusal(format!("node {}", self.node_name), why.into()))
    }
}

fn refusal(object: impl ToString, why: String) -> Refusal {
    Refusal { object: object.to_string(), why }
}
