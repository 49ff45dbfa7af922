//! A Kubernetes API server for tests: lists, watches and writes as a real one answers them, and the faults of a bad day.
//!
//! In process it is a tower service, so that hours pass in no time under tokio's paused clock:
//! `ApiServer::new().client()`. Over loopback HTTP it serves the real binary: `ApiServer::listen`.
//!
//! [`TestCluster`] is either this server or a real cluster, for facts that hold for both.
//!
//! What a real server (1.36) does was recorded and is what the facts in `tests/tests/api_server.rs` state.
//! Left out: discovery, server-side apply, strategic and JSON patches, deletecollection, admission beyond `rules`,
//! generations and managed fields, checking that namespaces exist.

mod answer;
mod listen;
mod cluster;
mod state;
mod call;
mod read;
mod watch;
mod write;
mod rules;
mod store;
mod selector;
mod resource;
mod view;
mod refusal;
mod fault;
mod bad_objects;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper::{Request as HttpRequest, Response};
use kube::Client;
use serde_json::Value;
use tower::Service;

pub use answer::ApiBody;
pub use bad_objects::{BadCase, MANY_PORTS, bad_cases};
pub use call::Request;
pub use cluster::{KUBECONFIG_VARIABLE, TestCluster, kubeconfig};
pub use fault::{Fault, Target};
pub use listen::Listening;

use resource::Resource;
use state::Shared;
use store::{Key, Store};

/// The server. Clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Shared,
}

/// The contents of the server at one moment, history included, as a backup of etcd has them.
pub struct Backup(Store);

impl Default for ApiServer {
    fn default() -> Self {
        Self::new()
    }
}

impl ApiServer {
    /// A server with no objects, no faults and no rules.
    pub fn new() -> Self {
        Self { shared: Shared::new() }
    }

    /// A client in process. It must be called on a tokio runtime, and does not retry by itself.
    pub fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// Puts a whole object (typed or JSON), status and all, past every rule; returns the server's version after it.
    ///
    /// # Panics
    ///
    /// If the object lacks a name or is of a kind that the server does not keep.
    pub fn apply(&self, object: &impl serde::Serialize) -> u64 {
        let mut object = serde_json::to_value(object).expect("an object is JSON");
        let key = key_of(&object);
        write::strip_kind(&mut object);
        self.shared.change(|state| {
            state.store.put(key, object);
            state.store.version()
        })
    }

    /// Puts several whole objects, one after the other.
    ///
    /// # Panics
    ///
    /// As `apply`.
    pub fn apply_all<T: serde::Serialize>(&self, objects: impl IntoIterator<Item = T>) {
        for object in objects {
            self.apply(&object);
        }
    }

    /// Removes an object at once, finalizers or not, and says whether it was there. The namespace of a node is empty.
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let key = key_in(plural, namespace, name);
        self.shared.change(|state| state.store.remove(&key))
    }

    /// An object as it is now, without kind and apiVersion.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.shared.lock().store.get(&key_in(plural, namespace, name))
    }

    /// All objects of a resource as they are now, by namespace and name.
    pub fn objects(&self, plural: &str) -> Vec<Arc<Value>> {
        let state = self.shared.lock();
        let (plural, ..) = key_in(plural, "", "");
        state.store.at(state.store.version(), plural).into_values().collect()
    }

    /// The resourceVersion of the newest write.
    pub fn version(&self) -> u64 {
        self.shared.lock().store.version()
    }

    /// Every request so far (the newest 100 000), whatever became of it.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests()
    }

    /// The requests so far of one verb for one resource.
    pub fn requests_of(&self, verb: &str, resource: &str) -> Vec<Request> {
        let of = |request: &Request| request.verb == verb && request.resource == resource;
        self.requests().into_iter().filter(of).collect()
    }

    /// Empties the log of requests.
    pub fn forget_requests(&self) {
        self.shared.lock().forget_requests();
    }

    /// How many watches of a resource are open.
    pub fn open_watches(&self, resource: &str) -> usize {
        self.shared.lock().open_watches.iter().filter(|open| **open == resource).count()
    }

    /// Lets requests fail. Of several faults that meet a request, the oldest counts.
    pub fn inject(&self, fault: Fault, target: Target) {
        self.shared.lock().faults.inject(fault, target);
    }

    /// Lifts all faults.
    pub fn lift_faults(&self) {
        self.shared.lock().faults.lift();
    }

    /// Answers the requests of a target with 403, as RBAC does, until `allow_all`.
    pub fn forbid(&self, target: Target) {
        self.shared.lock().forbidden.push(target);
    }

    /// Allows everything again.
    pub fn allow_all(&self) {
        self.shared.lock().forbidden.clear();
    }

    /// Whether `sendInitialEvents` is served; before 1.34 it is not by default.
    pub fn set_streaming_lists(&self, has: bool) {
        self.shared.lock().has_streaming_lists = has;
    }

    /// Breaks every open watch.
    pub fn drop_connections(&self) {
        self.shared.change(|state| state.epoch += 1);
    }

    /// Lets everything vanish, in both directions: no answer, no event, no end. Undone, what was held up arrives.
    pub fn set_black_hole(&self, is: bool) {
        self.shared.change(|state| state.is_black_hole = is);
    }

    /// Compacts the history up to now: older versions and continue tokens are gone, open watches go on.
    pub fn compact(&self) {
        self.shared.change(|state| state.store.compact());
    }

    /// What a restart of the apiserver does: every connection breaks, and its watch cache starts now.
    pub fn restart(&self) {
        self.compact();
        self.drop_connections();
    }

    /// A backup of everything.
    pub fn backup(&self) -> Backup {
        Backup(self.shared.lock().store.clone())
    }

    /// Restores a backup: the resourceVersion goes back, and every connection breaks.
    pub fn restore(&self, backup: &Backup) {
        self.shared.change(|state| {
            state.store = backup.0.clone();
            state.epoch += 1;
        });
    }
}

impl<B> Service<HttpRequest<B>> for ApiServer
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ApiBody>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Response<ApiBody>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<B>) -> Self::Future {
        answer::answer(self.shared.clone(), request).boxed()
    }
}

fn key_of(object: &Value) -> Key {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let resource = Resource::of_kind(api_version, kind)
        .unwrap_or_else(|| panic!("the test server keeps no {api_version} {kind:?}"));
    let name = text("/metadata/name");
    assert!(!name.is_empty(), "an object needs a name: {object}");
    let namespace = match (resource.is_namespaced, text("/metadata/namespace")) {
        (false, _) => "",
        (true, "") => "default",
        (true, namespace) => namespace,
    };
    (resource.plural, namespace.to_owned(), name.to_owned())
}

fn key_in(plural: &str, namespace: &str, name: &str) -> Key {
    let known = resource::RESOURCES.iter().find(|resource| resource.plural == plural);
    let resource = known.unwrap_or_else(|| panic!("the test server keeps no {plural}"));
    (resource.plural, namespace.to_owned(), name.to_owned())
}
