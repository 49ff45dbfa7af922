//! The agent's own health, asked over HTTP: `/healthz`, `/livez`, `/readyz`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use xlb_tests::api::{ApiServer, Fault, Target};
use xlb_tests::lab::{Agent, Lab, LabSpec, Manifests};

use crate::ask::{HEALTH_PORT, METRICS_PORT, get, soon, status};
use crate::command::refused_agent;
use crate::stage::{Stage, lab, with_sizes};

#[test]
fn a_serving_agent_is_healthy_alive_and_ready_and_says_since_when() -> Result<()> {
    let stage = Stage::up()?;
    let node = stage.lab.node();
    soon("ready", || status(node, "/readyz").filter(|status| *status == 200))?;
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = get(node, HEALTH_PORT, path)?;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
        assert!(answer.head.contains("x-content-type-options: nosniff"), "{answer:?}");
        let body = answer.json();
        assert_eq!((&body["healthy"], &body["status"]["IPv4"]["healthy"]), (&json!(true), &json!(true)), "{body}");
        assert_eq!(body["lastUpdated"], body["currentTime"], "who is well was updated just now");
        assert_eq!(body.get("nodeEligible").and_then(Value::as_bool), (path == "/healthz").then_some(true), "{body}");
    }
    assert_eq!(status(node, "/"), Some(404));
    Ok(())
}

#[test]
fn before_everything_was_told_the_agent_lives_and_is_not_ready_and_a_node_that_leaves_is_not_healthy() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let server = ApiServer::new();
    server.inject(Fault::Status { code: 503, retry_after_s: None }, Target::any().resource("endpointslices"));
    let directory = TempDir::new()?;
    let kubeconfig = directory.path().join("kubeconfig");
    let listener = lab.node().run(|| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    let listening = server.serve(listener)?;
    listening.write_kubeconfig(&kubeconfig)?;
    let source = ["--kubeconfig", kubeconfig.to_str().context("a path that is no text")?];
    let _agent = Agent::start_with(&lab, &with_sizes(&source))?;
    let node = lab.node();
    let until = |path: &str, wanted: u16| {
        soon(&format!("{path} {wanted}"), || status(node, path).filter(|status| *status == wanted))
    };

    until("/livez", 200)?;
    assert_eq!([status(node, "/healthz"), status(node, "/readyz")], [Some(503), Some(503)], "nothing is known yet");
    server.lift_faults();
    until("/readyz", 200)?;
    assert_eq!(status(node, "/healthz"), Some(503), "there is no Node object");
    for (spec, healthz) in [
        (json!({}), 200),
        (json!({ "taints": [{ "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" }] }), 503),
        (json!({ "unschedulable": true, "taints": [{ "key": "other", "effect": "NoExecute" }] }), 200),
    ] {
        server.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node" }, "spec": spec }));
        until("/healthz", healthz).with_context(|| spec.to_string())?;
        assert_eq!(status(node, "/livez"), Some(200), "{spec}");
    }
    Ok(())
}

#[test]
fn an_agent_that_stands_still_does_not_answer_and_one_that_goes_on_does() -> Result<()> {
    let stage = Stage::up()?;
    let node = stage.lab.node();
    let process = Pid::from_raw(stage.agent.process().context("no process")?.try_into()?);
    kill(process, Signal::SIGSTOP)?;
    // A thread that answers right now stops only after that.
    soon("silent", || get(node, HEALTH_PORT, "/livez").is_err().then_some(()))?;
    kill(process, Signal::SIGCONT)?;
    soon("alive", || status(node, "/livez").filter(|status| *status == 200)).map(drop)
}

#[test]
fn an_address_that_something_else_has_is_refused_by_its_flag_and_off_needs_none() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    for (port, flag) in [(HEALTH_PORT, "--health-address"), (METRICS_PORT, "--metrics-address")] {
        let taken = lab.node().run(|| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
        let ended = refused_agent(&lab, &manifests, &[])?;
        ended.is_refused_with(&[&port.to_string(), flag, "off", "in use"]);
        assert!(!lab.pin_directory().exists(), "nothing is left");
        drop(taken);
    }
    let off = ["--health-address", "off", "--metrics-address", "off"];
    let stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &off)?;
    for port in [HEALTH_PORT, METRICS_PORT] {
        assert!(get(stage.lab.node(), port, "/livez").is_err());
    }
    Ok(())
}
