//! What happens to hidden clients when endpoints, pods and agents come and go.

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;
use xlb_tests::kernel::sample::Version;
use xlb_tests::lab::{Agent, Cgroup, LabSpec, LineClient, UdpClient, udp_ask};

use super::stage::Endpoint::{Elsewhere, Here, Leaving};
use super::stage::{PATIENCE, Stage, first_word};
use crate::stage::{TARGET_PORT, with_sizes};

#[test]
fn a_change_of_the_endpoints_moves_what_is_new_and_datagrams_whose_endpoint_is_gone() -> Result<()> {
    let mut stage = Stage::up(spec(3), &[Here(1)], &[])?;
    let mut flows = Vec::new();
    for version in Version::ALL {
        let pod = stage.lab.pod(0);
        let (connection, datagrams) =
            (LineClient::connect(pod, stage.vip(version))?, UdpClient::connect(pod, stage.vip(version))?);
        assert_eq!(first_word(&datagrams.ask("?", PATIENCE)?), "pod-1");
        flows.push((connection, datagrams));
    }
    stage.publish(&[Leaving(1), Here(2)], &[], (1, 1))?;
    for version in Version::ALL {
        assert!(stage.reached(0, version, 8)?.iter().eq(["pod-2"]));
    }
    for (connection, datagrams) in &mut flows {
        assert_eq!(connection.identity()?.server, "pod-1");
        assert_eq!(first_word(&datagrams.ask("?", PATIENCE)?), "pod-1", "it lingers");
    }
    stage.publish(&[Here(2), Elsewhere], &[], (2, 0))?;
    for (connection, datagrams) in &mut flows {
        assert_eq!(connection.identity()?.server, "pod-1", "a connection never moves");
        assert_ne!(first_word(&datagrams.ask("?", PATIENCE)?), "pod-1");
    }
    Ok(())
}

#[test]
fn connections_go_on_while_no_agent_runs_and_with_the_next_one() -> Result<()> {
    let mut stage = Stage::up(spec(2), &[Here(1)], &[])?;
    let mut old: Vec<_> =
        Version::ALL.iter().map(|&v| LineClient::connect(stage.lab.pod(0), stage.vip(v))).collect::<Result<_>>()?;
    let links = stage.links()?;
    stage.agent.kill()?;
    assert_eq!(stage.servers(0, Version::V4)?, ["pod-1"; 3]);
    stage.agent.start_again()?;
    let is_running = |maps: Value| maps["agent"]["is_running"] == true;
    while !stage.agent.inspect().is_ok_and(is_running) {
        for connection in &mut old {
            assert_eq!(connection.identity()?.server, "pod-1");
        }
    }
    for connection in &mut old {
        assert_eq!(connection.identity()?.server, "pod-1");
    }
    let before = stage.count("link_served")?;
    assert_eq!(stage.servers(0, Version::V6)?, ["pod-1"; 3]);
    assert_eq!(stage.count("link_served")?, before + 3, "one program serves, not the old one as well");
    let now = stage.links()?;
    assert!(links.iter().all(|link| now.contains(link)) && now.len() == links.len(), "{links:?} became {now:?}");
    Ok(())
}

#[test]
fn pods_that_come_are_served_and_the_links_of_those_that_go_are_forgotten() -> Result<()> {
    let mut stage = Stage::up(spec(2), &[Here(1)], &[])?;
    stage.until("both pods' links are served", || stage.served_links().is_ok_and(|served| served == (2, 2)))?;
    let new = stage.lab.add_pod()?;
    stage.until("the new pod is served", || stage.served_links().is_ok_and(|served| served == (3, 3)))?;
    assert_eq!(stage.servers(new, Version::V4)?, ["pod-1"; 3]);
    stage.lab.remove_pod(new)?;
    stage.until("its link is forgotten", || stage.served_links().is_ok_and(|served| served == (2, 2)))
}

/// The program for a backend's replies comes after those for clients when an endpoint becomes ready, and still is the first
/// that packets meet.
#[test]
fn a_pod_that_becomes_a_backend_stays_a_client() -> Result<()> {
    let mut stage = Stage::up(LabSpec { clients: 1, ..spec(2) }, &[Here(1)], &[])?;
    let mut old = LineClient::connect(stage.lab.pod(0), stage.vip(Version::V4))?;
    stage.publish(&[Here(0), Here(1)], &[], (2, 0))?;
    stage
        .agent
        .wait_until(|maps| maps["services"][0]["backends"].as_array().is_some_and(|backends| backends.len() == 2));
    assert_eq!(old.identity()?.server, "pod-1");
    assert_eq!(stage.servers(0, Version::V6)?, ["pod-1"; 3]);
    let served = |_| Ok(LineClient::connect(stage.lab.client(0), stage.vip(Version::V4))?.identity()?.server);
    let servers = (0..40).map(served).collect::<Result<std::collections::BTreeSet<_>>>()?;
    assert!(servers.iter().eq(["pod-0", "pod-1"]), "{servers:?}");
    let link = stage.lab.pod_host_end(0);
    let (_, programs) = stage.lab.node().run(|| SchedClassifier::query_tcx(&link, TcAttachType::Ingress))?;
    let names: Vec<_> = programs.iter().filter_map(|program| program.name_as_str()).collect();
    assert_eq!(names, ["pod", "link_ingress"]);
    Ok(())
}

