//! Commands that show something, in every form, with an agent and without.

use std::io::Read;
use std::net::UdpSocket;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_tests::lab::{EndpointSpec, Lab, LabSpec, LineClient, service_yaml, slice_yaml, wait_for, xlb_binary};
use xlb_tests::lab::{ServiceSpec, SliceSpec};
use xlb_tests::openmetrics::parse;

use crate::command::xlb;
use crate::snapshot;
use crate::stage::{LATER, Stage};

/// The client's port of the connection that is shown.
const CLIENT_PORT: u16 = 20_001;

/// Each command with the name of the file that holds what it prints.
const VIEWS: [(&str, &[&str]); 6] = [
    ("status", &["status"]),
    ("services", &["services"]),
    ("service", &["services", "web"]),
    ("backends", &["backends"]),
    ("flows", &["flows"]),
    ("explain", &["explain", "--src", "198.51.100.10:20001", "--dst", "203.0.113.10:80"]),
];

/// `default/web` with a connection, two pods, and a third that left it and lives; `default/dns` with that one and the first; and `default/empty` with none on
/// this node, for which a datagram came.
struct Scene {
    stage: Stage,
    held: LineClient,
}

impl Scene {
    fn up() -> Result<Scene> {
        let mut stage = Stage::with(LabSpec { pod_count: 3, ..LabSpec::default() }, &["--keep-dataplane"])?;
        stage.serve_pods(&[0, 1])?;
        let pods = [stage.lab.pod_address(2), stage.lab.pod_address(0)].map(EndpointSpec::ready);
        stage.manifests.write("dns.yaml", &dns(&stage.lab, "dns", 1, &pods))?;
        let elsewhere = EndpointSpec { node: "elsewhere".into(), ..EndpointSpec::ready(stage.lab.pod_address(1)) };
        stage.manifests.write("empty.yaml", &dns(&stage.lab, "empty", 2, &[elsewhere]))?;
        stage.until(|maps| maps["services"].as_array().is_some_and(|services| services.len() == 3));
        stage.until(|maps| maps["backends"].as_array().is_some_and(|backends| backends.len() == 5));
        let mut held = LineClient::connect_from_port(stage.lab.client(0), CLIENT_PORT, stage.vip(0))?;
        held.identity()?;
        let empty = stage.vip(2);
        stage.lab.client(0).run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", empty))?;
        stage.until(|maps| maps["counters"]["empty_dropped"] == 1 && maps["counters"]["accepted"] == 1);
        Ok(Scene { stage, held })
    }
}

fn dns(lab: &Lab, name: &str, vip: usize, endpoints: &[EndpointSpec]) -> String {
    let (vips, ports) = ([lab.vip(vip).into()], [("dns", "UDP", 80)]);
    let (namespace, local_policy) = ("default", true);
    let service = ServiceSpec { namespace, name, vips: &vips, ports: &ports, local_policy, ..ServiceSpec::default() };
    let slice = SliceSpec { namespace, service: name, ports: &[("dns", "UDP", 8080)], endpoints };
    format!("{}---\n{}", service_yaml(&service), slice_yaml(&slice))
}

#[test]
fn every_view_is_as_it_was() -> Result<()> {
    let mut scene = Scene::up()?;
    let forms = ["text", "wide", "json", "yaml"];
    for (name, words) in VIEWS {
        for form in forms.iter().filter(|form| !(name == "explain" && **form == "wide")) {
            let printed = scene.stage.agent.run_xlb(&[words, &["-o", form]].concat())?;
            snapshot::check(&scene.stage.lab, &format!("{name}.{form}"), &printed)?;
        }
    }
    scene.held.identity()?;
    scene.stage.agent.stop()?;
    for (name, words) in VIEWS {
        let printed = scene.stage.agent.run_xlb(&[words, &["-o", "text"]].concat())?;
        // What the agent knows is only in the status.
        let name = if name == "status" { "status-without-agent" } else { name };
        snapshot::check(&scene.stage.lab, &format!("{name}.text"), &printed)?;
    }
    scene.held.identity()?;
    Ok(())
}

