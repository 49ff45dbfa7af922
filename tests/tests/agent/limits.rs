//! More than the maps hold: what fits is served, the rest is told, and room that is freed is used.

use anyhow::Result;
use serde_json::Value;
use xlb_tests::lab::{Lab, LabSpec, Manifests};

use crate::stage::{Held, Stage, lab, refusal, serves, service, takers, unserved, waiting};

#[test]
fn services_beyond_the_frontends_wait_for_room() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    let first = ["web", "x1", "x2", "x3"];
    write(&lab, &manifests, &first, 0)?;
    let mut stage = Stage::start(lab, manifests, &["--max-frontends", "4"])?;
    let mut held = hold_all(&stage, first.len())?;

    // By name they come first; those that are served already stay.
    let late = ["a0", "a1", "a2", "a3"];
    write(&stage.lab, &stage.manifests, &late, 4)?;
    for name in late {
        stage.until_refused(&[&format!("Service default/{name}"), "not served", "full", "4 addresses and ports"]);
    }
    all_serve(&stage, &first, &mut held)?;

    // Also with the next agent.
    stage.agent.kill()?;
    stage.agent.start_again()?;
    stage.until(|maps| maps["agent"]["is_running"] == true && refusal(maps, &["default/a0", "full"]).is_some());
    all_serve(&stage, &first, &mut held)?;

    stage.manifests.remove("x3.yaml")?;
    held.pop();
    stage.later(|maps| serves(maps, "a0") && unserved(maps, &["default/a0"]).is_none())?;
    assert!(stage.who(4).is_ok());
    assert!(unserved(&stage.agent.inspect()?, &["default/a1", "full"]).is_some());
    all_serve(&stage, &first[..3], &mut held)
}

/// A service with several backends takes 251 slots, and one that is alone takes none.
#[test]
fn services_beyond_the_slots_wait_for_room() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    write(&lab, &manifests, &["web", "x1"], 0)?;
    manifests.write("x2.yaml", &service(&lab, "x2", 2, &[0]))?;
    let mut stage = Stage::start(lab, manifests, &["--max-slots", "512"])?;
    stage.until(|maps| ["web", "x1", "x2"].iter().all(|name| serves(maps, name)));
    let mut held = hold_all(&stage, 3)?;

    write(&stage.lab, &stage.manifests, &["a0"], 3)?;
    stage.until_refused(&["Service default/a0", "not served", "512 slots"]);
    // It has a backend already, and goes on with that.
    stage.manifests.write("x2.yaml", &service(&stage.lab, "x2", 2, &[0, 1]))?;
    stage.until_refused(&["Service default/x2", "512 slots"]);
    all_serve(&stage, &["web", "x1", "x2"], &mut held)?;
    assert_eq!(takers(&stage.agent.inspect()?, "x2").len(), 1);

    // What is freed is used again only after a while.
    stage.manifests.remove("x1.yaml")?;
    held.remove(1);
    stage.until(|maps| waiting(maps, &["default/x2"]).is_some());
    let maps = stage.later(|maps| takers(maps, "x2").len() == 2 || serves(maps, "a0"))?;
    assert!(!(takers(&maps, "x2").len() == 2 && serves(&maps, "a0")), "there is room for one of them");
    for connection in &mut held {
        connection.answers()?;
    }
    Ok(())
}

#[test]
fn backends_beyond_the_limit_are_told_by_address() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 3, ..LabSpec::default() }, &["--max-backends", "2"])?;
    let told = stage.until_refused(&["Service default/web", "2 pod ports"]);
    let maps = stage.agent.inspect()?;
    let left_out =
        (0..3).map(|pod| crate::stage::socket(&stage.lab, pod)).find(|it| !takers(&maps, "web").contains(it));
    assert!(left_out.is_some_and(|address| told.contains(&address)), "{told}");
    let mut held = [stage.hold(0)?, stage.hold(0)?, stage.hold(0)?];
    for connection in &mut held {
        connection.answers()?;
    }
    Ok(())
}

/// Services with both pods, one file each, at VIPs from `first_vip` on.
fn write(lab: &Lab, manifests: &Manifests, names: &[&str], first_vip: usize) -> Result<()> {
    let services = names.iter().zip(first_vip..).map(|(name, vip)| (name, service(lab, name, vip, &[0, 1])));
    services.into_iter().try_for_each(|(name, yaml)| manifests.write(&format!("{name}.yaml"), &yaml))
}

fn hold_all(stage: &Stage, services: usize) -> Result<Vec<Held>> {
    (0..services).map(|vip| stage.hold(vip)).collect()
}

/// Each of them is in the maps, takes new connections, and keeps those it has.
fn all_serve(stage: &Stage, names: &[&str], held: &mut [Held]) -> Result<()> {
    let maps: Value = stage.agent.inspect()?;
    for (vip, (name, connection)) in names.iter().zip(held).enumerate() {
        assert!(serves(&maps, name), "{name}: {maps:#}");
        connection.answers()?;
        stage.who(vip)?;
    }
    Ok(())
}
