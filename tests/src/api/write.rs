//! Create, update, patch and delete: each compares the version it was made for with the version that is there.

use serde_json::{Value, json};

use super::call::Call;
use super::read;
use super::refusal::Refusal;
use super::rules;
use super::store::{Key, Store};

/// When every object says that its deletion began.
const DELETED_AT: &str = "2026-01-02T00:00:00Z";

/// Answers POST with the object as stored.
pub fn create(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    let mut object = body_object(call)?;
    let key = new_key(store, call, &object)?;
    if store.get(&key).is_some() {
        return Err(Refusal::already_exists(call.resource.plural, &key.2));
    }
    if call.resource.has_status {
        object["status"] = json!({});
    }
    rules::check(call.resource, None, &mut object)?;
    Ok(finish(store, call, key, object))
}

/// Answers PUT with the object as stored.
pub fn update(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    let object = body_object(call)?;
    let has_version = !text(&object, "/metadata/resourceVersion").is_empty();
    if !has_version && !call.resource.has_unconditional_update {
        let name = call.request.name.as_deref().unwrap_or_default();
        let rule = "Invalid value: 0: must be specified for an update";
        return Err(Refusal::invalid(call.resource.kind, name, "metadata.resourceVersion", rule));
    }
    replace(store, call, |_| object)
}

/// Answers a merge patch with the object as stored.
pub fn patch(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    if !call.content_type.starts_with("application/merge-patch+json") {
        return Err(Refusal::unsupported_patch(&call.content_type));
    }
    let mut patch = call.body.clone();
    strip_kind(&mut patch);
    replace(store, call, |current| merged(current, &patch))
}

/// Answers DELETE: the object goes at once, or when its last finalizer does.
pub fn delete(store: &mut Store, call: &Call) -> Result<Value, Refusal> {
    let key = read::key(call);
    let current = store.get(&key).ok_or_else(|| Refusal::not_found(call.resource.plural, &key.2))?;
    let conditions = &call.body["preconditions"];
    compare(call, &current, text(conditions, "/uid"), text(conditions, "/resourceVersion"))?;
    if has_finalizers(&current) {
        let mut dying = (*current).clone();
        dying["metadata"]["deletionTimestamp"] = json!(DELETED_AT);
        dying["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        return Ok(finish(store, call, key, dying));
    }
    if !is_dry_run(call) {
        store.remove(&key);
        if call.resource.kind == "Namespace" {
            store.remove_contents(&key.2);
        }
    }
    let details = json!({ "name": key.2, "kind": call.resource.plural, "uid": current["metadata"]["uid"] });
    Ok(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details }))
}

fn replace(store: &mut Store, call: &Call, change: impl FnOnce(&Value) -> Value) -> Result<Value, Refusal> {
    let key = read::key(call);
    let current = store.get(&key).ok_or_else(|| Refusal::not_found(call.resource.plural, &key.2))?;
    let wanted = change(&current);
    compare(call, &current, text(&wanted, "/metadata/uid"), text(&wanted, "/metadata/resourceVersion"))?;
    let mut object = divided(call, &current, wanted);
    for kept in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        copy_field(&current["metadata"], &mut object["metadata"], kept);
    }
    rules::check(call.resource, Some(&current), &mut object)?;
    Ok(finish(store, call, key, object))
}

/// Compare and swap: a uid or a version that is given must be the one that is there.
fn compare(call: &Call, current: &Value, uid: &str, version: &str) -> Result<(), Refusal> {
    let is_met = |wanted: &str, pointer| wanted.is_empty() || wanted == text(current, pointer);
    if is_met(uid, "/metadata/uid") && is_met(version, "/metadata/resourceVersion") {
        return Ok(());
    }
    Err(Refusal::conflict(call.resource.plural, text(current, "/metadata/name")))
}

/// `/status` takes status and metadata, the object itself takes all but status.
fn divided(call: &Call, current: &Value, mut wanted: Value) -> Value {
    if call.is_status {
        let mut object = current.clone();
        copy_field(&wanted, &mut object, "status");
        copy_field(&wanted, &mut object, "metadata");
        return object;
    }
    if call.resource.has_status {
        copy_field(current, &mut wanted, "status");
    }
    wanted
}

/// Stores, unless the request is a rehearsal; an object that dies goes with its last finalizer.
fn finish(store: &mut Store, call: &Call, key: Key, object: Value) -> Value {
    let view = read::view(call);
    if is_dry_run(call) {
        return view.single(&object);
    }
    if object.pointer("/metadata/deletionTimestamp").is_some() && !has_finalizers(&object) {
        store.remove(&key);
        return view.single(&object);
    }
    view.single(&store.put(key, object))
}

fn new_key(store: &Store, call: &Call, object: &Value) -> Result<Key, Refusal> {
    let namespace = call.request.namespace.clone().unwrap_or_default();
    if call.resource.is_namespaced && namespace.is_empty() {
        return Err(Refusal::method_not_allowed());
    }
    let given = text(object, "/metadata/namespace");
    if !given.is_empty() && given != namespace {
        return Err(Refusal::bad_request("the namespace of the provided object does not match the namespace sent"));
    }
    let name = match (text(object, "/metadata/name"), text(object, "/metadata/generateName")) {
        ("", "") => {
            let rule = "Required value: name or generateName is required";
            return Err(Refusal::invalid(call.resource.kind, "", "metadata.name", rule));
        }
        ("", prefix) => format!("{prefix}{:05}", store.version()),
        (name, _) => name.to_owned(),
    };
    Ok((call.resource.plural, namespace, name))
}

/// The body without its kind, which the path says already.
fn body_object(call: &Call) -> Result<Value, Refusal> {
    let (kind, named) = (text(&call.body, "/kind"), text(&call.body, "/metadata/name"));
    if !call.body.is_object() || (!kind.is_empty() && kind != call.resource.kind) {
        return Err(Refusal::bad_request(format!("the body is no {}", call.resource.kind)));
    }
    if let Some(name) = call.request.name.as_deref().filter(|name| !named.is_empty() && *name != named) {
        let message = format!("the name of the object ({named}) does not match the name on the URL ({name})");
        return Err(Refusal::bad_request(message));
    }
    let mut object = call.body.clone();
    strip_kind(&mut object);
    Ok(object)
}

/// Takes kind and apiVersion off: the store keeps objects without them.
pub fn strip_kind(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
}

/// RFC 7396.
fn merged(target: &Value, patch: &Value) -> Value {
    let Some(patch) = patch.as_object() else { return patch.clone() };
    let mut fields = target.as_object().cloned().unwrap_or_default();
    for (name, value) in patch {
        match value {
            Value::Null => fields.remove(name),
            _ => fields.insert(name.clone(), merged(fields.get(name).unwrap_or(&Value::Null), value)),
        };
    }
    Value::Object(fields)
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => {
            to.as_object_mut().and_then(|fields| fields.remove(field));
        }
    }
}

fn has_finalizers(object: &Value) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
}

fn is_dry_run(call: &Call) -> bool {
    !call.request.parameter("dryRun").is_empty()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
