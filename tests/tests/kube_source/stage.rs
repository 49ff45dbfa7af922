//! A server with what an agent would know of it, in paused time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use xlb_tests::api::{ApiServer, Fault};
use xlb_userspace::model::Model;
use xlb_userspace::source::Kube;

/// Within this time a reachable server is heard again: the longest pause, and a little for a list after it.
pub const RECOVERY: Duration = Duration::from_millis(3500);
/// Within this time a server whose version went back is noticed, or a connection that is dead: the longest watch, its
/// margin, a pause.
pub const CHECKED: Duration = Duration::from_secs(70);
/// Long enough for what happens at once.
pub const AT_ONCE: Duration = Duration::from_millis(10);

/// Within this time everything is listed again, whatever the version says.
pub const LISTED_AGAIN: Duration = Duration::from_secs(90 * 60);

pub const KINDS: [&str; 4] = ["services", "endpointslices", "networkpolicies", "nodes"];

/// A server, and what an agent would know of it.
pub struct Cluster {
    /// The server.
    pub server: ApiServer,
    /// The source.
    pub kube: Kube,
    /// What it told.
    pub model: Model,
    /// How often something was taken.
    pub rounds: usize,
}

impl Cluster {
    /// A server with an object of each kind; none where the tests run on a real cluster.
    pub fn new() -> Option<Self> {
        let server = ApiServer::for_faults()?;
        let metadata = |name: &str, labels| json!({"name": name, "namespace": "default", "labels": labels});
        server.apply(&service("web", json!({})));
        server.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": metadata("web-1", json!({"kubernetes.io/service-name": "web"})),
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "node-a"}],
        }));
        server.apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": metadata("deny", json!({})), "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }));
        for name in ["node-a", "node-b"] {
            let labels = json!({"topology.kubernetes.io/zone": if name == "node-a" { "z1" } else { "z2" }});
            server.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}));
        }
        Some(Self::of(server))
    }

    /// Follows a server.
    pub fn of(server: ApiServer) -> Self {
        let kube = Kube::follow(&server.client(), "node-a");
        Self { server, kube, model: Model::default(), rounds: 0 }
    }

    /// The same, followed and read.
    pub async fn synced() -> Option<Self> {
        let mut cluster = Self::new()?;
        cluster.pass(Duration::from_secs(1)).await;
        assert!(cluster.model.is_synced());
        Some(cluster)
    }

    /// Lets time pass as the agent's loop does.
    pub async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while timeout_at(end, self.kube.next_change()).await.is_ok() {
            self.rounds += 1;
            for event in self.kube.take() {
                self.model.apply(event);
            }
        }
    }

    /// What cannot be followed or read.
    pub fn refusals(&self) -> Vec<String> {
        self.kube.refusals().iter().map(|refusal| format!("{}: {}", refusal.object, refusal.why)).collect()
    }

    /// The names of everything in the model.
    pub fn text(&self) -> String {
        let services = self.model.services().map(|service| &service.name);
        let slices = self.model.slices().map(|slice| &slice.name);
        let policies = self.model.policies().map(|policy| &policy.name);
        let mut words = vec!["services".to_owned()];
        words.extend(services.map(ToString::to_string));
        words.push("| slices".into());
        words.extend(slices.map(ToString::to_string));
        words.push("| policies".into());
        words.extend(policies.map(ToString::to_string));
        words.join(" ")
    }
}

/// `default/NAME` at 192.0.2.10:80.
pub fn service(name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"type": "LoadBalancer", "clusterIP": "172.30.0.1", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}},
    })
}

/// An answer with this code.
pub fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after_s: None }
}
