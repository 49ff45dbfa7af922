//! Objects to put into the server, and ways to tell as text what a client saw.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::{Request, StatusCode};
use k8s_openapi::api::core::v1::Service;
use kube::client::Body;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::timeout;
use xlb_tests::api::ApiServer;

/// A Service of type LoadBalancer with one label.
pub fn service(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": app } },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
    })
}

/// A server with these Services, labelled by their own names.
pub fn server_with(names: &[&str]) -> ApiServer {
    let server = ApiServer::new();
    for name in names {
        server.apply(&service(name, name));
    }
    server
}

/// All Services of the server, as a client sees them.
pub fn services(server: &ApiServer) -> Api<Service> {
    Api::all(server.client())
}

/// How long a fact waits for an event, where time is real.
const PATIENCE: Duration = Duration::from_secs(20);

/// The next events of a watcher, a word and a name each.
pub async fn told<K>(events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin), count: usize) -> Vec<String>
where
    K: kube::Resource,
{
    let mut told = Vec::new();
    while told.len() < count {
        let event = timeout(PATIENCE, events.next()).await;
        told.push(text(event.unwrap_or_else(|_| panic!("only told {told:?}")).expect("a watcher has no end")));
    }
    told
}

/// Asserts that a watcher tells nothing for a while.
pub async fn assert_quiet<K>(events: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin), seconds: u64)
where
    K: kube::Resource,
{
    if let Ok(event) = timeout(Duration::from_secs(seconds), events.next()).await {
        panic!("told {:?}", event.map(text));
    }
}

fn text<K: kube::Resource>(event: watcher::Result<Event<K>>) -> String {
    match event {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(object)) => format!("init {}", object.name_any()),
        Ok(Event::InitDone) => "done".to_owned(),
        Ok(Event::Apply(object)) => format!("apply {}", object.name_any()),
        Ok(Event::Delete(object)) => format!("delete {}", object.name_any()),
        Err(watcher::Error::WatchError(status)) => format!("error {}", status.code),
        Err(watcher::Error::InitialListFailed(error)) => format!("no list: {}", code(&error)),
        Err(watcher::Error::WatchStartFailed(error)) => format!("no watch: {}", code(&error)),
        Err(watcher::Error::WatchFailed(_)) => "broken".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The HTTP status in an error, or what kind of error it is.
pub fn code(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.code.to_string(),
        _ => "no answer".to_owned(),
    }
}

/// What the server answers to a GET: the status and the body.
pub async fn get(client: &Client, path: &str) -> (StatusCode, Value) {
    let response = client.send(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let code = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap())
}

/// What the server streams to a watch until it ends: the event and the name (or version, or code) of each line.
pub async fn watched(client: &Client, query: &str) -> Vec<String> {
    let path = format!("/api/v1/services?watch=true&{query}");
    let response = client.send(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| line_text(&serde_json::from_slice(line).unwrap())).collect()
}

fn line_text(line: &Value) -> String {
    let object = &line["object"];
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    match line["type"].as_str().unwrap() {
        "ERROR" => format!("ERROR {} {}", object["code"], object["reason"].as_str().unwrap()),
        "BOOKMARK" if object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true" => {
            format!("BOOKMARK {version} ends initial events")
        }
        "BOOKMARK" => format!("BOOKMARK {version}"),
        event => format!("{event} {} {version}", object["metadata"]["name"].as_str().unwrap()),
    }
}

/// The names in a list.
pub fn names<K: kube::Resource>(objects: &[K]) -> Vec<String> {
    objects.iter().map(kube::ResourceExt::name_any).collect()
}
