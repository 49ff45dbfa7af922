//! Writes: compare and swap, writes that change nothing, deletion, and the rules of single kinds.

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::watcher::{self, watcher};
use serde_json::json;
use xlb_tests::api::ApiServer;

use super::stage::{assert_quiet, code, server_with, service, services, told};

fn own_services(server: &ApiServer) -> Api<Service> {
    Api::namespaced(server.client(), "default")
}

#[tokio::test(start_paused = true)]
async fn a_name_is_created_once() {
    let server = ApiServer::new();
    let services = own_services(&server);
    let wanted: Service = serde_json::from_value(service("a", "a")).unwrap();
    let created = services.create(&PostParams::default(), &wanted).await.unwrap();
    assert_eq!(created.metadata.resource_version.as_deref(), Some("2"));
    assert!(created.metadata.uid.is_some());
    assert_eq!(code(&services.create(&PostParams::default(), &wanted).await.unwrap_err()), "409");
}

#[tokio::test(start_paused = true)]
async fn of_20_concurrent_puts_at_one_version_one_wins() {
    let server = server_with(&["a"]);
    let services = own_services(&server);
    let seen = services.get("a").await.unwrap();
    let puts = (0..20).map(|number| {
        let (services, mut wanted) = (services.clone(), seen.clone());
        wanted.metadata.labels.get_or_insert_default().insert("winner".into(), number.to_string());
        async move { services.replace("a", &PostParams::default(), &wanted).await }
    });
    let (won, lost): (Vec<_>, Vec<_>) = join_all(puts).await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.into_iter().all(|put| code(&put.unwrap_err()) == "409"));
}

#[tokio::test(start_paused = true)]
async fn a_patch_at_a_stale_version_is_409() {
    let server = server_with(&["a"]);
    server.apply(&service("a", "changed"));
    let patch = json!({ "metadata": { "resourceVersion": "2", "labels": { "app": "mine" } } });
    let result = own_services(&server).patch("a", &PatchParams::default(), &Patch::Merge(patch)).await;
    assert_eq!(code(&result.unwrap_err()), "409");
    assert_eq!(server.get("services", "default", "a").unwrap()["metadata"]["labels"]["app"], "changed");
}

#[tokio::test(start_paused = true)]
async fn null_in_a_merge_patch_removes() {
    let server = server_with(&["a"]);
    let patch = json!({ "metadata": { "labels": { "app": null, "new": "yes" } } });
    own_services(&server).patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(server.get("services", "default", "a").unwrap()["metadata"]["labels"], json!({ "new": "yes" }));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_makes_no_version_and_no_event() {
    let server = server_with(&["a"]);
    let services = services(&server);
    let mut events = watcher(services.clone(), watcher::Config::default()).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);

    let own = own_services(&server);
    let seen = own.get("a").await.unwrap();
    let put = own.replace("a", &PostParams::default(), &seen).await.unwrap();
    let patch = json!({ "metadata": { "labels": { "app": "a" } } });
    own.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    server.apply(&service("a", "a"));

    assert_quiet(&mut events, 10).await;
    assert_eq!(put.metadata.resource_version, seen.metadata.resource_version);
}

#[tokio::test(start_paused = true)]
async fn an_object_with_finalizers_goes_with_the_last_of_them() {
    let server = ApiServer::new();
    let mut object = service("a", "a");
    object["metadata"]["finalizers"] = json!(["service.kubernetes.io/load-balancer-cleanup"]);
    server.apply(&object);
    let mut events = watcher(services(&server), watcher::Config::default()).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);

    own_services(&server).delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(told(&mut events, 1).await, ["apply a"]);
    assert!(server.get("services", "default", "a").unwrap()["metadata"]["deletionTimestamp"].is_string());

    let patch = json!({ "metadata": { "finalizers": null } });
    own_services(&server).patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(told(&mut events, 1).await, ["delete a"]);
}

#[tokio::test(start_paused = true)]
async fn a_delete_for_another_uid_is_409() {
    let server = server_with(&["a"]);
    let preconditions = Preconditions { uid: Some("other".into()), ..Preconditions::default() };
    let result = own_services(&server).delete("a", &DeleteParams::default().preconditions(preconditions)).await;
    assert_eq!(code(&result.unwrap_err()), "409");
}

#[tokio::test(start_paused = true)]
async fn events_are_accepted() {
    let server = ApiServer::new();
    let event: Event = serde_json::from_value(json!({
        "metadata": { "generateName": "a." }, "involvedObject": { "kind": "Service", "name": "a" },
        "reason": "ExternalIPRefused", "type": "Warning",
    }))
    .unwrap();
    let events = Api::<Event>::namespaced(server.client(), "default");
    events.create(&PostParams::default(), &event).await.unwrap();
    events.create(&PostParams::default(), &event).await.unwrap();
    let stored = server.objects("events");
    assert_eq!(stored.len(), 2);
    assert_eq!(stored[0]["reason"], "ExternalIPRefused");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_not_overwritten_blindly_and_wants_six_digits() {
    let server = ApiServer::new();
    let leases = Api::<Lease>::namespaced(server.client(), "default");
    let named = |spec| json!({ "metadata": { "name": "vip", "namespace": "default" }, "spec": spec });
    let lease: Lease = serde_json::from_value(named(json!({ "holderIdentity": "a" }))).unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
    assert_eq!(code(&leases.replace("vip", &PostParams::default(), &lease).await.unwrap_err()), "422");

    for (time, expected) in [("2026-01-01T00:00:00Z", "400"), ("2026-01-01T00:00:00.123Z", "400")] {
        let patch = Patch::Merge(json!({ "spec": { "renewTime": time } }));
        let result = leases.patch("vip", &PatchParams::default(), &patch).await;
        assert_eq!(code(&result.unwrap_err()), expected, "{time}");
    }
    let patch = Patch::Merge(json!({ "spec": { "renewTime": "2026-01-01T00:00:00.123456Z" } }));
    leases.patch("vip", &PatchParams::default(), &patch).await.unwrap();
}
