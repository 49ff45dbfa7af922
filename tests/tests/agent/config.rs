//! Settings from a file, the environment and flags, as an agent starts with them.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use xlb_tests::lab::{Agent, Lab, LabSpec, Manifests, wait_for, xlb_binary};

use crate::command::{Ended, run, xlb};
use crate::stage::{LATER, Stage, lab, serves, service};

/// Maps for a test, and no programs that meet the sockets of the whole machine.
const SMALL: &str = "max-flows: 16384\nmax-backends: 512\nclients-inside: off\nhandover: 0\n";

/// What each mistake in a file is answered with. The first line of the file is right.
const MISTAKES: [(&str, &[&str]); 7] = [
    ("max-flow: 4096", &[":2: there is no setting \"max-flow\": did you mean `max-flows`?", "`xlb config show`"]),
    ("handover: 5", &[":2: handover: \"5\" is refused", "such as 90s, 15m or 1h", "for example `handover: 1h`"]),
    ("max-flows: 12", &[":2: max-flows: \"12\" is refused", "12 is not in 1024..", "`max-flows: 1048576`"]),
    ("max-flows: 4000000000", &["the maps would need about", "max-flows (now 4000000000)"]),
    ("max-flows: 1Mi", &[":2: max-flows: \"1Mi\" is refused: it is no whole number"]),
    ("vip-echo: [on", &["as YAML", "line 3"]),
    ("delivery: {mode: auto}", &[":2: delivery: expected a value"]),
];

/// `xlb run` with this file alone.
fn started_by(lab: &Lab, file: &str, more: &[&str]) -> Result<Ended> {
    run(lab, xlb_binary(), &[&["run", "--config", file], more].concat())
}

#[test]
fn a_mistake_in_the_file_ends_a_start_before_anything_is_touched() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let (manifests, directory) = (Manifests::new()?, TempDir::new()?);
    let path = directory.path().join("config.yaml").display().to_string();
    let pins = lab.pin_directory().display().to_string();
    let more = ["--node-name", "node", "--manifests", &manifests.path().display().to_string(), "--bpffs-dir", &pins];
    for (line, parts) in MISTAKES {
        fs::write(&path, format!("uplink: eth0\n{line}\n"))?;
        let ended = started_by(&lab, &path, &more)?;
        ended.is_refused_with(parts);
        assert!(!lab.pin_directory().exists(), "{line}");
    }
    started_by(&lab, "/nowhere/config.yaml", &more)?
        .is_refused_with(&["reading the configuration /nowhere/config.yaml"]);
    Ok(())
}

#[test]
fn an_agent_is_told_all_by_a_file_and_shows_where_each_setting_comes_from() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let (manifests, directory) = (Manifests::new()?, TempDir::new()?);
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let path = directory.path().join("config.yaml");
    let (pins, source) = (lab.pin_directory().display().to_string(), manifests.path().display().to_string());
    fs::write(
        &path,
        format!("uplink: [eth0]\nnode-name: node\nmanifests: {source}\nbpffs-dir: {pins}\nvip-echo: on\n{SMALL}"),
    )?;
    let path = path.display().to_string();
    let agent = Agent::start_bare(&lab, &["run", "--config", &path, "--keep-dataplane"], &[("XLB_VIP_ECHO", "off")])?;
    let mut stage = Stage { agent, manifests, lab };
    stage.until(|maps| serves(maps, "web"));
    stage.until_answers(0, "pod-0")?;

    let setting = |shown: &Value, name: &str| -> Option<Value> {
        shown["settings"].as_array()?.iter().find(|setting| setting["name"] == *name).cloned()
    };
    let shown = || serde_json::from_str::<Value>(&stage.agent.run_xlb(&["config", "show", "-o", "json"]).ok()?).ok();
    let running = wait_for(LATER, || shown().filter(|shown| shown["of"] == "agent"));
    let running = running.context("the agent did not tell its settings")?;
    assert_eq!(running["file"], *path);
    for (name, value, origin, place) in [
        ("node-name", "node", "file", Some(format!("{path}:2"))),
        ("max-flows", "16384", "file", Some(format!("{path}:6"))),
        ("vip-echo", "off", "environment", Some("XLB_VIP_ECHO".to_owned())),
        ("keep-dataplane", "true", "flag", None),
        ("xdp", "auto", "default", None),
    ] {
        let setting = setting(&running, name).with_context(|| name.to_owned())?;
        assert_eq!((&setting["value"], &setting["origin"]), (&value.into(), &origin.into()), "{name}");
        assert_eq!(setting.get("place").and_then(Value::as_str), place.as_deref(), "{name}");
    }
    let text = stage.agent.run_xlb(&["config", "show"])?;
    assert!(text.starts_with("settings of the agent that runs, with the file"), "{text}");

    // With flags it is about a start.
    let start = stage.agent.run_xlb(&["config", "show", "--xdp", "off", "-o", "json"])?;
    let start: Value = serde_json::from_str(&start)?;
    assert_eq!((&start["of"], &setting(&start, "xdp").context("xdp")?["origin"]), (&"start".into(), &"flag".into()));
    assert_eq!(setting(&start, "node-name").context("node-name")?["value"], "", "its own environment has no such file");

    // Views find the dataplane by the same file.
    let found = run(&stage.lab, "env", &[&format!("XLB_CONFIG={path}"), &*xlb_binary().to_string_lossy(), "status"])?;
    found.says(&["agent      up;", "services   1"]);
    assert_eq!(stage.agent.stop()?.code(), Some(0));
    assert!(stage.lab.pin_directory().exists(), "--keep-dataplane counts");
    let of_start = xlb(&stage.lab, &["config", "show"])?;
    of_start.says(&["settings of `xlb run`, if it were started like this, with no file"]);
    Ok(())
}
