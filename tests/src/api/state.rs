//! What all requests share, under one lock, and the bell that rings when it changes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch::{self, Receiver, Sender};

use super::call::{Call, Request};
use super::fault::{Fault, Faults, Target};
use super::refusal::Refusal;
use super::store::Store;

/// Requests that the log keeps; older ones are forgotten.
const REQUESTS_MAX: usize = 100_000;

/// The state of a server.
pub struct State {
    /// Objects and their history.
    pub store: Store,
    /// Faults in force.
    pub faults: Faults,
    /// What RBAC denies.
    pub forbidden: Vec<Target>,
    /// Whether streamed lists are served.
    pub has_streaming_lists: bool,
    /// Whether packets vanish both ways.
    pub is_black_hole: bool,
    /// Rises when every open connection breaks.
    pub epoch: u64,
    /// The watches open now, by resource.
    pub open_watches: Vec<&'static str>,
    requests: VecDeque<Request>,
}

impl State {
    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.iter().cloned().collect()
    }

    /// Forgets what was asked so far.
    pub fn forget_requests(&mut self) {
        self.requests.clear();
    }

    /// Logs a request and says which fault it meets.
    pub fn arrive(&mut self, request: &Request) -> Option<Fault> {
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
        }
        self.requests.push_back(request.clone());
        self.faults.take(request)
    }

    /// Refuses what a rule denies.
    pub fn authorize(&self, call: &Call) -> Result<(), Refusal> {
        let request = &call.request;
        if !self.forbidden.iter().any(|target| target.matches(request)) {
            return Ok(());
        }
        let name = request.name.as_ref().map_or_else(String::new, |name| format!(" \"{name}\""));
        let (resource, verb, group) = (&request.resource, request.verb, call.resource.group);
        let scope = match &request.namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        Err(Refusal::forbidden(format!(
            "{resource}{name} is forbidden: User \"xlb\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}"
        )))
    }
}

/// The state and its bell.
#[derive(Clone)]
pub struct Shared {
    state: Arc<Mutex<State>>,
    bell: Sender<()>,
}

impl Shared {
    /// An empty cluster.
    pub fn new() -> Self {
        let state = State {
            store: Store::new(),
            faults: Faults::default(),
            forbidden: Vec::new(),
            has_streaming_lists: true,
            is_black_hole: false,
            epoch: 0,
            open_watches: Vec::new(),
            requests: VecDeque::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), bell: watch::channel(()).0 }
    }

    /// The state. A test that panicked elsewhere does not make it unreadable.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and rings the bell.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.bell.send_replace(());
        result
    }

    /// Hears the bell from now on.
    pub fn news(&self) -> Receiver<()> {
        self.bell.subscribe()
    }

    /// Counts a watch as open until the visitor is dropped.
    pub fn visitor(&self, call: &Call) -> Visitor {
        let resource = call.resource.plural;
        self.lock().open_watches.push(resource);
        Visitor { shared: self.clone(), news: self.news(), resource }
    }
}

/// A watch as the server sees it.
pub struct Visitor {
    /// The server.
    pub shared: Shared,
    /// Hears of changes.
    pub news: Receiver<()>,
    resource: &'static str,
}

impl Visitor {
    /// Whether the client hears nothing at present.
    pub fn is_black_hole(&self) -> bool {
        self.shared.lock().is_black_hole
    }

    /// Whether the watch is for this resource.
    pub fn is_of_resource(&self, resource: &str) -> bool {
        self.resource == resource
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(at) = state.open_watches.iter().position(|resource| *resource == self.resource) {
            state.open_watches.swap_remove(at);
        }
    }
}
