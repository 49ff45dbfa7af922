//! What the source makes of a cluster of either kind: the test server, or the one of `XLB_TEST_KUBECONFIG`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use xlb_tests::api::TestCluster;
use xlb_userspace::model::Model;
use xlb_userspace::source::Kube;

use crate::any_cluster_stage::{assert_facts_hold_over_a_kubeconfig, on_any_cluster};

/// Within this time a change is seen.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_same_facts_hold_over_a_kubeconfig() {
    assert_facts_hold_over_a_kubeconfig("any_cluster::", Some("outages::a_black_hole"));
}

#[test]
fn everything_of_a_namespace_is_read_and_changes_are_seen() {
    on_any_cluster(async |cluster| {
        create_web(cluster).await;
        let mut seen = Seen::follow(cluster);
        seen.until("web | web-1 | deny").await;
        assert!(seen.model.is_synced() && seen.kube.node().is_some());

        cluster.api::<EndpointSlice>().delete("web-1", &DeleteParams::default()).await.unwrap();
        seen.until("web | | deny").await;
        cluster.create::<Service>(service("shop")).await.unwrap();
        cluster.api::<NetworkPolicy>().delete("deny", &DeleteParams::default()).await.unwrap();
        seen.until("shop web | |").await;
    });
}

#[test]
fn an_address_in_the_status_arrives() {
    on_any_cluster(async |cluster| {
        create_web(cluster).await;
        let mut seen = Seen::follow(cluster);
        seen.until("web | web-1 | deny").await;
        let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.10" }] } } });
        let services = cluster.api::<Service>();
        services.patch_status("web", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
        seen.until("web 192.0.2.10 | web-1 | deny").await;
    });
}

#[test]
fn a_label_that_gives_a_service_to_another_proxy_takes_it_away_and_back() {
    on_any_cluster(async |cluster| {
        create_web(cluster).await;
        let mut seen = Seen::follow(cluster);
        seen.until("web | web-1 | deny").await;
        for (label, value) in [("headless", ""), ("service-proxy-name", "other")] {
            label_web(cluster, label, json!(value)).await;
            seen.until("| web-1 | deny").await;
            label_web(cluster, label, Value::Null).await;
            seen.until("web | web-1 | deny").await;
        }
    });
}

#[test]
fn a_fresh_list_is_what_the_watches_told() {
    on_any_cluster(async |cluster| {
        let mut seen = Seen::follow(cluster);
        seen.until("| |").await;
        create_web(cluster).await;
        cluster.create::<Service>(service("shop")).await.unwrap();
        cluster.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
        seen.until("shop | web-1 | deny").await;
        Seen::follow(cluster).until("shop | web-1 | deny").await;
    });
}

async fn create_web(cluster: &TestCluster) {
    cluster.create::<Service>(service("web")).await.unwrap();
    let slice = json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } }, "addressType": "IPv4",
        "ports": [{ "name": "", "port": 8080 }], "endpoints": [{ "addresses": ["10.1.0.1"] }],
    });
    cluster.create::<EndpointSlice>(slice).await.unwrap();
    let policy = json!({ "metadata": { "name": "deny" }, "spec": { "podSelector": {}, "policyTypes": ["Ingress"] } });
    cluster.create::<NetworkPolicy>(policy).await.unwrap();
}

fn service(name: &str) -> Value {
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
    json!({ "metadata": { "name": name }, "spec": spec })
}

async fn label_web(cluster: &TestCluster, label: &str, value: Value) {
    let label = format!("service.kubernetes.io/{label}");
    let patch = Patch::Merge(json!({ "metadata": { "labels": { label: value } } }));
    cluster.api::<Service>().patch("web", &PatchParams::default(), &patch).await.unwrap();
}

/// What a source told of the namespace: a real cluster has others.
struct Seen {
    kube: Kube,
    model: Model,
    namespace: String,
}

impl Seen {
    fn follow(cluster: &TestCluster) -> Self {
        let kube = Kube::follow(cluster.client(), cluster.node_name());
        Self { kube, model: Model::default(), namespace: cluster.namespace().to_owned() }
    }

    /// Waits until all is read, and the names of Services (with their addresses), slices and policies are these.
    async fn until(&mut self, expected: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.model.is_synced() || self.text() != expected {
            let waited = timeout_at(end, self.kube.next_change()).await;
            assert!(waited.is_ok(), "expected {expected:?}, found {:?}, {:?}", self.text(), self.kube.refusals());
            for event in self.kube.take() {
                self.model.apply(event);
            }
        }
    }

    fn text(&self) -> String {
        let mut words = Vec::new();
        for service in self.model.services().filter(|service| service.name.namespace == self.namespace) {
            words.push(service.name.name.clone());
            words.extend(service.vips.iter().map(ToString::to_string));
        }
        let slices = self.model.slices().map(|slice| &slice.name);
        let policies = self.model.policies().map(|policy| &policy.name);
        words.push("|".into());
        words.extend(slices.filter(|name| name.namespace == self.namespace).map(|name| name.name.clone()));
        words.push("|".into());
        words.extend(policies.filter(|name| name.namespace == self.namespace).map(|name| name.name.clone()));
        words.join(" ")
    }
}
