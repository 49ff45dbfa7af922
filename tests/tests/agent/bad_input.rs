//! All kinds of bad objects in a cluster, side by side with a good Service: that one is served, the others are told.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use xlb_tests::api::{ApiServer, MANY_PORTS, bad_cases};
use xlb_tests::lab::{Agent, LabSpec, Manifests};

use crate::stage::{Stage, lab, serves, service, with_sizes};

#[test]
fn a_good_service_is_served_among_all_kinds_of_bad_ones() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let server = ApiServer::new();
    server.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node" } }));
    let cases = bad_cases();
    let bad = || cases.iter().flat_map(|case| &case.objects);
    server.apply_all(bad());
    apply_all(&server, &service(&lab, "web", 0, &[0]))?;

    let directory = TempDir::new()?;
    let kubeconfig = directory.path().join("kubeconfig");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listening =
        server.serve(lab.node().run(|| TcpListener::bind(address)).context("listening in the node's namespace")?)?;
    listening.write_kubeconfig(&kubeconfig)?;
    let source = ["--kubeconfig", kubeconfig.to_str().context("a path that is no text")?];
    let agent = Agent::start_with(&lab, &with_sizes(&source))?;
    let mut stage = Stage { agent, manifests: Manifests::new()?, lab };

    let greedy = |maps: &Value| {
        maps["services"].as_array().into_iter().flatten().filter(|service| is_of(service, "greedy")).count()
    };
    stage.until(|maps| serves(maps, "web") && greedy(maps) == usize::from(MANY_PORTS));
    stage.until_answers(0, "pod-0")?;
    let mut held = stage.hold_at(0, "pod-0")?;
    for part in cases.iter().flat_map(|case| &case.told) {
        stage.until_refused(&[part]);
    }

    // The agent goes on: the good Service changes while the bad ones go and come back.
    bad().for_each(|object| remove(&server, object));
    apply_all(&server, &service(&stage.lab, "web", 0, &[1]))?;
    stage.until_answers(0, "pod-1")?;
    server.apply_all(bad());
    apply_all(&server, &service(&stage.lab, "web", 0, &[0]))?;
    stage.until_answers(0, "pod-0")?;
    held.answers()
}

fn apply_all(server: &ApiServer, yaml: &str) -> Result<()> {
    let objects: serde_yaml_ng::Result<Vec<Value>> = yaml.split("---\n").map(serde_yaml_ng::from_str).collect();
    server.apply_all(objects?);
    Ok(())
}

fn remove(server: &ApiServer, object: &Value) {
    let plural = match object["kind"].as_str() {
        Some("Service") => "services",
        Some("EndpointSlice") => "endpointslices",
        _ => "networkpolicies",
    };
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    assert!(server.delete(plural, text("namespace"), text("name")), "{object} was there");
}

fn is_of(service: &Value, name: &str) -> bool {
    service["name"].as_str().is_some_and(|full| full.contains(&format!("/{name}:")))
}
