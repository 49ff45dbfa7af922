//! What xlb expects of every API server: these facts hold for the test server and, with `XLB_TEST_KUBECONFIG`, for a
//! real cluster.

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Service};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::time::timeout;
use xlb_tests::api::TestCluster;

use super::any_cluster_stage::{assert_facts_hold_over_a_kubeconfig, on_any_cluster};
use super::stage::{code, names};

/// How long a fact waits for an event.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_same_facts_hold_over_a_kubeconfig() {
    assert_facts_hold_over_a_kubeconfig("any_cluster::", None);
}

#[test]
fn every_page_of_a_list_shows_one_version() {
    on_any_cluster(async |cluster| {
        for name in ["a", "b", "c"] {
            create(cluster, name, "web").await;
        }
        let services = cluster.api::<Service>();
        let first = services.list(&ListParams::default().limit(2)).await.unwrap();
        assert_eq!(names(&first.items), ["a", "b"]);
        create(cluster, "d", "web").await;
        let token = first.metadata.continue_.as_deref().unwrap();
        let rest = services.list(&ListParams::default().limit(2).continue_token(token)).await.unwrap();
        assert_eq!(names(&rest.items), ["c"]);
        assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
    });
}

#[test]
fn a_streamed_list_ends_with_its_bookmark_and_goes_on_with_changes() {
    on_any_cluster(async |cluster| {
        create(cluster, "a", "web").await;
        let services = cluster.api::<Service>();
        let params = WatchParams::default().timeout(20).initial_events();
        let mut lines = pin!(services.watch(&params, "").await.unwrap());
        assert_eq!(told(&mut lines, 2).await, ["added a", "everything was told"]);
        create(cluster, "b", "web").await;
        services.delete("a", &DeleteParams::default()).await.unwrap();
        assert_eq!(told(&mut lines, 2).await, ["added b", "deleted a"]);
    });
}

#[test]
fn an_object_that_leaves_a_selection_is_deleted_and_one_that_returns_is_added() {
    on_any_cluster(async |cluster| {
        let created = create(cluster, "a", "web").await;
        let services = cluster.api::<Service>();
        let params = WatchParams::default().timeout(20).labels("app=web");
        let since = created.resource_version().unwrap();
        let mut lines = pin!(services.watch(&params, &since).await.unwrap());
        let patched = label(cluster, "a", json!("db")).await;
        let Some(Ok(WatchEvent::Deleted(left))) = next(&mut lines).await else { panic!("it did not leave") };
        assert_eq!((left.labels()["app"].as_str(), left.resource_version()), ("web", patched.resource_version()));
        label(cluster, "a", json!("web")).await;
        assert_eq!(told(&mut lines, 1).await, ["added a"]);
        label(cluster, "a", Value::Null).await;
        assert_eq!(told(&mut lines, 1).await, ["deleted a"]);
    });
}

#[test]
fn a_watch_ends_by_its_timeout_and_the_next_one_misses_nothing() {
    on_any_cluster(async |cluster| {
        let since = create(cluster, "a", "web").await.resource_version().unwrap();
        let services = cluster.api::<Service>();
        let params = WatchParams { bookmarks: false, ..WatchParams::default().timeout(1) };
        let mut lines = pin!(services.watch(&params, &since).await.unwrap());
        assert!(next(&mut lines).await.is_none(), "a clean end");
        create(cluster, "b", "web").await;
        let mut lines = pin!(services.watch(&params, &since).await.unwrap());
        assert_eq!(told(&mut lines, 1).await, ["added b"]);
    });
}

#[test]
fn a_name_is_created_once_and_a_patch_at_a_stale_version_is_refused() {
    on_any_cluster(async |cluster| {
        let created = create(cluster, "a", "web").await;
        let again = cluster.api::<Service>().create(&PostParams::default(), &fresh(&created)).await;
        assert_eq!(code(&again.unwrap_err()), "409");
        label(cluster, "a", json!("db")).await;
        let stale = json!({ "metadata": { "resourceVersion": created.resource_version(), "labels": { "app": "x" } } });
        let patched = cluster.api::<Service>().patch("a", &PatchParams::default(), &Patch::Merge(stale)).await;
        assert_eq!(code(&patched.unwrap_err()), "409");
        assert_eq!(cluster.api::<Service>().get("a").await.unwrap().labels()["app"], "db");
    });
}

