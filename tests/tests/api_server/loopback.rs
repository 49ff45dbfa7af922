//! The same server over real HTTP on loopback, in real time, as the binary meets it.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Config};
use serde_json::json;
use tokio::time::timeout;
use xlb_tests::api::{Fault, Listening, Target};

use super::stage::{code, names, server_with, service, told};

/// A client as the binary makes it, by kubeconfig, but without the retries of kube.
async fn client(listening: &Listening) -> Client {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    listening.write_kubeconfig(&path).unwrap();
    let kubeconfig = Kubeconfig::read_from(&path).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn lists_watches_and_writes_go_over_http() {
    let server = server_with(&["a", "b", "c"]);
    let listening = server.listen().unwrap();
    let client = client(&listening).await;
    let services = Api::<Service>::all(client.clone());
    let mut events = watcher(services, watcher::Config::default().page_size(2)).boxed();
    assert_eq!(told(&mut events, 5).await, ["init", "init a", "init b", "init c", "done"]);

    let patch = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } }));
    let own = Api::<Service>::namespaced(client, "default");
    own.patch_status("b", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(told(&mut events, 1).await, ["apply b"]);

    server.delete("services", "default", "a");
    assert_eq!(told(&mut events, 1).await, ["delete a"]);
}

#[tokio::test]
async fn faults_break_real_connections() {
    let server = server_with(&["a"]);
    let listening = server.listen().unwrap();
    let services = Api::<Service>::all(client(&listening).await);

    server.inject(Fault::Refuse, Target::any().times(1));
    assert_eq!(code(&services.list(&ListParams::default()).await.unwrap_err()), "no answer");
    server.inject(Fault::Status { code: 503, retry_after_s: None }, Target::any().times(1));
    assert_eq!(code(&services.list(&ListParams::default()).await.unwrap_err()), "503");
    server.inject(Fault::Hang, Target::any().times(1));
    assert!(timeout(Duration::from_millis(200), services.list(&ListParams::default())).await.is_err());

    server.inject(Fault::Cut { after_lines: 0 }, Target::any().verb("watch").times(1));
    let mut events = watcher(services, watcher::Config::default()).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);
    // For kube a connection that closes in mid-line is an end like any other: it drops the half line and watches again.
    server.apply(&service("b", "b"));
    assert_eq!(told(&mut events, 1).await, ["apply b"]);
    assert_eq!(server.requests_of("watch", "services").len(), 2);
    server.drop_connections();
    server.apply(&service("c", "c"));
    assert_eq!(told(&mut events, 1).await, ["apply c"]);
    assert_eq!(server.requests_of("watch", "services").len(), 3);
}

#[tokio::test]
async fn a_server_that_stopped_listens_again_at_its_address() {
    let server = server_with(&["a"]);
    let listening = server.listen().unwrap();
    let address = listening.address();
    let services = Api::<Service>::all(client(&listening).await);
    services.list(&ListParams::default()).await.unwrap();

    drop(listening);
    assert_eq!(code(&services.list(&ListParams::default()).await.unwrap_err()), "no answer");

    let _listening = server.listen_at(address).unwrap();
    assert_eq!(names(&services.list(&ListParams::default()).await.unwrap().items), ["a"]);
}
