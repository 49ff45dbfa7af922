//! How an agent ends, and what the next one finds.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use serde_json::Value;
use xlb_tests::lab::{Greeting, LabSpec, LineClient, TcpServer, without_traffic};

use crate::command::xlb;
use crate::stage::{Stage, socket, takers};

#[test]
fn sigterm_detaches_and_the_node_works_on() -> Result<()> {
    let mut stage = Stage::up()?;
    let node_port = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 9000);
    let _server = TcpServer::start(stage.lab.node(), node_port, "node", Greeting::OnRequest)?;
    let to_node = SocketAddrV4::new(stage.lab.uplink(0).node_address, 9000);
    let mut on_node = LineClient::connect(stage.lab.client(0), to_node)?;
    assert_eq!(on_node.identity()?.server, "node");

    assert_eq!(stage.agent.stop()?.code(), Some(0));
    assert!(stage.agent.log().contains("stopped and detached"));
    assert!(!stage.lab.pin_directory().exists());
    stage.until_silent(0)?;
    assert_eq!(on_node.identity()?.server, "node");
    assert_eq!(LineClient::connect(stage.lab.client(0), to_node)?.identity()?.server, "node");
    xlb(&stage.lab, &["inspect"])?.is_refused_with(&["has an agent run"]);

    stage.agent.start_again()?;
    stage.until(|maps| takers(maps, "web").len() == 2);
    assert!(stage.who(0).is_ok());
    Ok(())
}

#[test]
fn a_kept_dataplane_serves_until_the_next_agent_adopts_it() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 2, ..LabSpec::default() }, &["--keep-dataplane"])?;
    let mut held = stage.hold(0)?;
    assert_eq!(stage.agent.stop()?.code(), Some(0));
    assert!(stage.agent.log().contains("keep serving"));
    adoption(&mut stage, &mut [&mut held])
}

#[test]
fn a_killed_agent_leaves_a_dataplane_that_the_next_one_adopts() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = [stage.hold_at(0, "pod-0")?, stage.hold_at(0, "pod-1")?];
    stage.agent.kill()?;
    let [first, second] = &mut held;
    adoption(&mut stage, &mut [first, second])
}

/// Without an agent all is served; the next one finds it, changes nothing, and loses nothing.
fn adoption(stage: &mut Stage, held: &mut [&mut crate::stage::Held]) -> Result<()> {
    let before = stage.agent.inspect()?;
    assert_eq!(before["agent"]["is_running"], false);
    let before = without_traffic(before);
    for connection in held.iter_mut() {
        connection.answers()?;
    }
    assert!(stage.who(0).is_ok());

    stage.agent.start_again()?;
    let after = without_traffic(stage.until(|maps| maps["agent"]["is_running"] == true));
    for part in ["services", "backends", "generation"] {
        assert_eq!(after[part], before[part], "{part}");
    }
    for connection in held {
        connection.answers()?;
    }
    assert!(stage.who(0).is_ok());
    Ok(())
}

/// What changed while no agent ran is done by the next one.
#[test]
fn changes_made_without_an_agent_are_made_up_for() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 3, ..LabSpec::default() }, &[])?;
    let mut held = stage.hold_at(0, "pod-2")?;
    stage.agent.kill()?;
    stage.serve_pods(&[1, 2])?;
    stage.lab.remove_pod(0)?;
    held.answers()?;

    stage.agent.start_again()?;
    let expected = [socket(&stage.lab, 1), socket(&stage.lab, 2)];
    let maps = stage.until(|maps| takers(maps, "web") == expected);
    held.answers()?;
    let links = maps["backends"].as_array().into_iter().flatten().map(|backend| &backend["interface"]);
    assert_eq!(links.collect::<Vec<&Value>>(), ["veth1", "veth2"]);
    let answers: Result<Vec<String>> = (0..10).map(|_| stage.who(0)).collect();
    assert!(answers?.iter().all(|name| name == "pod-1" || name == "pod-2"));
    Ok(())
}
