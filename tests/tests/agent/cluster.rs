//! The agent follows an API server: the one of the tests, over HTTP in the node's namespace.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use xlb_tests::api::{ApiServer, Listening};
use xlb_tests::lab::{Agent, EndpointSpec, Lab, LabSpec, Manifests, ServiceSpec, SliceSpec, service_yaml, slice_yaml};

use crate::stage::{Stage, lab, refusal, serves, socket, takers, with_sizes};

const PORTS: &[(&str, &str, u16)] = &[("http", "TCP", 80)];
const TARGET_PORTS: &[(&str, &str, u16)] = &[("http", "TCP", 8080)];

#[test]
fn an_agent_follows_a_cluster_and_serves_through_its_outage() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let server = ApiServer::new();
    server.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node" } }));
    server.apply(&object(&web(&lab))?);
    server.apply(&object(&slice(&lab, &[0]))?);
    let directory = TempDir::new()?;
    let kubeconfig = directory.path().join("kubeconfig");
    let listening = listen(&server, &lab, 0)?;
    listening.write_kubeconfig(&kubeconfig)?;
    let source = ["--kubeconfig", kubeconfig.to_str().context("a path that is no text")?];
    let agent = Agent::start_with(&lab, &with_sizes(&source))?;
    let mut stage = Stage { agent, manifests: Manifests::new()?, lab };

    stage.until(|maps| serves(maps, "web"));
    let mut held = stage.hold_at(0, "pod-0")?;
    server.apply(&object(&slice(&stage.lab, &[1]))?);
    stage.until_answers(0, "pod-1")?;
    held.answers()?;

    let port = listening.address().port();
    drop(listening);
    stage.until(|maps| refusal(maps, &["services"]).is_some());
    held.answers()?;
    assert_eq!(stage.who(0)?, "pod-1");

    server.apply(&object(&slice(&stage.lab, &[0, 1]))?);
    let _listening = listen(&server, &stage.lab, port)?;
    let both = [socket(&stage.lab, 0), socket(&stage.lab, 1)];
    stage.until(|maps| takers(maps, "web") == both && maps["refusals"].as_array().is_some_and(Vec::is_empty));
    held.answers()
}

fn listen(server: &ApiServer, lab: &Lab, port: u16) -> Result<Listening> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    server.serve(lab.node().run(|| TcpListener::bind(address)).context("listening in the node's namespace")?)
}

fn object(yaml: &str) -> Result<Value> {
    Ok(serde_yaml_ng::from_str(yaml)?)
}

fn web(lab: &Lab) -> String {
    let vips = [lab.vip(0).into()];
    let (namespace, name) = ("default", "web");
    let spec = ServiceSpec { namespace, name, vips: &vips, ports: PORTS, local_policy: true, ..ServiceSpec::default() };
    service_yaml(&spec)
}

fn slice(lab: &Lab, pods: &[usize]) -> String {
    let endpoints: Vec<_> = pods.iter().map(|&pod| EndpointSpec::ready(lab.pod_address(pod))).collect();
    slice_yaml(&SliceSpec { namespace: "default", service: "web", ports: TARGET_PORTS, endpoints: &endpoints })
}
