//! The ways in which the API says no, each with the code and reason of a real server.

use std::fmt::Display;

use serde_json::{Value, json};

/// A refused request: what becomes the `Status` object of the answer.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
    /// The Retry-After header.
    pub retry_after_s: Option<u32>,
    /// A token that continues an expired list from the newest state.
    pub continue_token: Option<String>,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Display) -> Self {
        Self { code, reason, message: message.to_string(), retry_after_s: None, continue_token: None }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Display) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 403: no rule allows it.
    pub fn forbidden(message: impl Display) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// 404: no such object.
    pub fn not_found(resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found"))
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 405: the resource has no such verb.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 409: a POST of a name that is taken.
    pub fn already_exists(resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{resource} \"{name}\" already exists"))
    }

    /// 409: somebody else wrote first.
    pub fn conflict(resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"))
    }

    /// 410: the version asked for is compacted away.
    pub fn expired(message: impl Display) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410 of a list whose pages are gone, with a token for going on inconsistently.
    pub fn expired_page(continue_token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result.";
        Self { continue_token: Some(continue_token), ..Self::expired(message) }
    }

    /// 415: a patch of a type that the server does not do.
    pub fn unsupported_patch(content_type: &str) -> Self {
        let message = format!("the test server patches by application/merge-patch+json only, not by {content_type}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422: the object breaks a rule of its kind.
    pub fn invalid(kind: &str, name: &str, field: &str, rule: &str) -> Self {
        Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {field}: {rule}"))
    }

    /// 504: a version from the future.
    pub fn too_large_version(wanted: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
        Self { retry_after_s: Some(1), ..Self::new(504, "Timeout", message) }
    }

    /// Any code, as a fault asks for it.
    pub fn injected(code: u16, retry_after_s: Option<u32>) -> Self {
        let reason = match code {
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self { retry_after_s, ..Self::new(code, reason, "a fault that the test injected") }
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = json!(token);
        }
        if let Some(seconds) = self.retry_after_s {
            status["details"] = json!({ "retryAfterSeconds": seconds });
        }
        status
    }
}
