//! Who may use a pin directory: one agent, of the version and with the sizes that its maps were made with.

use std::fs;

use anyhow::Result;
use xlb_tests::lab::{Lab, LabSpec, Manifests};

use crate::command::{refused_agent, xlb};
use crate::stage::{Stage, lab, serves, service};

#[test]
fn a_dataplane_that_is_too_old_is_refused_until_it_is_removed() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let pins = lab.pin_directory();
    fs::create_dir_all(pins.join("v0/maps"))?;

    let ended = refused_agent(&lab, &manifests, &[])?;
    ended.is_refused_with(&[
        "v0",
        &format!("v{}", xlb_common::abi::ABI_VERSION),
        &pins.display().to_string(),
        "xlb cleanup --bpffs-dir",
    ]);
    assert_eq!(names_in(&lab)?, ["v0"]);

    let cleanup = xlb(&lab, &["cleanup"])?;
    assert_eq!(cleanup.code, Some(0), "{}", cleanup.text);
    let stage = Stage::start(lab, manifests, &[])?;
    assert_eq!(stage.who(0)?, "pod-0");
    Ok(())
}

#[test]
fn maps_of_another_size_are_refused_and_go_on_serving() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    stage.agent.kill()?;
    for (argument, value, parts) in [
        ("--max-flows", "8192", ["FLOWS_V4", "16384", "8192"]),
        ("--max-frontends", "100", ["FRONTENDS_V4", "65536", "100"]),
        ("--max-slots", "4096", ["SLOTS", "1048576", "4096"]),
        ("--max-backends", "100", ["BACKENDS", "512", "100"]),
        ("--max-fragments", "200", ["FRAGMENTS_V4", "16384", "200"]),
    ] {
        let ended = refused_agent(&stage.lab, &stage.manifests, &[argument, value])?;
        ended.is_refused_with(&parts);
        ended.is_refused_with(&["sizes it had", "xlb cleanup --bpffs-dir"]);
        held.answers()?;
        assert!(stage.who(0).is_ok());
    }
    stage.agent.start_again()?;
    stage.until(|maps| maps["agent"]["is_running"] == true && serves(maps, "web"));
    held.answers()
}

#[test]
fn a_second_agent_is_refused_and_the_first_serves_on() -> Result<()> {
    let stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let before = stage.agent.inspect()?;
    let pins = stage.lab.pin_directory().display().to_string();

    let ended = refused_agent(&stage.lab, &stage.manifests, &[])?;
    ended.is_refused_with(&["another xlb agent", &pins, "--bpffs-dir"]);

    held.answers()?;
    assert!(stage.who(0).is_ok());
    let after = stage.agent.inspect()?;
    assert_eq!(after["agent"]["pid"], before["agent"]["pid"]);
    assert_eq!(after["generation"], before["generation"]);
    Ok(())
}

#[test]
fn cleanup_is_refused_while_an_agent_runs() -> Result<()> {
    let stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    xlb(&stage.lab, &["cleanup"])?.is_refused_with(&["another xlb agent", "stop it first"]);
    held.answers()?;
    assert!(stage.who(0).is_ok());
    Ok(())
}

#[test]
fn cleanup_removes_everything_that_a_dead_agent_left() -> Result<()> {
    let mut stage = Stage::up()?;
    let pins = stage.lab.pin_directory();
    stage.agent.kill()?;
    assert!(stage.who(0).is_ok());

    let cleanup = xlb(&stage.lab, &["cleanup"])?;
    assert_eq!(cleanup.code, Some(0), "{}", cleanup.text);
    cleanup.says(&["removed", &pins.display().to_string()]);
    assert!(!pins.exists());
    stage.until_silent(0)?;

    let again = xlb(&stage.lab, &["cleanup"])?;
    assert_eq!(again.code, Some(0), "{}", again.text);
    again.says(&["nothing", &pins.display().to_string()]);
    Ok(())
}

fn names_in(lab: &Lab) -> Result<Vec<String>> {
    let names = fs::read_dir(lab.pin_directory())?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}
