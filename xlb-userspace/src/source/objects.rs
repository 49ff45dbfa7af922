//! One document of a manifest file, read as the kinds of objects that matter.

use std::fmt;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::{GroupVersionKind, TypeMeta};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::translate::{self, FieldError};
use crate::model::objects::{Kind, Object};

/// The objects of one document, and how many others it has. What an object is has to be known before it can be read, so
/// the text is parsed twice; only so do errors keep their place.
pub fn objects_of(text: &str) -> Result<(Vec<Object>, usize), DocumentError> {
    let Some(header) = serde_yaml_ng::from_str::<Option<Header>>(text)? else { return Ok((Vec::new(), 0)) };
    let source = serde_yaml_ng::Deserializer::from_str(text);
    let items = if header.is_list() {
        let kinds = list_kinds(&header, text)?;
        ListOf(&kinds).deserialize(source)?
    } else {
        let kind = header.known_kind().map_err(DocumentError::Content)?;
        vec![OneOf(kind).deserialize(source)?]
    };
    let ignored = items.iter().filter(|item| item.is_none()).count();
    let objects: Result<Vec<Object>, FieldError> = items.into_iter().flatten().map(Typed::translate).collect();
    Ok((objects.map_err(|error| DocumentError::Content(error.to_string()))?, ignored))
}

/// Why a document could not be read.
pub enum DocumentError {
    /// It is not YAML, or a value is of the wrong type; the parser knows where.
    Yaml(serde_yaml_ng::Error),
    /// The types are right, but a value is not.
    Content(String),
}

impl From<serde_yaml_ng::Error> for DocumentError {
    fn from(error: serde_yaml_ng::Error) -> Self {
        Self::Yaml(error)
    }
}

fn list_kinds(list: &Header, text: &str) -> Result<Vec<Option<Kind>>, DocumentError> {
    let items = serde_yaml_ng::from_str::<ItemHeaders>(text)?.items.unwrap_or_default();
    let kinds: Result<Vec<Option<Kind>>, String> =
        items.into_iter().map(|item| item.or_from_list(list).known_kind()).collect();
    kinds.map_err(DocumentError::Content)
}

/// What an object says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a Kubernetes object")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "a list of Kubernetes objects")]
struct ItemHeaders {
    items: Option<Vec<Header>>,
}

impl Header {
    /// Whether it is a `List`, as kubectl writes it, or a `ServiceList` and its like, as the API server does.
    fn is_list(&self) -> bool {
        let is_core = self.api_version.as_deref() == Some("v1");
        let kind = self.kind.as_deref().unwrap_or_default();
        (is_core && kind == "List") || ["ServiceList", "EndpointSliceList", "NetworkPolicyList"].contains(&kind)
    }

    /// The items of an API server's list leave out what the list says already.
    fn or_from_list(self, list: &Header) -> Header {
        let item_kind = list.kind.as_deref().and_then(|kind| kind.strip_suffix("List")).filter(|kind| !kind.is_empty());
        Header {
            api_version: self.api_version.or_else(|| list.api_version.clone()),
            kind: self.kind.or_else(|| item_kind.map(String::from)),
        }
    }

    /// Which of the kinds that matter it is, if any.
    fn known_kind(&self) -> Result<Option<Kind>, String> {
        let (Some(api_version), Some(kind)) = (&self.api_version, &self.kind) else {
            return Err("found no apiVersion or no kind, expected a Kubernetes object".into());
        };
        let types = TypeMeta { api_version: api_version.clone(), kind: kind.clone() };
        let GroupVersionKind { group, version, .. } =
            GroupVersionKind::try_from(types).map_err(|error| format!("found apiVersion {api_version:?}: {error}"))?;
        let known = match (group.as_str(), kind.as_str()) {
            ("", "Service") => Kind::Service,
            ("discovery.k8s.io", "EndpointSlice") => Kind::EndpointSlice,
            ("networking.k8s.io", "NetworkPolicy") => Kind::NetworkPolicy,
            _ => return Ok(None),
        };
        if version != "v1" {
            return Err(format!("found {kind} in version {version:?}, expected version \"v1\""));
        }
        Ok(Some(known))
    }
}

/// An object in Kubernetes' own types.
enum Typed {
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    Policy(Box<NetworkPolicy>),
}

impl Typed {
    /// A file is corrected by who wrote it: a document is taken whole or not at all.
    fn translate(self) -> Result<Object, FieldError> {
        match self {
            Self::Service(service) => translate::service(&service)?.entire().map(Object::from),
            Self::Slice(slice) => translate::slice(&slice)?.entire().map(Object::Slice),
            Self::Policy(policy) => translate::network_policy(&policy)?.entire().map(Object::Policy),
        }
    }
}

/// Reads an object of a kind that is known already; none reads over it.
struct OneOf(Option<Kind>);

impl<'de> DeserializeSeed<'de> for OneOf {
    type Value = Option<Typed>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        Ok(Some(match self.0 {
            Some(Kind::Service) => Typed::Service(Box::new(Service::deserialize(source)?)),
            Some(Kind::EndpointSlice) => Typed::Slice(Box::new(EndpointSlice::deserialize(source)?)),
            Some(Kind::NetworkPolicy) => Typed::Policy(Box::new(NetworkPolicy::deserialize(source)?)),
            None => {
                IgnoredAny::deserialize(source)?;
                return Ok(None);
            }
        }))
    }
}

/// Reads a list object whose items are of these kinds.
struct ListOf<'a>(&'a [Option<Kind>]);

impl<'de> DeserializeSeed<'de> for ListOf<'_> {
    type Value = Vec<Option<Typed>>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ListOf<'_> {
    type Value = Vec<Option<Typed>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of Kubernetes objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" && !self.0.is_empty() {
                items = map.next_value_seed(ItemsOf(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(items)
    }
}

/// Reads the items of such a list.
struct ItemsOf<'a>(&'a [Option<Kind>]);

impl<'de> DeserializeSeed<'de> for ItemsOf<'_> {
    type Value = Vec<Option<Typed>>;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsOf<'_> {
    type Value = Vec<Option<Typed>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of Kubernetes objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        for kind in self.0 {
            items.extend(sequence.next_element_seed(OneOf(*kind))?);
        }
        Ok(items)
    }
}
