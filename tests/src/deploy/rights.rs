//! RBAC: what a ClusterRole grants, and what requests need.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::api::Request;

/// A verb on a resource of an API group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group, empty for core.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The verb.
    pub verb: String,
}

/// All that a ClusterRole grants. A star stays one: no request needs that.
pub fn granted(role: &Value) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    let (group, resource, verb) = (group.into(), resource.into(), verb.into());
                    rights.insert(Right { group, resource, verb });
                }
            }
        }
    }
    rights
}

/// All that these requests need.
pub fn needed(requests: &[Request]) -> BTreeSet<Right> {
    let right = |request: &Request| Right {
        group: request.group.into(),
        resource: request.resource.clone(),
        verb: request.verb.into(),
    };
    requests.iter().map(right).collect()
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
