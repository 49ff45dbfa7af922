//! iperf3 through a VIP: TCP and UDP in both directions, datagrams of one packet and of several.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlb_tests::lab::{Program, Version, wait_for};
use xlb_tests::servers::until;

use crate::counts::check_sums;
use crate::run::run;
use crate::stage::Stage;

/// The number of the Service whose only pod is 0.
const SERVICE: usize = 1;
/// Its ports.
pub const PORTS: [(&str, &str, u16, u16); 2] = [("tcp", "TCP", 5201, 5202), ("udp", "UDP", 5201, 5202)];

const TCP_BYTES: u64 = 60_000_000;
/// Who has sent enough ends the test: what is then in buffers on the way is not counted.
const ARRIVED_BYTES_MIN: u64 = 20_000_000;
/// Forth by two connections, and back.
const TCP: [&[&str]; 2] = [&["--bytes", "60000000", "--parallel", "2"], &["--bytes", "60000000", "--reverse"]];
/// 100 datagrams or so: the receiver's buffer takes all of them while a busy machine lets it wait.
const UDP: [&[&str]; 4] = [
    &["--udp", "--bitrate", "1M", "--time", "1", "--length", "1200"],
    &["--udp", "--bitrate", "1M", "--time", "1", "--length", "1200", "--reverse"],
    &["--udp", "--bitrate", "1M", "--time", "1", "--length", "4000"],
    &["--udp", "--bitrate", "1M", "--time", "1", "--length", "4000", "--reverse"],
];
const DATAGRAMS_MIN: u64 = 20;

const LOG: &str = "iperf3.log";
/// How long the server may take to be done with a client.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the server.
pub fn serve(stage: &mut Stage) -> Result<()> {
    let mut command = stage.lab.pod(0).command("iperf3");
    command.args(["--server", "--port", "5202", "--forceflush"]);
    let program = Program::start(command, &stage.directory(0)?.join(LOG))?;
    until(&program, "iperf3", || is_ready(&program.log()))?;
    stage.programs.push(program);
    Ok(())
}

/// The bytes arrive, both ways, and no receiver counts a wrong sum.
pub fn check(stage: &Stage, version: Version) -> Result<()> {
    for arguments in TCP {
        let end = measure(stage, version, arguments)?;
        let [sent, received] = ["sum_sent", "sum_received"].map(|sum| end[sum]["bytes"].as_u64().unwrap_or(0));
        ensure!(sent >= TCP_BYTES && received >= ARRIVED_BYTES_MIN, "{arguments:?}: {end:#}");
    }
    for arguments in UDP {
        let end = measure(stage, version, arguments)?;
        let [packets, lost, bytes] = ["packets", "lost_packets", "bytes"].map(|name| end["sum"][name].as_u64());
        ensure!(packets >= Some(DATAGRAMS_MIN) && bytes > Some(0), "{arguments:?}: {end:#}");
        ensure!(lost == Some(0), "{arguments:?}: {end:#}");
    }
    check_sums(stage.lab.client(0))?;
    check_sums(stage.lab.pod(0))
}

/// What iperf3 says at its end.
fn measure(stage: &Stage, version: Version, arguments: &[&str]) -> Result<Value> {
    wait_for_server(stage)?;
    let vip = stage.vip(version, SERVICE).to_string();
    let text = run(stage.lab.client(0), "iperf3", &[&["--client", &vip, "--json"], arguments].concat())?;
    let said: Value = serde_json::from_str(&text).with_context(|| format!("reading {text}"))?;
    ensure!(said["error"].is_null(), "{arguments:?}: {}", said["error"]);
    Ok(said["end"].clone())
}

/// The server refuses whoever comes while it has a client, and tells when it listens again.
fn wait_for_server(stage: &Stage) -> Result<()> {
    let path = stage.directory(0)?.join(LOG);
    let log = || fs::read_to_string(&path).unwrap_or_default();
    wait_for(END_TIMEOUT, || is_ready(&log()).then_some(())).with_context(|| format!("iperf3 is busy: {}", log()))
}

/// The last lines say that it listens, in a box.
fn is_ready(log: &str) -> bool {
    log.lines().rev().take(2).any(|line| line.contains("Server listening"))
}
