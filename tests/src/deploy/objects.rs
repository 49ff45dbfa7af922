//! Whether objects are what the Kubernetes API takes: each field is known to the type of its kind, and has its type.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Refuses an object that the API server would refuse, or of which it would drop a part.
///
/// # Errors
/// When a field is unknown or of the wrong type, or the kind is none that the folder should have.
pub fn check(object: &Value) -> Result<()> {
    let kind = object["kind"].as_str().context("an object without a kind")?;
    let check = match (object["apiVersion"].as_str().unwrap_or_default(), kind) {
        ("v1", "Namespace") => is_whole::<Namespace>,
        ("v1", "ServiceAccount") => is_whole::<ServiceAccount>,
        ("v1", "Service") => is_whole::<Service>,
        ("v1", "ConfigMap") => is_whole::<ConfigMap>,
        ("apps/v1", "DaemonSet") => is_whole::<DaemonSet>,
        ("apps/v1", "Deployment") => is_whole::<Deployment>,
        ("discovery.k8s.io/v1", "EndpointSlice") => is_whole::<EndpointSlice>,
        ("policy/v1", "PodDisruptionBudget") => is_whole::<PodDisruptionBudget>,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => is_whole::<ClusterRole>,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => is_whole::<ClusterRoleBinding>,
        (version, kind) => bail!("{version} {kind} is no kind that is checked"),
    };
    check(object).with_context(|| format!("checking {}", identity(object)))
}

/// What an object is called: kind, namespace and name.
pub fn identity(object: &Value) -> String {
    let of = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}/{}", of("/kind"), of("/metadata/namespace"), of("/metadata/name"))
}

/// The API's types drop what they do not know: what comes back has to be what went in.
fn is_whole<K: DeserializeOwned + Serialize>(object: &Value) -> Result<()> {
    let typed: K = serde_json::from_value(object.clone()).context("a field has the wrong type")?;
    same(object, &serde_json::to_value(typed)?, "")
}

/// Whether all that was given is in what was understood. Beyond it are only empty things that a type always writes.
fn same(given: &Value, understood: &Value, at: &str) -> Result<()> {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            given.iter().try_for_each(|(key, value)| match understood.get(key) {
                Some(known) => same(value, known, &format!("{at}/{key}")),
                None => bail!("{at}/{key} is a field that the API does not know"),
            })
        }
        (Value::Array(given), Value::Array(understood)) if given.len() == understood.len() => {
            let pairs = given.iter().zip(understood).enumerate();
            pairs.into_iter().try_for_each(|(index, (value, known))| same(value, known, &format!("{at}/{index}")))
        }
        _ => {
            ensure!(given == understood, "{at} is {given}, and is understood as {understood}");
            Ok(())
        }
    }
}
