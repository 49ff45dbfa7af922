//! Kubernetes events of a running agent, as they arrive at the API server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use xlb_tests::api::{ApiServer, Listening, Target};
use xlb_tests::lab::{Agent, Bend, Lab, LabSpec, bent_binary};

use crate::ask::{metrics, soon};
use crate::stage::{lab, refusal, with_sizes};

const PORT: u16 = 30123;

#[test]
fn what_is_refused_of_a_service_is_an_event_of_it_once_and_the_node_says_that_xlb_starts() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let server = cluster();
    let _taken = lab.node().run(|| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))))?;
    let (_agent, _listening, _directory) = start(&lab, &server)?;
    let by_reason = |reason: &str| soon(reason, || event(&server, reason));

    let port = by_reason("FailedToStartServiceHealthcheck")?;
    assert_eq!(port["type"], "Warning");
    assert_eq!(port["metadata"]["namespace"], "default");
    let involved = &port["involvedObject"];
    assert_eq!([&involved["kind"], &involved["namespace"], &involved["name"]], ["Service", "default", "web"]);
    let uid = server.get("services", "default", "web").context("the Service")?["metadata"]["uid"].clone();
    assert_eq!(involved["uid"], uid, "kubectl describe looks for it");
    assert!(port["message"].as_str().is_some_and(|note| note.contains("30123")), "{port}");
    let refused = by_reason("ExternalIPRefused")?;
    assert!(refused["message"].as_str().is_some_and(|note| note.contains("--external-ip-cidrs")), "{refused}");
    let starting = by_reason("Starting")?;
    assert_eq!([&starting["type"], &starting["involvedObject"]["kind"]], ["Normal", "Node"]);
    assert_eq!(starting["metadata"]["namespace"], "default");

    let count = server.objects("events").len();
    server.apply(&service("another"));
    soon("another Service's", || (server.objects("events").len() > count).then_some(()))?;
    let of_web =
        |event: &Arc<Value>| event["reason"] == "ExternalIPRefused" && event["involvedObject"]["name"] == "web";
    assert_eq!(server.objects("events").iter().filter(|event| of_web(event)).count(), 1, "not again in each round");
    Ok(())
}

#[test]
fn a_program_that_is_refused_is_an_event_of_the_node() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let server = cluster();
    let (mut agent, _listening, directory) = start(&lab, &server)?;
    agent.wait_until(|maps| refusal(maps, &["externalIP"]).is_some());
    agent.kill()?;
    agent.become_binary(bent_binary(directory.path(), "pod", Bend::Unverifiable)?);
    agent.start_again()?;
    agent.wait_until(|maps| refusal(maps, &["program pod: "]).is_some());
    let told = soon("ProgramsRefused", || event(&server, "ProgramsRefused"))?;
    assert_eq!([&told["type"], &told["involvedObject"]["kind"]], ["Warning", "Node"]);
    assert!(told["message"].as_str().is_some_and(|note| note.starts_with("program pod: ")), "{told}");
    Ok(())
}

#[test]
fn a_right_that_is_missing_is_named_once_and_nothing_else_suffers() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let server = cluster();
    server.forbid(Target::any().verb("create"));
    let (agent, _listening, _directory) = start(&lab, &server)?;
    soon("told", || agent.log().contains("needs the verb create on events").then_some(()))?;
    soon("counted", || {
        let told = metrics(lab.node()).ok()?;
        (told.value("xlb_events_total", &[("outcome", "failed")]) >= Some(2.0)).then_some(())
    })?;
    assert_eq!(agent.log().matches("needs the verb create on events").count(), 1, "{}", agent.log());
    assert!(metrics(lab.node())?.value("xlb_watch_lists_total", &[("resource", "services")]) >= Some(1.0));
    Ok(())
}

/// A Service with a health port, and an externalIP that nobody allowed.
fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": PORT, "externalIPs": ["198.51.100.77"], "ports": [{ "port": 80 }],
        },
    })
}

/// A server with this node and one Service.
pub fn cluster() -> ApiServer {
    let server = ApiServer::new();
    server.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node" } }));
    server.apply(&service("web"));
    server
}

/// An agent that follows the server, over HTTP in the node's namespace.
pub fn start(lab: &Lab, server: &ApiServer) -> Result<(Agent, Listening, TempDir)> {
    let directory = TempDir::new()?;
    let kubeconfig = directory.path().join("kubeconfig");
    let listener = lab.node().run(|| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    let listening = server.serve(listener)?;
    listening.write_kubeconfig(&kubeconfig)?;
    let kubeconfig = kubeconfig.to_str().context("a path that is no text")?;
    let arguments = ["--kubeconfig", kubeconfig, "--health-check-node-ports", "on"];
    Ok((Agent::start_with(lab, &with_sizes(&arguments))?, listening, directory))
}

fn event(server: &ApiServer, reason: &str) -> Option<Arc<Value>> {
    server.objects("events").into_iter().find(|event| event["reason"] == reason)
}
