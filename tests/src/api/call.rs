//! A request as the API understands it: verb, resource, namespace, name, query and body.

use std::collections::BTreeMap;

use hyper::http::request::Parts;
use hyper::{Method, header};
use serde_json::Value;
use tokio::time::Instant;

use super::refusal::Refusal;
use super::resource::Resource;

/// What a client asked for, as the request log keeps it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The RBAC verb: get, list, watch, create, update, patch or delete.
    pub verb: &'static str,
    /// The RBAC API group, empty for core.
    pub group: &'static str,
    /// The RBAC resource, `services` or `services/status`.
    pub resource: String,
    /// The namespace, where the path has one.
    pub namespace: Option<String>,
    /// The name, where the path has one.
    pub name: Option<String>,
    /// The decoded query.
    pub query: BTreeMap<String, String>,
    /// Whether the Accept header asked for metadata alone.
    pub is_metadata_only: bool,
    /// When it arrived, on tokio's clock.
    pub at: Instant,
}

impl Request {
    /// A query parameter, empty where it is absent.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// Whether a boolean query parameter is set.
    pub fn is_set(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }

    /// A query parameter that is a number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.parameter(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Refusal::bad_request(format!("invalid {name}: {text}"))),
        }
    }
}

/// A request with all that answering it needs.
#[derive(Debug, Clone)]
pub struct Call {
    /// What the log keeps.
    pub request: Request,
    /// The kind in the path.
    pub resource: &'static Resource,
    /// Whether the path ends in `/status`.
    pub is_status: bool,
    /// Type of the body.
    pub content_type: String,
    /// The body, null where there is none.
    pub body: Value,
}

impl Call {
    /// Understands a request, or refuses a path that the server does not have.
    pub fn parse(parts: &Parts, body: &[u8]) -> Result<Call, Refusal> {
        let place = Place::parse(parts.uri.path()).ok_or_else(Refusal::no_such_path)?;
        let query = parse_query(parts.uri.query().unwrap_or_default());
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let request = Request {
            verb: verb(&parts.method, place.name.is_some(), &query).ok_or_else(Refusal::method_not_allowed)?,
            group: place.resource.group,
            resource: format!("{}{}", place.resource.plural, if place.is_status { "/status" } else { "" }),
            namespace: place.namespace,
            name: place.name,
            query,
            is_metadata_only: header(header::ACCEPT).contains("as=PartialObjectMetadata"),
            at: Instant::now(),
        };
        let content_type = header(header::CONTENT_TYPE).to_owned();
        let body = parse_body(body)?;
        Ok(Call { request, resource: place.resource, is_status: place.is_status, content_type, body })
    }
}

/// What a path names.
struct Place {
    resource: &'static Resource,
    namespace: Option<String>,
    name: Option<String>,
    is_status: bool,
}

impl Place {
    fn parse(path: &str) -> Option<Place> {
        let segments: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", _, "status"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            _ => (None, rest),
        };
        let (plural, name, is_status) = match rest {
            [plural] => (plural, None, false),
            [plural, name] => (plural, Some((*name).to_owned()), false),
            [plural, name, "status"] => (plural, Some((*name).to_owned()), true),
            _ => return None,
        };
        let resource = Resource::in_path(group, version, plural)?;
        (!is_status || resource.has_status).then_some(Place { resource, namespace, name, is_status })
    }
}

fn verb(method: &Method, is_named: bool, query: &BTreeMap<String, String>) -> Option<&'static str> {
    let is_watch = query.get("watch").is_some_and(|value| value == "true" || value == "1");
    match (method.as_str(), is_named) {
        ("GET", true) => Some("get"),
        ("GET", false) if is_watch => Some("watch"),
        ("GET", false) => Some("list"),
        ("POST", false) => Some("create"),
        ("PUT", true) => Some("update"),
        ("PATCH", true) => Some("patch"),
        ("DELETE", true) => Some("delete"),
        _ => None,
    }
}

fn parse_body(body: &[u8]) -> Result<Value, Refusal> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("the body is no JSON: {error}")))
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect()
}

/// Undoes percent encoding, and the plus that stands for a space.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        let (byte, next) = match (first, escaped) {
            (b'%', Some(byte)) => (byte, &tail[2..]),
            (b'+', _) => (b' ', tail),
            (other, _) => (*other, tail),
        };
        bytes.push(byte);
        rest = next;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
