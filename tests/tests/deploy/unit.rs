//! The unit of a host without Kubernetes, and the manifests beside it.

use std::process::Command;

use anyhow::{Context, Result};
use xlb_tests::deploy::{Container, Unit, build, folder, only, read};
use xlb_userspace::model::objects::Object;
use xlb_userspace::source::Manifests;

/// systemd's own measure of what a service may do, from 0 to 100: the lower the better.
const EXPOSURE_MAX: &str = "25";

fn unit() -> Result<Unit> {
    Ok(Unit::new(read(&folder().join("systemd/xlb.service"))?))
}

#[test]
fn the_unit_has_the_capabilities_of_the_daemonset() -> Result<()> {
    let container = Container::of(only(&build(&folder().join("kustomize/base"))?, "DaemonSet")?)?;
    let unit = unit()?;
    let of_unit: Vec<String> =
        unit.value("CapabilityBoundingSet")?.to_lowercase().split(' ').map(String::from).collect();
    let of_container: Vec<String> = container.capabilities.iter().map(|name| format!("cap_{name}")).collect();
    assert_eq!(of_unit, of_container);
    assert_eq!(unit.value("NoNewPrivileges")?, "yes");
    Ok(())
}

#[test]
fn what_the_unit_runs_is_taken_by_the_command_line() -> Result<()> {
    let command = unit()?.command(&read(&folder().join("systemd/xlb.default"))?)?;
    assert!(command.contains(&"--keep-dataplane".to_owned()), "{command:?}");
    let taken = xlb_userspace::cli::command().try_get_matches_from(&command);
    assert!(taken.is_ok(), "{command:?}: {}", taken.unwrap_err());
    Ok(())
}

#[test]
fn systemd_takes_the_unit_and_counts_it_among_the_restricted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("xlb.service");
    // Where xlb is not installed its path is none of a program.
    std::fs::write(&path, read(&folder().join("systemd/xlb.service"))?.replace("/usr/local/bin/xlb", "/bin/true"))?;
    for arguments in [&["verify"][..], &["security", "--offline=true", "--threshold", EXPOSURE_MAX]] {
        let output = Command::new("systemd-analyze").arg("--no-pager").args(arguments).arg(&path).output();
        let output = output.context("starting systemd-analyze (package systemd)")?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{arguments:?}: {text}");
        assert!(arguments[0] != "verify" || text.is_empty(), "{text}");
    }
    Ok(())
}

#[test]
fn the_manifests_beside_it_are_what_the_agent_reads() -> Result<()> {
    let unit = unit()?;
    let environment = read(&folder().join("systemd/xlb.default"))?;
    assert!(unit.value("ExecStart")?.contains("--manifests=/etc/xlb/manifests"));
    let outcome = Manifests::open(&folder().join("systemd/manifests"))?.read();
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    let services = outcome.objects.iter().filter(|object| matches!(object, Object::Service(_))).count();
    let slices = outcome.objects.iter().filter(|object| matches!(object, Object::Slice(_))).count();
    assert_eq!((services, slices), (1, 1));
    let node = environment.lines().find_map(|line| line.strip_prefix("NODE_NAME=")).context("no NODE_NAME")?;
    let text = read(&folder().join("systemd/manifests/web.yaml"))?;
    assert!(text.contains(&format!("nodeName: {node}")), "{text}");
    Ok(())
}
