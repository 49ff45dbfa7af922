//! The BPF file system: the agent mounts it where it is missing, or says who should.

use std::io::Read;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xlb_tests::lab::{Lab, LabSpec, LineClient, Manifests, wait_for, xlb_binary};

use crate::command::{agent, refused_agent, run};
use crate::stage::{LATER, PORT, lab, service};

/// Runs what follows with mounts of its own, none of them a BPF file system.
const WITHOUT_BPFFS: &str = "while umount /sys/fs/bpf 2>/dev/null; do :; done; exec \"$@\"";

#[test]
fn a_missing_bpffs_is_mounted() -> Result<()> {
    let (lab, manifests) = one_service()?;
    let mut command = lab.node().command("unshare");
    command.args(["--mount", "sh", "-c", WITHOUT_BPFFS, "sh"]).arg(xlb_binary()).args(agent(&lab, &manifests, &[]));
    let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    let vip = std::net::SocketAddrV4::new(lab.vip(0), PORT);
    let answer = wait_for(LATER, || LineClient::connect(lab.client(0), vip).ok()?.identity().ok());
    assert_eq!(answer.with_context(|| running.stop())?.server, "pod-0");

    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", running.0.id()))?;
    assert!(mounts.lines().any(|line| line.contains(" /sys/fs/bpf bpf ")), "{mounts}");
    assert!(!lab.pin_directory().exists());
    let log = running.stop();
    assert!(log.contains("stopped and detached"), "{log}");
    Ok(())
}

#[test]
fn a_bpffs_that_cannot_be_mounted_is_asked_for() -> Result<()> {
    let (lab, manifests) = one_service()?;
    let binary = xlb_binary().display().to_string();
    let unmounted = ["--mount", "sh", "-c", WITHOUT_BPFFS, "sh"];
    let powerless = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", &binary];
    let mut arguments: Vec<String> = [&unmounted[..], &powerless].concat().into_iter().map(String::from).collect();
    arguments.extend(agent(&lab, &manifests, &[]));
    run(&lab, "unshare", &arguments)?.is_refused_with(&["BPF file system", "mount -t bpf bpffs /sys/fs/bpf"]);
    Ok(())
}

/// What the message about missing capabilities asks for is enough where bpffs is mounted.
#[test]
fn the_three_named_capabilities_are_enough() -> Result<()> {
    let (lab, manifests) = one_service()?;
    let mut command = lab.node().command("setpriv");
    let three = "-all,+net_admin,+perfmon,+bpf";
    command.args([format!("--bounding-set={three}"), format!("--inh-caps={three}")]);
    command.arg(xlb_binary()).args(agent(&lab, &manifests, &[]));
    let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?);
    let vip = std::net::SocketAddrV4::new(lab.vip(0), PORT);
    let answer = wait_for(LATER, || LineClient::connect(lab.client(0), vip).ok()?.identity().ok());
    assert_eq!(answer.with_context(|| running.stop())?.server, "pod-0");
    Ok(())
}

#[test]
fn a_pin_directory_on_another_file_system_is_refused() -> Result<()> {
    let (lab, manifests) = one_service()?;
    let directory = tempfile::tempdir()?;
    let pins = directory.path().join("pins").display().to_string();
    refused_agent(&lab, &manifests, &["--bpffs-dir", &pins])?.is_refused_with(&[
        &pins,
        "not on a BPF file system",
        "--bpffs-dir",
        "/sys/fs/bpf",
    ]);
    assert_eq!(directory.path().read_dir()?.count(), 0);
    Ok(())
}

fn one_service() -> Result<(Lab, Manifests)> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    Ok((lab, manifests))
}

/// An agent that [`xlb_tests::lab::Agent`] cannot start.
struct Running(Child);

impl Running {
    /// Stops it, and returns what it said.
    fn stop(&mut self) -> String {
        let mut log = String::new();
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = stderr.read_to_string(&mut log);
        }
        let _ = self.0.wait();
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
