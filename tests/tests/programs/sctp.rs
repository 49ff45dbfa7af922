//! tsctp, of the SCTP stack usrsctp, which needs none in the kernel: a client and a server that nobody here wrote.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xlb_tests::lab::{Program, Version, wait_for};
use xlb_tests::servers::until;

use crate::run::run;
use crate::stage::Stage;

/// Where Debian has it.
const TSCTP: &str = "/usr/lib/usrsctp/tsctp";
/// The number of the Service whose only pod is 0.
const SERVICE: usize = 3;
/// The pod has another port, so that the packets' sums have to follow.
pub const PORTS: [(&str, &str, u16, u16); 1] = [("sctp", "SCTP", 5000, 5001)];

const LOG: &str = "tsctp.log";
/// How long the server may take for its account.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the server.
pub fn serve(stage: &mut Stage) -> Result<()> {
    let program = Program::start(stage.lab.pod(0).command(TSCTP), &stage.directory(0)?.join(LOG))?;
    until(&program, "tsctp", || program.log().contains("bound port:5001"))?;
    stage.programs.push(program);
    Ok(())
}

/// As many messages and bytes arrive as were sent. Over IPv6 usrsctp 0.9.5 does not even reach its neighbour on a bare link.
pub fn check(stage: &Stage, version: Version) -> Result<()> {
    if version == Version::V6 {
        return Ok(());
    }
    let vip = stage.vip(version, SERVICE).to_string();
    run(stage.lab.client(0), TSCTP, &["-p", "5000", "-n", "200", "-l", "1000", &vip])?;
    let path = stage.directory(0)?.join(LOG);
    let log = || fs::read_to_string(&path).unwrap_or_default();
    // Length of a message, calls to receive, messages, bytes.
    let account = || log().lines().find(|line| line.starts_with("1000, ")).map(str::to_owned);
    let account = wait_for(END_TIMEOUT, account).with_context(|| format!("tsctp has no account: {}", log()))?;
    ensure!(account.contains(", 200, 200000, "), "tsctp got {account}");
    Ok(())
}
