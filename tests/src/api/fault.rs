//! Faults that a test injects, and the requests that they meet.

use std::time::Duration;

use super::call::Request;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks before there is an answer.
    Refuse,
    /// The request is taken and never answered.
    Hang,
    /// The answer begins late.
    Slow(Duration),
    /// The server answers with this code, and with a Retry-After header if one is given.
    Status {
        /// HTTP status, 429, 503 or 504 for example.
        code: u16,
        /// Seconds for the Retry-After header.
        retry_after_s: Option<u32>,
    },
    /// The connection breaks in the middle of a line (of a watch) or of the answer (to all else).
    Cut {
        /// Lines that still arrive whole.
        after_lines: usize,
    },
    /// The watch carries no bookmarks, except the one that ends a streamed list.
    NoBookmarks,
}

/// The requests that a fault meets.
#[derive(Debug, Clone, Default)]
pub struct Target {
    verb: Option<&'static str>,
    resource: Option<&'static str>,
    times: Option<usize>,
}

impl Target {
    /// Every request until the faults are lifted.
    pub fn any() -> Self {
        Self::default()
    }

    /// Only requests of this verb: get, list, watch, create, update, patch or delete.
    pub fn verb(self, verb: &'static str) -> Self {
        Self { verb: Some(verb), ..self }
    }

    /// Only requests for this resource, `services` or `services/status` for example.
    pub fn resource(self, resource: &'static str) -> Self {
        Self { resource: Some(resource), ..self }
    }

    /// Only so many of them.
    pub fn times(self, times: usize) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Whether a request is meant, whatever was met before.
    pub fn matches(&self, request: &Request) -> bool {
        self.verb.is_none_or(|verb| verb == request.verb)
            && self.resource.is_none_or(|resource| resource == request.resource)
    }
}

/// The faults in force.
#[derive(Debug, Default)]
pub struct Faults(Vec<(Fault, Target)>);

impl Faults {
    /// Adds one; of several that meet a request, the oldest counts.
    pub fn inject(&mut self, fault: Fault, target: Target) {
        self.0.push((fault, target));
    }

    /// Lifts all of them.
    pub fn lift(&mut self) {
        self.0.clear();
    }

    /// The fault that a request meets, which is thereby used once.
    pub fn take(&mut self, request: &Request) -> Option<Fault> {
        let met = |(_, target): &(Fault, Target)| target.times != Some(0) && target.matches(request);
        let (fault, target) = self.0.iter_mut().find(|entry| met(entry))?;
        target.times = target.times.map(|times| times - 1);
        Some(*fault)
    }
}