#[test]
fn services_and_flows_are_found_by_name_and_client() -> Result<()> {
    let scene = Scene::up()?;
    let lab = &scene.stage.lab;
    let count = |words: &[&str]| -> Result<usize> {
        let json = scene.stage.agent.run_xlb(&[words, &["-o", "json"]].concat())?;
        Ok(serde_json::from_str::<Value>(&json)?.as_array().context("no list")?.len())
    };
    for (name, expected) in [("web", 1), ("default/dns", 1), ("default/web:http", 1)] {
        assert_eq!(count(&["services", name])?, expected, "{name}");
    }
    for (words, expected) in [
        (&[][..], 1),
        (&["--service", "web"], 1),
        (&["--service", "dns"], 0),
        (&["--client", "198.51.100.10"], 1),
        (&["--client", "198.51.100.0/24", "--service", "default/web"], 1),
        (&["--client", "198.51.100.11"], 0),
        (&["--limit", "0"], 0),
    ] {
        assert_eq!(count(&[&["flows"], words].concat())?, expected, "{words:?}");
    }
    xlb(lab, &["services", "wbe"])?.is_refused_with(&["called wbe", "default/web:http"]);
    xlb(lab, &["flows", "--limit", "0"])?.says(&["there are more"]);
    Ok(())
}

/// `xlb … | head` closes the pipe before anything was read.
#[test]
fn a_reader_that_stops_reading_is_no_error() -> Result<()> {
    let stage = Stage::up()?;
    let pins = stage.lab.pin_directory();
    for words in [&["inspect"][..], &["services"], &["status", "-o", "json"], &["completions", "bash"], &["metrics"]] {
        let mut command = stage.lab.node().command(xlb_binary());
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if words[0] != "completions" {
            command.arg("--bpffs-dir").arg(&pins);
        }
        let mut child = command.spawn()?;
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
        let ended = child.wait()?;
        assert!(ended.success() && said.is_empty(), "{words:?}: {ended}: {said}");
    }
    Ok(())
}

#[test]
fn everything_is_in_one_document_and_metrics_count() -> Result<()> {
    let mut scene = Scene::up()?;
    for is_running in [true, false] {
        if !is_running {
            scene.stage.agent.stop()?;
        }
        let all = scene.stage.agent.inspect()?;
        assert_eq!(all["agent"]["is_running"], is_running);
        assert_eq!(all["services"].as_array().map(Vec::len), Some(3));
        assert_eq!(all["flows"][0]["service"], "default/web:http");
        let yaml: Value = serde_yaml_ng::from_str(&scene.stage.agent.run_xlb(&["inspect", "-o", "yaml"])?)?;
        assert_eq!(yaml["backends"], all["backends"]);

        let metrics = parse(&scene.stage.agent.run_xlb(&["metrics"])?).expect("OpenMetrics");
        let packets =
            |reason, direction| metrics.value("xlb_packets_total", &[("reason", reason), ("direction", direction)]);
        assert_eq!(packets("accepted", "socket"), Some(1.0), "{metrics:?}");
        assert_eq!(packets("empty_dropped", "forward"), Some(1.0));
        assert_eq!(packets("truncated", "forward"), Some(0.0));
        assert!(metrics.value("xlb_generation", &[]) >= Some(1.0));
        assert_eq!(metrics.sum("xlb_refusals"), 0.0);
        assert!(metrics.value("xlb_last_sync_timestamp_seconds", &[]) > Some(1e9));
    }
    Ok(())
}

#[test]
fn without_a_dataplane_there_is_nothing_to_see() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let pins = lab.pin_directory().display().to_string();
    for (_, words) in VIEWS.iter().chain(&[("", &["inspect"][..]), ("", &["metrics"])]) {
        xlb(&lab, words)?.is_refused_with(&[&pins, "has an agent run with this --bpffs-dir?"]);
    }
    Ok(())
}

#[test]
fn a_pod_that_drains_is_lingering_and_says_of_which_service() -> Result<()> {
    let stage = Stage::up()?;
    let mut held = stage.hold_at(0, "pod-1")?;
    stage.serve_pods(&[0])?;
    let pod = format!("{}:8080", stage.lab.pod_address(1));
    let found = wait_for(LATER, || {
        let backends: Value = serde_json::from_str(&stage.agent.run_xlb(&["backends", "-o", "json"]).ok()?).ok()?;
        backends.as_array()?.iter().find(|it| it["address"] == *pod && it["state"] == "lingering").cloned()
    });
    let found = found.context("it never was lingering")?;
    assert_eq!(found["services"][0]["name"], "default/web:http");
    assert_eq!(found["services"][0]["slots"], 0);
    xlb(&stage.lab, &["services"])?.says(&["1 (+1 lingering)"]);
    held.answers()
}
