//! `/metrics` of a running agent, read as a scraper would.

use std::env;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use xlb_common::abi::{FlowEntry, FlowKeyV4};
use xlb_tests::lab::{EndpointSpec, LabSpec};
use xlb_userspace::maps::pins::PinDirectory;

use crate::ask::{METRICS_PORT, get, metrics, soon, status};
use crate::events::{cluster, start};
use crate::stage::{Stage, lab, service, service_with};

#[test]
fn a_running_agent_tells_what_it_serves_and_what_became_of_packets() -> Result<()> {
    let stage = Stage::with(LabSpec { pod_count: 2, ..LabSpec::default() }, &[])?;
    let node = stage.lab.node();
    let mut held = stage.hold(0)?;
    held.answers()?;
    assert_eq!(status(node, "/livez"), Some(200));
    let told = soon("the connection is counted", || {
        let told = metrics(node).ok()?;
        let accepted = told.value("xlb_packets_total", &[("reason", "accepted"), ("direction", "socket")]);
        (accepted >= Some(1.0)).then_some(told)
    })?;
    for (name, labels, expected) in [
        ("xlb_build_info", &[("version", env!("CARGO_PKG_VERSION"))][..], 1.0),
        ("xlb_services", &[], 1.0),
        ("xlb_frontends", &[], 1.0),
        ("xlb_backends", &[], 2.0),
        ("xlb_endpoints", &[("state", "ready"), ("place", "local")], 2.0),
        ("xlb_endpoints", &[("state", "ready"), ("place", "elsewhere")], 0.0),
        ("xlb_map_entries", &[("map", "FRONTENDS_V4")], 1.0),
        ("xlb_map_entries", &[("map", "PLACES_V4")], 1.0),
        ("xlb_map_entries", &[("map", "PLACES_V6")], 0.0),
        ("xlb_map_entries", &[("map", "BACKENDS")], 2.0),
        ("xlb_map_capacity", &[("map", "BACKENDS")], 512.0),
        ("xlb_map_capacity", &[("map", "FLOWS_V4")], 16384.0),
        ("xlb_health_answers_total", &[("path", "/livez"), ("code", "200")], 1.0),
        ("xlb_sync_failures_total", &[], 0.0),
    ] {
        assert_eq!(told.value(name, labels), Some(expected), "{name} {labels:?}");
    }
    let slots = told.value("xlb_map_entries", &[("map", "SLOTS")]);
    assert!(slots >= Some(251.0), "{slots:?}");
    assert!(told.value("xlb_sync_duration_seconds_count", &[]) >= Some(1.0));
    assert!(told.value("xlb_last_sync_timestamp_seconds", &[]) > Some(1e9));
    assert!(told.value("xlb_last_queued_timestamp_seconds", &[]) > Some(1e9));
    assert!(told.value("xlb_generation", &[]) >= Some(1.0));
    assert_eq!(told.sum("xlb_refusals"), 0.0);
    assert_eq!(get(node, METRICS_PORT, "/nothing")?.status, 404);
    Ok(())
}

#[test]
fn what_is_refused_and_what_has_no_pod_here_is_counted() -> Result<()> {
    let stage = Stage::up()?;
    let elsewhere = EndpointSpec { node: "other".into(), ..EndpointSpec::ready([10, 9, 0, 1]) };
    let local = service_with(&stage.lab, "far", 1, &[elsewhere]).replace("Policy: Cluster", "Policy: Local");
    stage.manifests.write("far.yaml", &local)?;
    stage.manifests.write("zweb.yaml", &service(&stage.lab, "zweb", 0, &[0]))?;
    let told = soon("both are counted", || {
        let told = metrics(stage.lab.node()).ok()?;
        let far = told.value("xlb_services_without_local_endpoints", &[("traffic_policy", "external")]);
        (far == Some(1.0) && told.value("xlb_refusals", &[("kind", "contested")]) == Some(1.0)).then_some(told)
    })?;
    assert_eq!(told.value("xlb_endpoints", &[("state", "ready"), ("place", "elsewhere")]), Some(1.0));
    Ok(())
}

/// The controller notes on the slice when what it follows happened.
#[test]
fn the_time_from_a_change_to_the_maps_is_measured() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let server = cluster();
    let (_agent, _listening, _directory) = start(&lab, &server)?;
    soon("ready", || status(lab.node(), "/readyz").filter(|status| *status == 200))?;
    let slice = |triggered: Timestamp| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "web-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" },
                "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": triggered.to_string() },
            },
            "ports": [{ "port": 8080, "name": "" }], "endpoints": [],
        })
    };
    server.apply(&slice("2020-01-01T00:00:00Z".parse()?));
    server.apply(&slice(Timestamp::now()));
    let told = soon("measured", || {
        let told = metrics(lab.node()).ok()?;
        let count = told.value("xlb_network_programming_duration_seconds_count", &[]);
        (count >= Some(1.0)).then_some(told)
    })?;
    let name = "xlb_network_programming_duration_seconds";
    assert_eq!(told.value(&format!("{name}_count"), &[]), Some(1.0), "what is older than the agent is not its own");
    assert!(told.value(&format!("{name}_sum"), &[]) < Some(10.0), "{told:?}");
    assert!(told.value("xlb_watch_lists_total", &[("resource", "endpointslices")]) >= Some(1.0));
    Ok(())
}

#[test]
fn flow_maps_are_counted_when_they_hold_few_flows() -> Result<()> {
    let stage = Stage::up()?;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(stage.hold(0)?);
    }
    // How full they are is looked at every 15 s only: this is the first look.
    let told = metrics(stage.lab.node())?;
    assert_eq!(told.value("xlb_map_entries", &[("map", "FLOWS_V4")]), Some(20.0), "{told:?}");
    assert_eq!(told.value("xlb_map_entries", &[("map", "UDP_FLOWS_V4")]), Some(0.0));
    Ok(())
}

/// More than a sample holds, fewer than the map evicts. `XLB_TEST_FLOWS` measures other sizes.
#[test]
fn flow_maps_are_estimated_when_they_hold_many_flows() -> Result<()> {
    let flows: u32 = env::var("XLB_TEST_FLOWS").ok().map_or(Ok(20_000), |flows| flows.parse())?;
    let capacity = (2 * flows).to_string();
    let stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &["--max-flows", &capacity])?;
    fill(&stage.lab.pin_directory(), flows)?;
    let begun = Instant::now();
    let told = metrics(stage.lab.node())?;
    let took = begun.elapsed();
    let entries = told.value("xlb_map_entries", &[("map", "FLOWS_V4")]).unwrap_or_default();
    let off = (entries - f64::from(flows)).abs() / f64::from(flows);
    eprintln!("{entries} of {flows} flows in {took:?}");
    assert!(off < 0.08, "{entries} of {flows}");
    Ok(())
}

/// Flows of clients that do not exist.
fn fill(pins: &Path, flows: u32) -> Result<()> {
    let map = PinDirectory::new(pins).map("FLOWS_V4");
    let map = MapData::from_pin(&map).with_context(|| format!("opening {}", map.display()))?;
    let mut map: HashMap<_, [u8; size_of::<FlowKeyV4>()], [u8; size_of::<FlowEntry>()]> =
        Map::from_map_data(map)?.try_into()?;
    for flow in 0..flows {
        let mut key = [0; size_of::<FlowKeyV4>()];
        key[..4].copy_from_slice(&flow.to_be_bytes());
        map.insert(key, [0; size_of::<FlowEntry>()], 0)?;
    }
    Ok(())
}