#[test]
fn status_takes_addresses_and_completes_their_mode() {
    on_any_cluster(async |cluster| {
        create(cluster, "a", "web").await;
        let patch = |ingress: Value| Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": ingress } } }));
        let services = cluster.api::<Service>();
        let put = async |ingress| services.patch_status("a", &PatchParams::default(), &patch(ingress)).await;
        let written = put(json!([{ "ip": "192.0.2.1" }])).await.unwrap();
        let written = serde_json::to_value(written.status).unwrap();
        assert_eq!(written["loadBalancer"]["ingress"], json!([{ "ip": "192.0.2.1", "ipMode": "VIP" }]));
        assert_eq!(code(&put(json!([{ "hostname": "a.example", "ipMode": "VIP" }])).await.unwrap_err()), "422");
    });
}

#[test]
fn events_are_accepted() {
    on_any_cluster(async |cluster| {
        let regarding = json!({ "kind": "Service", "namespace": cluster.namespace(), "name": "a" });
        let event = json!({ "metadata": { "generateName": "a." }, "involvedObject": regarding, "type": "Warning",
                            "reason": "FrontendConflict", "message": "two Services ask for one address" });
        let event: Event = cluster.create(event).await.unwrap();
        assert!(event.name_any().starts_with("a."));
    });
}

#[test]
fn a_lease_is_not_overwritten_blindly() {
    on_any_cluster(async |cluster| {
        let lease: Lease = cluster.create(json!({ "metadata": { "name": "l" }, "spec": {} })).await.unwrap();
        let leases = cluster.api::<Lease>();
        let blind = leases.replace("l", &PostParams::default(), &unversioned(&lease)).await;
        assert_eq!(code(&blind.unwrap_err()), "422");
        let mut held = lease.clone();
        held.spec.get_or_insert_default().holder_identity = Some("one".into());
        leases.replace("l", &PostParams::default(), &held).await.unwrap();
        assert_eq!(code(&leases.replace("l", &PostParams::default(), &held).await.unwrap_err()), "409");
    });
}

async fn create(cluster: &TestCluster, name: &str, app: &str) -> Service {
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
    let object = json!({ "metadata": { "name": name, "labels": { "app": app } }, "spec": spec });
    cluster.create(object).await.unwrap()
}

async fn label(cluster: &TestCluster, name: &str, app: Value) -> Service {
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "app": app } } }));
    cluster.api::<Service>().patch(name, &PatchParams::default(), &patch).await.unwrap()
}

/// The object as one that was never stored.
fn fresh(stored: &Service) -> Service {
    let mut fresh = stored.clone();
    fresh.metadata.resource_version = None;
    fresh.metadata.uid = None;
    fresh
}

fn unversioned(lease: &Lease) -> Lease {
    let mut lease = lease.clone();
    lease.metadata.resource_version = None;
    lease
}

type Line = kube::Result<WatchEvent<Service>>;

async fn next(lines: &mut (impl Stream<Item = Line> + Unpin)) -> Option<Line> {
    timeout(PATIENCE, lines.next()).await.expect("a line, or the end")
}

/// The next lines of a watch, regular bookmarks left out.
async fn told(lines: &mut (impl Stream<Item = Line> + Unpin), count: usize) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < count {
        match next(lines).await.unwrap_or_else(|| panic!("ended after {told:?}")).unwrap() {
            WatchEvent::Added(service) => told.push(format!("added {}", service.name_any())),
            WatchEvent::Modified(service) => told.push(format!("modified {}", service.name_any())),
            WatchEvent::Deleted(service) => told.push(format!("deleted {}", service.name_any())),
            WatchEvent::Bookmark(mark) if mark.metadata.annotations.contains_key("k8s.io/initial-events-end") => {
                told.push("everything was told".to_owned());
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => panic!("{status:?}"),
        }
    }
    told
}
