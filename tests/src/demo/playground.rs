//! A demo that stays, for a person to play with, and its end.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::servers::{DNS_NAME, Servers};
use super::stage::{HTTP_PORT, SLICE_FILE, Stage, VIP};
use super::telling::{chapter, fact, say};
use super::workplace;
use crate::lab::{Lab, wait_for, xlb_binary};

const AGENT_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Leaves everything running, and says how to play with it.
pub fn keep(stage: Stage) -> Result<()> {
    let agent = stage.agent.process().context("the agent does not run")?;
    tell_how_to_play(&stage)?;
    let Stage { agent: running, servers, manifests, lab, workplace } = stage;
    workplace.keep(agent)?;
    lab.keep()?;
    servers.into_values().for_each(Servers::keep);
    // Their ends would stop the agent and remove the manifests.
    std::mem::forget((running, manifests));
    Ok(())
}

/// Ends and removes every kept demo.
pub fn clean() -> Result<()> {
    for agent in workplace::kept_agents() {
        stop_agent(agent);
    }
    Lab::remove_kept()?;
    match workplace::remove_kept() {
        0 => say("There is no kept demo."),
        _ => say("The kept demo is removed."),
    }
    Ok(())
}

fn tell_how_to_play(stage: &Stage) -> Result<()> {
    let lab = &stage.lab;
    let client = format!("nsenter --net=/run/netns/{}", lab.client(0).name());
    let program = xlb_binary().canonicalize().context("looking for xlb")?;
    let xlb = format!("nsenter --net=/run/netns/{} {}", lab.node().name(), program.display());
    let pins = format!("--bpffs-dir {}", lab.pin_directory().display());
    let source = format!("{}:40000", lab.client_address(0));
    chapter("It stays. Play with it:");
    fact("ask", &format!("{client} curl http://{VIP}/"));
    fact("", &format!("{client} dig @{VIP} {DNS_NAME} TXT +short"));
    fact("download", &format!("{client} curl -o /dev/null http://{VIP}/slow   (or /big, without a limit)"));
    fact("look", &format!("{xlb} status {pins}   (or services, backends, flows)"));
    fact("explain", &format!("{xlb} explain --proto tcp --src {source} --dst {VIP}:{HTTP_PORT} {pins}"));
    fact("change", &format!("edit {}", stage.manifests.path().join(SLICE_FILE).display()));
    fact("", "(take an endpoint out, or set ready: false, terminating: true), and look who answers");
    fact("watch", &format!("tail -f {}", stage.agent_log()?.display()));
    fact("end", "cargo xtask demo --clean");
    Ok(())
}

/// An agent that is asked to stop detaches and removes its report; the lab would only kill it.
fn stop_agent(process: i32) {
    let name = format!("/proc/{process}/comm");
    if fs::read_to_string(&name).is_ok_and(|name| name.trim() == "xlb") {
        let _ = kill(Pid::from_raw(process), Signal::SIGTERM);
        let _ = wait_for(AGENT_STOP_TIMEOUT, || (!Path::new(&name).exists()).then_some(()));
    }
}
