//! `/status` of a Service: what it takes, what the server adds, and what it refuses.

use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use xlb_tests::api::ApiServer;

use super::stage::{code, server_with, service};

async fn patch_status(server: &ApiServer, patch: Value) -> kube::Result<Service> {
    let services = Api::<Service>::namespaced(server.client(), "default");
    services.patch_status("a", &PatchParams::default(), &Patch::Merge(patch)).await
}

fn ingress(points: Value) -> Value {
    json!({ "status": { "loadBalancer": { "ingress": points } } })
}

#[tokio::test(start_paused = true)]
async fn status_takes_status_and_metadata_and_nothing_else() {
    let server = server_with(&["a"]);
    let mut patch = ingress(json!([{ "ip": "192.0.2.1" }]));
    patch["metadata"] = json!({ "annotations": { "mark": "yes" } });
    patch["spec"] = json!({ "type": "NodePort" });
    patch_status(&server, patch).await.unwrap();

    let stored = server.get("services", "default", "a").unwrap();
    assert_eq!(stored["status"]["loadBalancer"]["ingress"], json!([{ "ip": "192.0.2.1", "ipMode": "VIP" }]));
    assert_eq!(stored["metadata"]["annotations"]["mark"], "yes");
    assert_eq!(stored["spec"]["type"], "LoadBalancer");
    assert_eq!(server.requests_of("patch", "services/status").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_object_itself_does_not_take_status() {
    let server = server_with(&["a"]);
    patch_status(&server, ingress(json!([{ "ip": "192.0.2.1" }]))).await.unwrap();
    let services = Api::<Service>::namespaced(server.client(), "default");
    let mut seen = services.get("a").await.unwrap();
    seen.status = None;
    services.replace("a", &PostParams::default(), &seen).await.unwrap();
    assert_eq!(
        server.get("services", "default", "a").unwrap()["status"]["loadBalancer"]["ingress"][0]["ip"],
        "192.0.2.1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_mode_without_an_address_is_422() {
    let server = server_with(&["a"]);
    let result = patch_status(&server, ingress(json!([{ "hostname": "lb.example", "ipMode": "VIP" }]))).await;
    assert_eq!(code(&result.unwrap_err()), "422");
}

#[tokio::test(start_paused = true)]
async fn ingress_of_a_service_that_is_no_load_balancer_is_422() {
    let server = ApiServer::new();
    let mut plain = service("a", "a");
    plain["spec"]["type"] = json!("ClusterIP");
    server.apply(&plain);
    let result = patch_status(&server, ingress(json!([{ "ip": "192.0.2.1" }]))).await;
    assert_eq!(code(&result.unwrap_err()), "422");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_ceases_to_be_a_load_balancer_loses_its_status() {
    let server = server_with(&["a"]);
    patch_status(&server, ingress(json!([{ "ip": "192.0.2.1" }]))).await.unwrap();
    let services = Api::<Service>::namespaced(server.client(), "default");
    let patch = Patch::Merge(json!({ "spec": { "type": "ClusterIP" } }));
    services.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(server.get("services", "default", "a").unwrap()["status"], json!({ "loadBalancer": {} }));
}

#[tokio::test(start_paused = true)]
async fn the_class_of_a_load_balancer_may_not_change() {
    let server = server_with(&["a"]);
    let services = Api::<Service>::namespaced(server.client(), "default");
    let patch = Patch::Merge(json!({ "spec": { "loadBalancerClass": "xlb.example/x" } }));
    assert_eq!(code(&services.patch("a", &PatchParams::default(), &patch).await.unwrap_err()), "422");
}

#[tokio::test(start_paused = true)]
async fn apply_goes_past_every_rule() {
    let server = ApiServer::new();
    let mut object = service("a", "a");
    object["spec"]["type"] = json!("ClusterIP");
    object["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "010.0.0.1" }] } });
    server.apply(&object);
    assert_eq!(
        server.get("services", "default", "a").unwrap()["status"]["loadBalancer"]["ingress"][0]["ip"],
        "010.0.0.1"
    );
}
