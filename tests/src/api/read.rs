//! Get and list: pure functions of the store.

use std::ops::Bound;

use serde_json::{Value, json};

use super::call::{Call, Request};
use super::refusal::Refusal;
use super::selector::Selection;
use super::store::{Key, Store};
use super::view::View;

/// Answers a get.
pub fn get(store: &Store, call: &Call) -> Result<Value, Refusal> {
    let key = key(call);
    let object = store.get(&key).ok_or_else(|| Refusal::not_found(call.resource.plural, &key.2))?;
    Ok(view(call).single(&object))
}

/// Answers a list: all of it, or the page that limit and continue ask for, each page at the version of the first.
pub fn list(store: &Store, call: &Call) -> Result<Value, Refusal> {
    let page = Page::parse(store, &call.request)?;
    let selection = selection(call)?;
    let objects = store.at(page.version, call.resource.plural);
    let from = page.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut found = objects.range((from, Bound::Unbounded)).filter(|(_, object)| selection.matches(object)).peekable();

    let mut items = Vec::new();
    let mut last = None;
    for (key, object) in found.by_ref().take(page.limit) {
        items.push(view(call).item(object));
        last = Some(key);
    }

    let mut metadata = json!({ "resourceVersion": page.version.to_string() });
    if let (Some(last), true) = (last, found.peek().is_some()) {
        metadata["continue"] = json!(token(&page.version.to_string(), last));
        // As on a real server: what is behind a selector is not counted.
        if selection.has_no_selector() {
            metadata["remainingItemCount"] = json!(found.count());
        }
    }
    Ok(view(call).list(metadata, items))
}

/// The version that a read must wait for: one from the future is answered only when it is there.
pub fn awaited_version(request: &Request) -> Result<u64, Refusal> {
    match request.parameter("continue") {
        "" => Ok(request.number("resourceVersion")?.unwrap_or(0)),
        _ => Ok(0),
    }
}

/// The object that a call names.
pub fn key(call: &Call) -> Key {
    let request = &call.request;
    (call.resource.plural, request.namespace.clone().unwrap_or_default(), request.name.clone().unwrap_or_default())
}

/// The form that a call wants objects in.
pub fn view(call: &Call) -> View {
    View::new(call.resource, call.request.is_metadata_only)
}

/// The objects that a call wants.
pub fn selection(call: &Call) -> Result<Selection, Refusal> {
    let request = &call.request;
    let (labels, fields) = (request.parameter("labelSelector"), request.parameter("fieldSelector"));
    Selection::parse(call.resource, request.namespace.as_deref(), labels, fields)
}

/// Where a list starts, and how far it goes.
struct Page {
    version: u64,
    after: Option<Key>,
    limit: usize,
}

impl Page {
    fn parse(store: &Store, request: &Request) -> Result<Page, Refusal> {
        let limit = match request.number("limit")?.unwrap_or(0) {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        if let text @ [_, ..] = request.parameter("continue").as_bytes() {
            return Page::continued(store, &String::from_utf8_lossy(text), limit);
        }
        let version = request.number("resourceVersion")?;
        if request.parameter("resourceVersionMatch") == "Exact" {
            let version = version.unwrap_or(0);
            let message = format!("The resourceVersion for the provided list is too old: {version}");
            return match version >= store.floor() {
                true => Ok(Page { version, after: None, limit }),
                false => Err(Refusal::expired(message)),
            };
        }
        // Version 0 is answered from the watch cache, which does not page.
        let limit = if version == Some(0) { usize::MAX } else { limit };
        Ok(Page { version: store.version(), after: None, limit })
    }

    fn continued(store: &Store, text: &str, limit: usize) -> Result<Page, Refusal> {
        let garbage = || Refusal::bad_request(format!("continue key is not valid: {text}"));
        let [version, resource, namespace, name] = text.split('/').collect::<Vec<_>>()[..] else {
            return Err(garbage());
        };
        let resource = super::resource::RESOURCES.iter().find(|known| known.plural == resource).ok_or_else(garbage)?;
        let after = (resource.plural, namespace.to_owned(), name.to_owned());
        if version == NEWEST {
            return Ok(Page { version: store.version(), after: Some(after), limit });
        }
        let version = version.parse().map_err(|_| garbage())?;
        if version < store.floor() || version > store.version() {
            return Err(Refusal::expired_page(token(NEWEST, &after)));
        }
        Ok(Page { version, after: Some(after), limit })
    }
}

/// Stands in a token for "whatever the version is then".
const NEWEST: &str = "newest";

fn token(version: &str, last: &Key) -> String {
    format!("{version}/{}/{}/{}", last.0, last.1, last.2)
}
