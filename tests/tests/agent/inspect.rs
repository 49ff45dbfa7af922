//! `xlb inspect` in every section and form, with an agent and without.

use anyhow::Result;
use serde_json::Value;
use xlb_tests::lab::{Lab, LabSpec};
use xlb_tests::openmetrics::parse;

use crate::command::xlb;
use crate::stage::{Stage, socket};

const SECTIONS: [&str; 4] = ["services", "backends", "flows", "all"];

#[test]
fn every_section_is_shown_as_text_and_json_with_and_without_an_agent() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 2, ..LabSpec::default() }, &["--keep-dataplane"])?;
    let held = stage.hold(0)?;
    let client = held.connection.local_address()?.to_string();
    let pods = [socket(&stage.lab, 0), socket(&stage.lab, 1)];
    let of_pod = if held.server == "pod-0" { &pods[0] } else { &pods[1] };
    let vip = stage.vip(0).to_string();

    for is_running in [true, false] {
        if !is_running {
            stage.agent.stop()?;
        }
        let words = if is_running { "running" } else { "not running" };
        let expected: [&[&str]; 4] = [
            &["default/web:http", &vip, &pods[0], &pods[1], "251 slots", "1 new flows"],
            &[&pods[0], &pods[1], "tcp", "direct", "veth0", "veth1"],
            &["tcp", "accepted", &client, &vip, of_pod, "direct", "eth0"],
            &[words, "node node", "eth0", "default/web:http", &vip, &pods[0], "1 accepted", "replied"],
        ];
        for (section, parts) in SECTIONS.iter().zip(expected) {
            let shown = xlb(&stage.lab, &["inspect", section])?;
            assert_eq!(shown.code, Some(0), "{section}: {}", shown.text);
            shown.says(parts);
        }
        assert_eq!(json(&stage, "services")?[0]["backends"][1]["address"], *pods[1]);
        assert_eq!(json(&stage, "services")?[0]["frontends"][0], format!("{vip}/tcp"));
        assert_eq!(json(&stage, "backends")?[0]["address"], *pods[0]);
        assert_eq!(json(&stage, "backends")?[0]["delivery"], "direct");
        let flows = json(&stage, "flows")?;
        let flow = flows.as_array().into_iter().flatten().find(|flow| flow["client"] == *client).cloned();
        let flow = flow.unwrap_or_default();
        assert_eq!(flow["state"], "accepted");
        assert_eq!([&flow["vip"], &flow["pod"]], [&vip, of_pod]);
        let all = json(&stage, "all")?;
        assert_eq!(all["services"][0]["traffic"]["new_flows"], 1);
        assert_eq!(all["agent"]["is_running"], is_running);
        assert_eq!(all["agent"]["node_name"], "node");
        let [mut of_all, mut alone] = [all["services"].clone(), json(&stage, "services")?];
        // A late acknowledgement may come in between.
        [&mut of_all, &mut alone].into_iter().for_each(|services| services[0]["traffic"] = Value::Null);
        assert_eq!([&of_all, &all["backends"]], [&alone, &json(&stage, "backends")?]);
    }
    Ok(())
}

#[test]
fn metrics_are_openmetrics_and_count() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 2, ..LabSpec::default() }, &["--keep-dataplane"])?;
    stage.hold(0)?.answers()?;
    for is_running in [true, false] {
        if !is_running {
            stage.agent.stop()?;
        }
        let metrics = xlb(&stage.lab, &["inspect", "metrics"])?;
        assert_eq!(metrics.code, Some(0), "{}", metrics.text);
        let metrics = parse(&metrics.text).expect("OpenMetrics");
        let packets =
            |reason, direction| metrics.value("xlb_packets_total", &[("reason", reason), ("direction", direction)]);
        assert!(packets("accepted", "socket") >= Some(1.0), "{metrics:?}");
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
    for section in SECTIONS.iter().chain(&["metrics"]) {
        for form in ["text", "json"] {
            let ended = xlb(&lab, &["inspect", section, "-o", form])?;
            ended.is_refused_with(&[&pins, "has an agent run with this --bpffs-dir?"]);
        }
    }
    let question = ["explain", "--src", "198.51.100.10:40000", "--dst", "203.0.113.10:80"];
    xlb(&lab, &question)?.is_refused_with(&[&pins, "has an agent run with this --bpffs-dir?"]);
    Ok(())
}

fn json(stage: &Stage, section: &str) -> Result<Value> {
    let shown = xlb(&stage.lab, &["inspect", section, "-o", "json"])?;
    assert_eq!(shown.code, Some(0), "{section}: {}", shown.text);
    Ok(serde_json::from_str(&shown.text)?)
}
