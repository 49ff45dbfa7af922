//! Label and field selectors, and objects that come to match them or cease to.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PartialObjectMeta};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use xlb_tests::api::ApiServer;

use super::stage::{assert_quiet, code, names, server_with, service, services, told, watched};

#[tokio::test(start_paused = true)]
async fn label_selectors_select() {
    let server = server_with(&["a", "b", "c"]);
    server.apply(&json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "bare" } }));
    for (selector, expected) in [
        ("app=a", "a"),
        ("app==a", "a"),
        ("app!=a", "b bare c"),
        ("app in (a, c)", "a c"),
        ("app notin (a,c)", "b bare"),
        ("app", "a b c"),
        ("!app", "bare"),
        ("app,app!=b", "a c"),
        ("app in (a,b),app notin (b)", "a"),
    ] {
        let list = services(&server).list(&ListParams::default().labels(selector)).await.unwrap();
        assert_eq!(names(&list.items).join(" "), expected, "{selector}");
    }
}

#[tokio::test(start_paused = true)]
async fn field_selectors_select_and_unknown_fields_are_400() {
    let server = server_with(&["a", "b"]);
    let mut plain = service("plain", "plain");
    plain["spec"]["type"] = json!("ClusterIP");
    server.apply(&plain);
    let services = services(&server);
    let list = async |fields: &str| services.list(&ListParams::default().fields(fields)).await;

    assert_eq!(names(&list("spec.type=LoadBalancer").await.unwrap().items), ["a", "b"]);
    assert_eq!(names(&list("metadata.name=b").await.unwrap().items), ["b"]);
    assert_eq!(names(&list("metadata.name!=b,spec.type!=ClusterIP").await.unwrap().items), ["a"]);
    assert_eq!(code(&list("spec.externalName=x").await.unwrap_err()), "400");
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_selector_is_not_counted() {
    let list = services(&server_with(&["a", "b"])).list(&ListParams::default().labels("app").limit(1)).await.unwrap();
    assert!(list.metadata.continue_.is_some());
    assert_eq!(list.metadata.remaining_item_count, None);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_enters_a_selection_is_added_and_one_that_leaves_is_deleted() {
    let server = ApiServer::new();
    let mut events = watcher(services(&server), watcher::Config::default().labels("app=web")).boxed();
    assert_eq!(told(&mut events, 2).await, ["init", "done"]);

    server.apply(&service("a", "db"));
    assert_quiet(&mut events, 5).await;
    server.apply(&service("a", "web"));
    server.apply(&service("a", "db"));
    assert_eq!(told(&mut events, 2).await, ["apply a", "delete a"]);
}

#[tokio::test(start_paused = true)]
async fn the_object_that_left_shows_its_last_matching_labels_at_the_new_version() {
    let server = server_with(&["a"]);
    server.apply(&service("a", "changed"));
    let told = watched(&server.client(), "labelSelector=app%3Da&resourceVersion=2&timeoutSeconds=1").await;
    assert_eq!(told, ["DELETED a 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_changes_its_type_enters_and_leaves_the_field_selection() {
    let server = server_with(&["a"]);
    let mut events = watcher(services(&server), watcher::Config::default().fields("spec.type=LoadBalancer")).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);

    let mut plain = service("a", "a");
    plain["spec"]["type"] = json!("NodePort");
    server.apply(&plain);
    assert_eq!(told(&mut events, 1).await, ["delete a"]);
    server.apply(&service("a", "a"));
    assert_eq!(told(&mut events, 1).await, ["apply a"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_narrows_lists_and_watches() {
    let server = ApiServer::new();
    let slice = |namespace: &str, name: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [],
            "metadata": { "name": name, "namespace": namespace },
        })
    };
    server.apply(&slice("one", "a"));
    server.apply(&slice("two", "b"));
    let slices = Api::<EndpointSlice>::namespaced(server.client(), "two");
    let mut events = watcher(slices, watcher::Config::default()).boxed();

    assert_eq!(told(&mut events, 3).await, ["init", "init b", "done"]);
    server.apply(&slice("one", "c"));
    server.apply(&slice("two", "d"));
    assert_eq!(told(&mut events, 1).await, ["apply d"]);
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_is_listed_and_watched_when_asked_for() {
    let server = ApiServer::new();
    let node = |zone: &str| {
        let labels = json!({ "topology.kubernetes.io/zone": zone });
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n", "labels": labels }, "spec": {} })
    };
    server.apply(&node("a"));
    let nodes = Api::<PartialObjectMeta<Node>>::all(server.client());
    assert_eq!(names(&nodes.list(&ListParams::default()).await.unwrap().items), ["n"]);
    let mut events = watcher(nodes, watcher::Config::default()).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init n", "done"]);

    server.apply(&node("b"));
    let Some(Ok(watcher::Event::Apply(seen))) = events.next().await else { panic!("the change was not told") };
    assert_eq!(seen.labels()["topology.kubernetes.io/zone"], "b");
    assert!(server.requests().iter().all(|request| request.is_metadata_only));
}
