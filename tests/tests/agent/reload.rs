//! Settings that change while the agent runs: traffic does not notice, and what was changed acts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use xlb_tests::lab::{LabSpec, wait_for};

use crate::ask::{METRICS_PORT, get, metrics, soon};
use crate::stage::{LATER, Stage, refusal, serves, service};

/// An agent with a file that may change.
struct Scene {
    stage: Stage,
    directory: TempDir,
}

impl Scene {
    fn up(file: &str) -> Result<Scene> {
        let directory = TempDir::new()?;
        let path = directory.path().join("config.yaml");
        fs::write(&path, file)?;
        let path = path.display().to_string();
        let stage = Stage::with(LabSpec { pod_count: 2, ..LabSpec::default() }, &["--config", &path])?;
        Ok(Scene { stage, directory })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    /// Replaces the file at once, as an editor or a volume of Kubernetes does.
    fn write(&self, text: &str) -> Result<()> {
        let new = self.directory.path().join("new");
        fs::write(&new, text)?;
        fs::rename(new, self.path()).context("replacing the configuration")
    }

    /// Whether the VIP answers one ping.
    fn answers_ping(&self) -> Result<bool> {
        let vip = self.stage.lab.vip(0).to_string();
        let mut ping: Command = self.stage.lab.client(0).command("ping");
        Ok(ping.args(["-c", "1", "-W", "1", &vip]).output()?.status.success())
    }

    fn until_ping_is(&self, is_answered: bool) -> Result<()> {
        let found = wait_for(LATER, || (self.answers_ping().ok()? == is_answered).then_some(()));
        found.with_context(|| format!("ping is not {is_answered}: {}", self.stage.agent.log()))
    }

    fn reloads(&self, outcome: &str) -> Result<f64> {
        let metrics = metrics(self.stage.lab.node())?;
        metrics.value("xlb_config_reloads_total", &[("outcome", outcome)]).context("it is not counted")
    }
}

#[test]
fn a_changed_file_acts_and_connections_go_on() -> Result<()> {
    let scene = Scene::up("vip-echo: on\n")?;
    let mut held = [scene.stage.hold_at(0, "pod-0")?, scene.stage.hold_at(0, "pod-1")?];
    scene.until_ping_is(true)?;
    scene.write("vip-echo: off\nlog: debug\n")?;
    scene.until_ping_is(false)?;
    held.iter_mut().try_for_each(|held| held.answers())?;
    let log = scene.stage.agent.log();
    ensure!(log.contains("vip-echo is off from now on") && log.contains("config.yaml:1"), "{log}");
    ensure!(log.contains("log is debug from now on"), "{log}");

    // What is logged changed, too: a change of the maps is told one by one.
    scene.stage.serve_pods(&[0])?;
    let logged = wait_for(LATER, || scene.stage.agent.log().contains("DEBUG").then_some(()));
    logged.context("nothing is logged at debug")?;
    scene.stage.serve_pods(&[0, 1])?;

    scene.write("log: info\n")?;
    scene.until_ping_is(true)?;
    held.iter_mut().try_for_each(|held| held.answers())?;
    soon("two reloads", || (scene.reloads("taken").ok()? == 2.0).then_some(()))?;
    assert_eq!(scene.reloads("refused")?, 0.0);
    let shown = scene.stage.agent.run_xlb(&["config", "show"])?;
    let line = shown.lines().find(|line| line.starts_with("vip-echo ")).context("vip-echo")?;
    ensure!(line.contains("on") && line.contains("default"), "{line}");
    Ok(())
}

#[test]
fn services_that_a_new_policy_allows_are_served() -> Result<()> {
    let mut scene = Scene::up("external-ip-cidrs: []\n")?;
    let mut held = scene.stage.hold(0)?;
    let outside = scene.stage.vip(1);
    let yaml = service(&scene.stage.lab, "more", 1, &[0]);
    let status = yaml.find("status:\n").context("no status")?;
    let end = yaml[status..].find("---").context("no end")? + status;
    let yaml = format!("{}{}", &yaml[..status], &yaml[end..])
        .replace("spec:\n", &format!("spec:\n  externalIPs: [{}]\n", outside.ip()));
    scene.stage.manifests.write("more.yaml", &yaml)?;
    scene.stage.until_refused(&["default/more", "external-ip-cidrs"]);
    scene.write(&format!("external-ip-cidrs: [{}/32]\n", outside.ip()))?;
    scene.stage.until(|maps| serves(maps, "more"));
    scene.stage.until_answers(1, "pod-0")?;
    held.answers()
}

#[test]
fn a_bad_file_changes_nothing_and_is_told_until_it_is_mended() -> Result<()> {
    let mut scene = Scene::up("vip-echo: on\n")?;
    let mut held = scene.stage.hold(0)?;
    scene.write("vip-echo: off\nmax-flow: 7\n")?;
    let told = scene.stage.until_refused(&["configuration ", "config.yaml:2", "did you mean `max-flows`?"]);
    ensure!(told.contains("the settings of before stay"), "{told}");
    scene.until_ping_is(true)?;
    held.answers()?;
    ensure!(scene.stage.agent.run_xlb(&["status"])?.contains("did you mean `max-flows`?"));
    soon("the metric", || {
        let metrics = metrics(scene.stage.lab.node()).ok()?;
        let refused = metrics.value("xlb_refusals", &[("kind", "configuration")])?;
        (refused == 1.0 && scene.reloads("refused").ok()? >= 1.0).then_some(())
    })?;
    ensure!(scene.stage.agent.log().contains("did you mean `max-flows`?"));

    // A file that is gone is no empty one.
    fs::remove_file(scene.path())?;
    scene.stage.until_refused(&["configuration ", "No such file"]);
    scene.until_ping_is(true)?;
    scene.write("vip-echo: off\n")?;
    scene.until_ping_is(false)?;
    scene.stage.until(|maps| refusal(maps, &["configuration "]).is_none());
    held.answers()
}

#[test]
fn what_needs_a_restart_is_told_and_what_does_not_acts() -> Result<()> {
    let mut scene = Scene::up("vip-echo: on\nxdp: auto\n")?;
    let mut held = scene.stage.hold(0)?;
    scene.write("vip-echo: off\nxdp: off\nmetrics-address: 127.0.0.1:10400\n")?;
    let told = scene.stage.until_refused(&["configuration xdp", "takes effect when the agent is restarted"]);
    ensure!(
        told.contains("off (") && told.contains("config.yaml:2) ") && told.contains("until then it is auto"),
        "{told}"
    );
    scene.stage.until_refused(&["configuration metrics-address", "127.0.0.1:10400"]);
    scene.until_ping_is(false)?;
    held.answers()?;
    ensure!(get(scene.stage.lab.node(), METRICS_PORT, "/metrics").is_ok(), "the old address answers");

    scene.write("vip-echo: off\nxdp: auto\n")?;
    scene.stage.until(|maps| refusal(maps, &["configuration "]).is_none());
    held.answers()
}

#[test]
fn a_hangup_reads_the_file_again_and_ends_nobody() -> Result<()> {
    let mut scene = Scene::up("vip-echo: on\n")?;
    let mut held = scene.stage.hold(0)?;
    let pid = scene.stage.agent.process().context("no agent")?;
    kill(Pid::from_raw(pid.try_into()?), Signal::SIGHUP)?;
    soon("a reload that changes nothing", || (scene.reloads("taken").ok()? == 1.0).then_some(()))?;
    ensure!(!scene.stage.agent.has_ended());
    scene.until_ping_is(true)?;
    held.answers()
}

/// Time-outs of flows are asked anew by the thread that sweeps them.
#[test]
fn a_shorter_time_out_removes_what_is_over_by_it() -> Result<()> {
    let mut scene = Scene::up("flow-timeout-udp: 1h\nflow-timeout-udp-stream: 1h\n")?;
    let yaml = service(&scene.stage.lab, "dns", 1, &[0]).replace("protocol: TCP", "protocol: UDP");
    scene.stage.manifests.write("dns.yaml", &yaml)?;
    scene.stage.lab.serve_udp(0, 8080)?;
    scene.stage.until(|maps| maps["services"].to_string().contains("default/dns:http/udp"));
    xlb_tests::lab::udp_ask(scene.stage.lab.client(0), scene.stage.vip(1), "who", LATER)?;
    let flows = |scene: &Scene| -> Option<usize> {
        let flows = scene.stage.agent.run_xlb(&["flows", "--service", "dns", "-o", "json"]).ok()?;
        Some(serde_json::from_str::<serde_json::Value>(&flows).ok()?.as_array()?.len())
    };
    let swept = |scene: &Scene| -> Option<f64> {
        metrics(scene.stage.lab.node()).ok()?.value("xlb_flow_sweeps_total", &[("map", "UDP_PENDING_V4")])
    };
    soon("a sweep that leaves it", || (swept(&scene)? >= 1.0).then_some(()))?;
    assert_eq!(flows(&scene), Some(1));
    scene.write("flow-timeout-udp: 1s\nflow-timeout-udp-stream: 1s\n")?;
    wait_for(LATER, || (flows(&scene)? == 0).then_some(())).context("the flow stays")
}
