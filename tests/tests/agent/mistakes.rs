//! Mistakes in manifests while the agent runs: what was good before is served on, and what was mended counts.

use std::fs;

use anyhow::Result;
use xlb_tests::lab::LabSpec;

use crate::stage::{Stage, refusal, serves, service, socket, takers};

#[test]
fn a_mistake_takes_nothing_away_and_is_told_until_it_is_mended() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let good = service(&stage.lab, "web", 0, &[0]);
    let mistakes: &[(&str, &[&str])] = &[
        ("kind: [Service\n", &["web.yaml", "document 3", "line "]),
        ("apiVersion: v1\nkind: Service\nmetadata: 7\n", &["web.yaml", "document 3", "line "]),
        ("apiVersion: v1\nkind: Service\nmetadata: {}\n", &["web.yaml", "document 3", "line ", "metadata.name"]),
    ];
    for (mistake, parts) in mistakes {
        stage.manifests.write("web.yaml", &format!("{good}---\n{mistake}"))?;
        let refusal = stage.until_refused(parts);
        assert!(stage.agent.log().contains(&refusal), "{refusal}");
        // The good part of a file that holds a mistake waits with it.
        assert_eq!(takers(&stage.agent.inspect()?, "web").len(), 2);
        held.answers()?;
        assert!(stage.who(0).is_ok());
    }

    stage.manifests.write("web.yaml", &good)?;
    let mended = [socket(&stage.lab, 0)];
    let maps = stage.until(|maps| takers(maps, "web") == mended);
    assert_eq!(refusal(&maps, &["web.yaml"]), None);
    held.answers()
}

#[test]
fn a_mistake_in_one_file_does_not_hold_up_the_others() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.manifests.write("broken.yaml", "kind: [Service\n")?;
    stage.until_refused(&["broken.yaml", "document 1"]);
    stage.manifests.write("api.yaml", &service(&stage.lab, "api", 1, &[1]))?;
    let maps = stage.until(|maps| serves(maps, "api"));
    assert!(refusal(&maps, &["broken.yaml"]).is_some());
    assert_eq!(stage.who(1)?, "pod-1");
    stage.manifests.remove("broken.yaml")?;
    stage.until(|maps| refusal(maps, &["broken.yaml"]).is_none());
    Ok(())
}

#[test]
fn an_object_in_two_files_stays_with_the_first() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 2, ..LabSpec::default() }, &[])?;
    let mut held = stage.hold(0)?;
    stage.manifests.write("copy.yaml", &service(&stage.lab, "web", 1, &[1]))?;
    stage.until_refused(&["copy.yaml", "document 1", "Service default/web", "web.yaml"]);
    held.answers()?;
    assert!(stage.who(0).is_ok() && stage.who(1).is_err());
    stage.manifests.remove("web.yaml")?;
    stage.until_answers(1, "pod-1")
}

/// Somebody unmounts or renames what the agent reads: that is a mistake, not a wish.
#[test]
fn a_directory_that_is_gone_takes_nothing_away() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let path = stage.manifests.path().to_owned();
    let away = path.with_extension("away");
    fs::rename(&path, &away)?;
    stage.until_refused(&[&path.display().to_string(), "No such file"]);
    held.answers()?;
    assert!(stage.who(0).is_ok());
    fs::rename(&away, &path)?;
    stage.until(|maps| refusal(maps, &["No such file"]).is_none());
    held.answers()
}
