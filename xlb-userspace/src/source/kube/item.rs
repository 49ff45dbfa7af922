//! An object as a server tells of it, without what does not matter: the server's types end here.

use std::fmt::Debug;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde::de::DeserializeOwned;

use crate::model::objects::{Kind, Object, ProxyLabels};
use crate::model::{ObjectKey, ObjectName};
use crate::source::address::parse_address;
use crate::source::translate::{self, FieldError, Readable};

/// What is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `v1`.
    Services,
    /// `discovery.k8s.io/v1`.
    EndpointSlices,
    /// `networking.k8s.io/v1`.
    NetworkPolicies,
    /// `v1`, only this node's.
    Nodes,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Services, Self::EndpointSlices, Self::NetworkPolicies, Self::Nodes];

    /// The name in URLs and in RBAC rules.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::NetworkPolicies => "networkpolicies",
            Self::Nodes => "nodes",
        }
    }

    /// The API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Services | Self::Nodes => "",
            Self::EndpointSlices => "discovery.k8s.io",
            Self::NetworkPolicies => "networking.k8s.io",
        }
    }

    /// The model's key of an object; the model has no Nodes.
    pub fn key(self, name: ObjectName) -> Option<ObjectKey> {
        let kind = match self {
            Self::Services => Kind::Service,
            Self::EndpointSlices => Kind::EndpointSlice,
            Self::NetworkPolicies => Kind::NetworkPolicy,
            Self::Nodes => return None,
        };
        Some(ObjectKey { kind, name })
    }
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: ObjectName,
    /// Its resourceVersion.
    pub version: String,
    /// What matters of it; none: it is not for this proxy.
    pub content: Option<Content>,
    /// What of it could not be read, and is left out.
    pub errors: Vec<FieldError>,
    /// What it is told by, and measured by.
    pub marks: Marks,
}

/// What the model does not need of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Its uid: events refer to it.
    pub uid: Option<String>,
    /// When what led to its last change happened, in milliseconds since 1970 (semantics 14.7).
    pub triggered_ms: Option<i64>,
}

/// What matters of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An object of the model.
    Object(Object),
    /// A Node.
    Node(NodeFacts),
}

/// What matters of this node's Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Its addresses of the types InternalIP and ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// The keys of its taints.
    pub taints: Vec<String>,
}

/// A type that can be followed.
pub trait Watched: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    /// What it is.
    const RESOURCE: Resource;

    /// What matters of it.
    fn content(&self) -> Result<Readable<Content>, FieldError>;

    /// Whose it is.
    fn proxy_labels(_: &Content) -> Option<&ProxyLabels> {
        None
    }

    /// The object with nothing but what matters.
    fn item(&self) -> Item {
        let namespace = self.namespace().unwrap_or_default();
        let name = ObjectName { namespace, name: self.name_any() };
        let version = self.meta().resource_version.clone().unwrap_or_default();
        let marks = Marks { uid: self.uid(), triggered_ms: triggered_ms(self) };
        match self.content() {
            Ok(Readable { object, errors }) => {
                // The selector asks for `!service.kubernetes.io/headless` only: it cannot say "without a proxy name, or
                // with ours" (semantics 1.1).
                let is_ours = Self::proxy_labels(&object).is_none_or(ProxyLabels::are_ours);
                Item { name, version, content: is_ours.then_some(object), errors, marks }
            }
            Err(error) => Item { name, version, content: None, errors: vec![error], marks },
        }
    }
}

impl Watched for Service {
    const RESOURCE: Resource = Resource::Services;

    fn content(&self) -> Result<Readable<Content>, FieldError> {
        Ok(translate::service(self)?.map(|service| Content::Object(service.into())))
    }

    fn proxy_labels(content: &Content) -> Option<&ProxyLabels> {
        proxy_labels(content)
    }
}

impl Watched for EndpointSlice {
    const RESOURCE: Resource = Resource::EndpointSlices;

    fn content(&self) -> Result<Readable<Content>, FieldError> {
        Ok(translate::slice(self)?.map(|slice| Content::Object(Object::Slice(slice))))
    }

    fn proxy_labels(content: &Content) -> Option<&ProxyLabels> {
        proxy_labels(content)
    }
}

impl Watched for NetworkPolicy {
    const RESOURCE: Resource = Resource::NetworkPolicies;

    fn content(&self) -> Result<Readable<Content>, FieldError> {
        Ok(translate::network_policy(self)?.map(|policy| Content::Object(Object::Policy(policy))))
    }
}

impl Watched for Node {
    const RESOURCE: Resource = Resource::Nodes;

    fn content(&self) -> Result<Readable<Content>, FieldError> {
        let zone = self.labels().get("topology.kubernetes.io/zone").cloned();
        let status = self.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        let ips = status.iter().filter(|address| ["InternalIP", "ExternalIP"].contains(&address.type_.as_str()));
        let addresses = ips.filter_map(|address| parse_address(&address.address)).collect();
        let taints = self.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let taints = taints.iter().map(|taint| taint.key.clone()).collect();
        let is_deleting = self.metadata.deletion_timestamp.is_some();
        let facts = NodeFacts { zone, addresses, is_deleting, taints };
        Ok(Readable { object: Content::Node(facts), errors: Vec::new() })
    }
}

/// What the controllers note on a slice for whoever measures how long changes take.
fn triggered_ms(object: &impl ResourceExt) -> Option<i64> {
    let text = object.annotations().get("endpoints.kubernetes.io/last-change-trigger-time")?;
    Some(text.parse::<Timestamp>().ok()?.as_millisecond())
}

fn proxy_labels(content: &Content) -> Option<&ProxyLabels> {
    match content {
        Content::Object(Object::Service(service)) => Some(&service.labels),
        Content::Object(Object::Slice(slice)) => Some(&slice.labels),
        Content::Object(Object::Policy(_)) | Content::Node(_) => None,
    }
}
