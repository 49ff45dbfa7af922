//! `xlb status`: what it says when not all is well.

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_tests::lab::{LabSpec, wait_for};

use crate::command::{run, xlb};
use crate::stage::{LATER, Stage, service};

fn status(stage: &Stage) -> Result<Value> {
    Ok(serde_json::from_str(&stage.agent.run_xlb(&["status", "-o", "json"])?)?)
}

#[test]
fn drops_of_the_last_minute_are_told_and_with_the_agent_gone_all_of_them() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &["--vip-unowned", "drop"])?;
    let dropped = |stage: &Stage| -> Result<u64> {
        Ok(status(stage)?["dataplane"]["drops"]["packets"]["unowned_dropped"].as_u64().unwrap_or(0))
    };
    assert_eq!(dropped(&stage)?, 0);
    let nobody = std::net::SocketAddrV4::new(stage.lab.vip(0), 9);
    let send =
        |stage: &Stage| stage.lab.client(0).run(|| std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(b"?", nobody));
    send(&stage)?;
    wait_for(LATER, || dropped(&stage).ok().filter(|count| *count == 1)).context("the drop is not told")?;
    assert!(status(&stage)?["dataplane"]["drops"]["seconds"].is_u64());

    // The next agent counts from its own start on.
    stage.agent.kill()?;
    send(&stage)?;
    wait_for(LATER, || dropped(&stage).ok().filter(|count| *count == 2)).context("the second drop is not told")?;
    let alone = status(&stage)?;
    assert!(alone["dataplane"]["drops"]["seconds"].is_null(), "{alone:#}");
    assert_eq!(alone["has_agent"], false);
    stage.agent.start_again()?;
    stage.agent.wait_until_it_reports();
    let again = status(&stage)?;
    assert_eq!(
        again["dataplane"]["drops"]["packets"],
        serde_json::json!({}),
        "what came before its start is not lately"
    );
    Ok(())
}

#[test]
fn warnings_and_what_to_do_are_on_the_screen() -> Result<()> {
    let mut stage = Stage::up()?;
    let uplink = stage.lab.uplink(0).node_address;
    let yaml = service(&stage.lab, "own", 1, &[0]).replace(&stage.lab.vip(1).to_string(), &uplink.to_string());
    stage.manifests.write("own.yaml", &yaml)?;
    stage.until_refused(&["default/own", "address of this node"]);
    xlb(&stage.lab, &["status"])?.says(&["warning", "default/own", &uplink.to_string(), "agent      up;"]);
    Ok(())
}

/// In a container whose process ids are its own the agent's number says nothing outside of it.
#[test]
fn an_agent_in_another_container_is_seen_by_its_lock() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.agent.kill()?;
    assert_eq!(status(&stage)?["has_agent"], false);
    stage.agent.start_again_by(&["unshare", "--pid", "--fork", "--kill-child=KILL"])?;
    let seen = wait_for(LATER, || status(&stage).ok().filter(|it| it["has_agent"] == true && it["agent"]["pid"] == 1));
    seen.context("the agent in a namespace of its own is not seen")?;
    stage.who(0)?;
    // What dies here is the runner, and the agent with it.
    stage.agent.kill()?;
    wait_for(LATER, || status(&stage).ok().filter(|it| it["has_agent"] == false)).context("it goes on")?;
    Ok(())
}

/// A container with a read-only root and nothing mounted at /run/xlb: the agent serves, and says once what is missing.
#[test]
fn with_a_read_only_root_the_agent_serves_and_says_what_to_mount() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.agent.stop()?;
    let read_only = "mount -t tmpfs -o ro tmpfs /run/xlb && exec \"$0\" \"$@\"";
    stage.agent.start_again_by(&["unshare", "--mount", "sh", "-c", read_only])?;
    stage.until(|maps| crate::stage::serves(maps, "web"));
    stage.until_answers(0, "pod-0")?;
    let told = |stage: &Stage| stage.agent.log().matches("cannot tell of this agent without it").count();
    wait_for(LATER, || (told(&stage) == 1).then_some(())).context("the log does not say it")?;
    assert!(stage.agent.log().contains("make /run/xlb writable"), "{}", stage.agent.log());
    // Rounds go on, and are not told each time.
    stage.manifests.write("more.yaml", &service(&stage.lab, "more", 1, &[1]))?;
    stage.until(|maps| crate::stage::serves(maps, "more"));
    assert_eq!(told(&stage), 1, "{}", stage.agent.log());

    let pins = stage.lab.pin_directory().display().to_string();
    let inside = ["--mount", "sh", "-c", read_only];
    let binary = xlb_tests::lab::xlb_binary().display().to_string();
    let words = [&inside[..], &[&binary, "status", "--bpffs-dir", &pins]].concat();
    let seen = run(&stage.lab, "unshare", &words)?;
    seen.says(&["agent      up, and has not reported", "mount a writable directory at /run/xlb", "services   2"]);
    Ok(())
}
