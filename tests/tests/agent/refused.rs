//! A new version whose programs must not serve: those of before do, and whoever replaces versions learns of it.

use anyhow::{Context, Result};
use tempfile::TempDir;
use xlb_tests::lab::{Bend, LabSpec, Manifests, bent_binary, xlb_binary};

use crate::ask::{metrics, soon, status};
use crate::command::{agent, run};
use crate::stage::{Held, Stage, backend, lab, refusal, service, takers};

/// A program, its mistake, and what is told of it.
const MISTAKES: [(&str, Bend, &str); 3] = [
    ("pod", Bend::Unverifiable, "the kernel refused it"),
    ("ingress_tc", Bend::DropsAll, "self-test"),
    ("accepted", Bend::Unverifiable, "the kernel refused it"),
];

#[test]
fn programs_that_are_refused_leave_those_of_before_serving_and_following_the_cluster() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 3, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0, 1]))?;
    let mut stage = Stage::start(lab, manifests, &[])?;
    let mut held = vec![stage.hold_at(0, "pod-0")?, stage.hold_at(0, "pod-1")?];
    let directory = TempDir::new()?;
    for (program, mistake, why) in MISTAKES {
        stage.agent.kill()?;
        stage.agent.become_binary(bent_binary(directory.path(), program, mistake)?);
        stage.agent.start_again()?;

        let object = format!("program {program}: ");
        let told = stage.until_refused(&[&object, why]);
        assert!(told.contains("go back to the version of before"), "{told}");
        let states = ["/readyz", "/livez", "/healthz"].map(|path| status(stage.lab.node(), path));
        assert_eq!(states, [Some(503), Some(200), Some(200)], "{told}");
        let numbers = metrics(stage.lab.node())?;
        assert_eq!(numbers.value("xlb_programs_refused", &[("program", program)]), Some(1.0));
        assert_eq!(numbers.value("xlb_refusals", &[("kind", "programs")]), Some(1.0));
        held.iter_mut().try_for_each(Held::answers)?;
        assert!(stage.who(0).is_ok());
    }

    stage.serve_pods(&[0, 1, 2])?;
    let maps = stage.until(|maps| takers(maps, "web").len() == 3);
    let new = backend(&maps, &stage.lab, 2).context("the new pod is no backend")?;
    assert_eq!(new["delivery"], "direct", "the program of before serves its link, too");
    held.push(stage.hold_at(0, "pod-2")?);

    assert!(stage.agent.stop()?.success());
    assert!(stage.agent.log().contains("keep serving"), "it leaves what it did not make");
    assert!(stage.who(0).is_ok());
    stage.agent.become_binary(xlb_binary());
    stage.agent.start_again()?;
    let maps = stage.agent.wait_until_it_reports();
    assert_eq!(refusal(&maps, &["program"]), None);
    soon("ready", || (status(stage.lab.node(), "/readyz") == Some(200)).then_some(()))?;
    held.iter_mut().try_for_each(Held::answers)
}

/// `--xdp auto` does without XDP there, as on a driver that takes none.
#[test]
fn with_xdp_auto_uplinks_are_served_by_tc_where_an_xdp_program_is_refused() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &[])?;
    let directory = TempDir::new()?;
    assert!(stage.agent.stop()?.success());
    stage.agent.become_binary(bent_binary(directory.path(), "ingress_xdp", Bend::Unverifiable)?);
    add_card(&mut stage)?;
    stage.agent.start_again()?;

    let told = stage.until_refused(&["program ingress_xdp: ", "served by tc", "the kernel refused it"]);
    soon("ready", || (status(stage.lab.node(), "/readyz") == Some(200)).then_some(()))?;
    let numbers = metrics(stage.lab.node())?;
    assert_eq!(numbers.value("xlb_programs_refused", &[("program", "ingress_xdp")]), None, "{told}");
    assert_eq!(numbers.value("xlb_refusals", &[("kind", "programs")]), Some(1.0));
    let mut held = stage.hold(0)?;

    stage.agent.kill()?;
    stage.agent.start_again()?;
    stage.agent.wait_until_it_reports();
    stage.until_refused(&["program ingress_xdp: ", "served by tc"]);
    soon("ready again", || (status(stage.lab.node(), "/readyz") == Some(200)).then_some(()))?;
    assert!(stage.who(0).is_ok());
    held.answers()?;
    assert!(stage.agent.stop()?.success());
    assert!(!stage.lab.pin_directory().exists(), "what it attached is its own");
    Ok(())
}

#[test]
fn an_xdp_program_that_is_refused_leaves_an_earlier_one_where_it_is() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &["--xdp", "native"])?;
    let mut held = stage.hold(0)?;
    let directory = TempDir::new()?;
    stage.agent.kill()?;
    stage.agent.become_binary(bent_binary(directory.path(), "ingress_xdp", Bend::Unverifiable)?);
    stage.agent.set_argument("--xdp", "auto");
    add_card(&mut stage)?;
    stage.agent.start_again()?;
    let told = stage.until_refused(&["program ingress_xdp: ", "the programs of before serve on"]);
    assert_eq!(status(stage.lab.node(), "/readyz"), Some(503), "{told}");
    held.answers()
}

#[test]
fn an_xdp_program_that_is_refused_and_was_asked_for_by_name_ends_the_agent() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let directory = TempDir::new()?;
    for (choice, program) in [("native", "ingress_xdp"), ("generic", "ingress_xdp_alone")] {
        let binary = bent_binary(directory.path(), program, Bend::Unverifiable)?;
        let ended = run(&lab, &binary, &agent(&lab, &manifests, &["--xdp", choice]))?;
        ended.is_refused_with(&[&format!("the program {program} cannot be used"), "the kernel refused it"]);
        assert!(!lab.pin_directory().exists(), "{}", ended.text);
    }
    Ok(())
}

/// Gives the agent, from its next start on, another uplink: one whose driver is none of those that `--xdp auto` keeps from XDP.
fn add_card(stage: &mut Stage) -> Result<()> {
    stage.lab.node().ip("link add card0 type ifb\nlink set card0 up")?;
    let uplinks = format!("{},card0", stage.lab.uplinks()[0].node_device);
    stage.agent.set_argument("--uplink", &uplinks);
    Ok(())
}

#[test]
fn without_a_dataplane_a_program_that_is_refused_ends_the_agent_and_leaves_nothing() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let directory = TempDir::new()?;
    for (program, mistake, why) in MISTAKES {
        let binary = bent_binary(directory.path(), program, mistake)?;
        let ended = run(&lab, &binary, &agent(&lab, &manifests, &[]))?;
        ended.is_refused_with(&[&format!("the program {program} cannot be used"), why]);
        assert!(!lab.pin_directory().exists(), "{}", ended.text);
    }
    Ok(())
}