#[test]
fn with_clients_inside_off_nothing_is_attached_to_links_and_what_was_goes() -> Result<()> {
    let mut stage = Stage::up(spec(2), &[Here(1)], &[])?;
    assert_eq!(stage.servers(0, Version::V4)?, ["pod-1"; 3]);
    stage.agent.kill()?;
    let other = Agent::start(&stage.lab, stage.manifests.path(), &with_sizes(&["--clients-inside", "off"]))?;
    stage.until("detached", || stage.served_links().is_ok_and(|served| served == (0, 0)))?;
    let before = stage.count("link_served")?;
    let _ = stage.connect(stage.lab.pod(0), Version::V4);
    assert_eq!(stage.count("link_served")?, before, "what the router sends back is a client's from outside");
    drop(other);
    Ok(())
}

#[test]
fn the_end_of_the_agent_is_the_end_of_service_at_links_unless_the_dataplane_is_kept() -> Result<()> {
    let mut stage = Stage::up(spec(2), &[Here(1)], &[])?;
    stage.agent.stop()?;
    stage.until("the service has ended", || stage.connect(stage.lab.pod(0), Version::V4).is_err())?;

    let mut kept = Stage::with(spec(2), &[Here(1)], &[], &["--keep-dataplane"])?;
    kept.agent.stop()?;
    assert_eq!(kept.servers(0, Version::V6)?, ["pod-1"; 3]);
    kept.agent.run_xlb(&["cleanup"])?;
    kept.until("the service has ended", || kept.connect(kept.lab.pod(0), Version::V4).is_err())
}

/// Its sockets are directed before any packet is made.
#[test]
fn nothing_at_the_link_touches_a_client_whose_sockets_are_seen() -> Result<()> {
    let mut lab_servers = Stage::up(spec(2), &[Here(1)], &[])?;
    lab_servers.agent.kill()?;
    let cgroup = Cgroup::enter()?;
    let path = cgroup.path().display().to_string();
    let arguments = with_sizes(&["--clients-inside", "on", "--cgroup", &path]);
    let mut agent = Agent::start(&lab_servers.lab, lab_servers.manifests.path(), &arguments)?;
    agent.wait_until(|maps| maps["agent"]["is_running"] == true);
    for version in Version::ALL {
        assert_eq!(lab_servers.servers(0, version)?, ["pod-1"; 3]);
    }
    let counters = agent.inspect()?["counters"].clone();
    let of_links = counters.as_object().context("no counters")?.iter();
    let of_links: Vec<_> =
        of_links.filter(|(label, count)| label.starts_with("link_") && count.as_u64() != Some(0)).collect();
    assert!(of_links.is_empty(), "{of_links:?}");
    assert_eq!(counters["inside_served"], 6);
    drop(agent);
    drop(cgroup);
    Ok(())
}

/// A connection that kube-proxy began before xlb was there goes on with kube-proxy.
#[test]
fn a_connection_from_before_is_left_to_the_stack() -> Result<()> {
    let mut stage = Stage::with(spec(2), &[Here(1)], &[], &["--clients-inside", "off"])?;
    stage.agent.stop()?;
    let (vip, endpoint) = (
        std::net::SocketAddrV4::new(stage.lab.vip(0), crate::stage::PORT),
        std::net::SocketAddrV4::new(stage.lab.pod_address(1), TARGET_PORT),
    );
    xlb_tests::lab::kube_proxy::serve(stage.lab.node(), vip, endpoint, true)?;
    let mut old = LineClient::connect(stage.lab.pod(0), vip)?;
    assert_eq!(old.identity()?.server, "pod-1");
    let path = stage.cgroup.path().display().to_string();
    let arguments = with_sizes(&["--clients-inside", "on", "--cgroup", &path]);
    let mut agent = Agent::start(&stage.lab, stage.manifests.path(), &arguments)?;
    agent.wait_until(|maps| maps["agent"]["is_running"] == true && maps["services"][0]["inside"]["endpoints"] == 1);
    assert_eq!(old.identity()?.server, "pod-1");
    assert!(udp_ask(stage.lab.pod(0), stage.vip(Version::V4), "?", PATIENCE)?.starts_with("pod-1"));
    let counters = agent.inspect()?["counters"].clone();
    assert!(counters["link_unknown"].as_u64() > Some(0) && counters["link_served"] == 1, "{counters}");
    Ok(())
}

fn spec(pod_count: usize) -> LabSpec {
    LabSpec { pod_count, clients: 0, dual_stack: true, ..LabSpec::default() }
}
