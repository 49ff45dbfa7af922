//! Objects as they go out: whole or metadata alone, single or in a list.

use serde_json::{Value, json};

use super::resource::Resource;

/// Form in which a client wants objects.
#[derive(Debug, Clone, Copy)]
pub struct View {
    resource: &'static Resource,
    is_metadata_only: bool,
}

impl View {
    /// The form that an Accept header asked for.
    pub fn new(resource: &'static Resource, is_metadata_only: bool) -> Self {
        Self { resource, is_metadata_only }
    }

    /// An object that stands alone: it names its kind.
    pub fn single(&self, object: &Value) -> Value {
        if self.is_metadata_only {
            return self.item(object);
        }
        let mut object = object.clone();
        object["kind"] = json!(self.resource.kind);
        object["apiVersion"] = json!(self.resource.api_version());
        object
    }

    /// An object in a list: whole objects do not name their kind there.
    pub fn item(&self, object: &Value) -> Value {
        if !self.is_metadata_only {
            return object.clone();
        }
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
    }

    /// A list around its items.
    pub fn list(&self, metadata: Value, items: Vec<Value>) -> Value {
        let (kind, api_version) = match self.is_metadata_only {
            true => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            false => (format!("{}List", self.resource.kind), self.resource.api_version()),
        };
        json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items })
    }

    /// A bookmark; the one that ends a streamed list says so.
    pub fn bookmark(&self, version: u64, ends_initial_events: bool) -> Value {
        let mut bookmark = json!({ "metadata": { "resourceVersion": version.to_string(), "creationTimestamp": null } });
        if ends_initial_events {
            bookmark["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        self.single(&bookmark)
    }
}
