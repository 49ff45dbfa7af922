//! Manifests that change while the agent runs, however they are written.

use std::fs::{self, File, rename};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use xlb_tests::lab::{Lab, LabSpec, Manifests};

use crate::stage::{Stage, find, lab, serves, service, socket, takers};

#[test]
fn services_come_change_and_go() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;

    stage.manifests.write("api.yaml", &service(&stage.lab, "api", 1, &[1]))?;
    stage.until(|maps| serves(maps, "api"));
    assert_eq!(stage.who(1)?, "pod-1");

    let other_vip = service(&stage.lab, "api", 2, &[1]);
    stage.manifests.write("api.yaml", &other_vip)?;
    stage.until(|maps| frontends(maps, "api") == "203.0.113.12:80/tcp");
    assert_eq!(stage.who(2)?, "pod-1");
    assert!(stage.who(1).is_err());

    stage.manifests.write("api.yaml", &other_vip.replace("port: 80\n", "port: 8000\n"))?;
    stage.until(|maps| frontends(maps, "api") == "203.0.113.12:8000/tcp");
    assert!(stage.who(2).is_err());

    stage.manifests.write("api.yaml", &service(&stage.lab, "api", 2, &[0]))?;
    let moved = [socket(&stage.lab, 0)];
    stage.until(|maps| takers(maps, "api") == moved);
    assert_eq!(stage.who(2)?, "pod-0");

    stage.manifests.remove("api.yaml")?;
    stage.until(|maps| find(maps, "api").is_none());
    assert!(stage.who(2).is_err());
    held.answers()?;
    assert!(stage.who(0).is_ok());
    Ok(())
}

/// The node's own changes come while an editor has emptied the file and not written it yet.
#[test]
fn a_file_that_is_being_written_is_not_read_for_another_reason() -> Result<()> {
    let stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let path = stage.manifests.path().join("web.yaml");
    let yaml = fs::read_to_string(&path)?;
    let mut file = File::create(&path)?;
    for number in 0..6 {
        stage.lab.node().ip(&format!("address add 10.255.255.{number}/32 dev lo"))?;
        sleep(Duration::from_millis(20));
    }
    file.write_all(yaml.as_bytes())?;
    drop(file);
    held.answers()?;
    assert!(stage.who(0).is_ok());
    assert!(!stage.agent.log().contains("in sync: 0 services"), "{}", stage.agent.log());
    Ok(())
}

#[test]
fn endpoints_that_move_take_new_connections_and_leave_the_old() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 3, ..LabSpec::default() }, &[])?;
    let mut held = [stage.hold_at(0, "pod-0")?, stage.hold_at(0, "pod-1")?, stage.hold_at(0, "pod-2")?];
    for pods in [&[0, 1][..], &[2], &[1, 2], &[0], &[0, 1, 2]] {
        stage.serve_pods(pods)?;
        let expected: Vec<String> = pods.iter().map(|&pod| socket(&stage.lab, pod)).collect();
        stage.until(|maps| takers(maps, "web") == expected);
        for connection in &mut held {
            connection.answers()?;
        }
        let names: Vec<String> = pods.iter().map(|pod| format!("pod-{pod}")).collect();
        for _ in 0..5 {
            assert!(names.contains(&stage.who(0)?));
        }
    }
    Ok(())
}

/// An editor truncates the file and writes it again: the half that is there in between is never acted upon.
#[test]
fn a_file_written_in_place_is_read_when_it_is_whole() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let before = stage.agent.inspect()?["generation"].as_u64();
    let text = service(&stage.lab, "web", 0, &[0, 1]);
    let (head, tail) = text.split_at(text.find("---").expect("two documents"));
    let mut file = File::create(stage.manifests.path().join("web.yaml"))?;
    file.write_all(head.as_bytes())?;
    file.write_all(tail.as_bytes())?;
    drop(file);

    // The next change is the only one that is made.
    stage.manifests.write("api.yaml", &service(&stage.lab, "api", 1, &[0]))?;
    let maps = stage.until(|maps| serves(maps, "api"));
    assert_eq!(maps["generation"].as_u64(), before.map(|generation| generation + 1));
    held.answers()
}

#[test]
fn a_configmap_mount_is_followed_through_its_links() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    publish(&lab, &manifests, 1, &[("web", 0), ("api", 1)])?;
    for name in ["web", "api"] {
        symlink(format!("..data/{name}.yaml"), manifests.path().join(format!("{name}.yaml")))?;
    }
    let mut stage = Stage::start(lab, manifests, &[])?;
    stage.until(|maps| serves(maps, "api"));
    let mut held = stage.hold(0)?;
    assert_eq!([stage.who(0)?, stage.who(1)?], ["pod-0", "pod-1"]);

    publish(&stage.lab, &stage.manifests, 2, &[("web", 1), ("api", 0)])?;
    fs::remove_dir_all(stage.manifests.path().join("..1"))?;
    stage.until_answers(0, "pod-1")?;
    stage.until_answers(1, "pod-0")?;
    held.answers()
}

/// What the kubelet does: a new directory, and a link to it that is replaced at once.
fn publish(lab: &Lab, manifests: &Manifests, version: usize, services: &[(&str, usize)]) -> Result<()> {
    let directory = manifests.path().join(format!("..{version}"));
    fs::create_dir(&directory)?;
    for (vip, (name, pod)) in services.iter().enumerate() {
        fs::write(directory.join(format!("{name}.yaml")), service(lab, name, vip, &[*pod]))?;
    }
    let link = manifests.path().join("..data_tmp");
    symlink(format!("..{version}"), &link)?;
    rename(link, manifests.path().join("..data"))?;
    Ok(())
}

fn frontends(maps: &serde_json::Value, name: &str) -> String {
    let list = find(maps, name).and_then(|service| service["frontends"].as_array());
    list.into_iter().flatten().filter_map(|vip| vip.as_str()).collect::<Vec<_>>().join(" ")
}
