//! `xlb explain`: each stage in words, and the same backend that a real connection meets.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use xlb_tests::lab::{EndpointSpec, LabSpec, LineClient, udp_ask};

use crate::command::{Ended, xlb};
use crate::stage::{Held, LATER, Stage, serves, service, service_with, socket, takers};

const CLIENT: &str = "198.51.100.10:40000";
/// Ports whose explanations are compared with reality, from below the range of ephemeral ones.
const PORTS_COMPARED: u16 = 50;

#[test]
fn what_is_not_ours_is_left_to_the_stack() -> Result<()> {
    let stage = Stage::up()?;
    for (destination, protocol) in [("203.0.113.10:81", "tcp"), ("203.0.113.11:80", "tcp"), ("203.0.113.10:80", "udp")]
    {
        let told = explain(&stage, CLIENT, destination, &["--proto", protocol])?;
        told.says(&[protocol, CLIENT, destination, "(not_ours)", "left to the stack"]);
        assert!(!told.text.contains("backend"), "{}", told.text);
    }
    Ok(())
}

#[test]
fn a_sole_backend_needs_no_slot() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &[])?;
    let (vip, pod) = (stage.vip(0).to_string(), socket(&stage.lab, 0));
    stage.until(|maps| serves(maps, "web"));
    for more in [&[][..], &["--established"]] {
        let told = explain(&stage, CLIENT, &vip, more)?;
        let becomes = format!("{CLIENT} > {pod}, ttl 63");
        told.says(&["default/web:http", "one backend", &pod, "direct", "veth0", &becomes, "(sole_backend)"]);
        told.says(&[if more.is_empty() { "tcp SYN" } else { "tcp ACK" }]);
        assert!(!told.text.contains("\nslot "), "{}", told.text);
    }
    Ok(())
}

#[test]
fn several_backends_share_slots() -> Result<()> {
    let stage = Stage::up()?;
    let told = explain(&stage, CLIENT, &stage.vip(0).to_string(), &[])?;
    told.says(&["default/web:http: 251 slots", "\nslot ", "(slot_owner)", "direct by veth"]);
    Ok(())
}

#[test]
fn udp_is_explained_as_it_is_served() -> Result<()> {
    let mut stage = Stage::up()?;
    let yaml = service(&stage.lab, "dns", 1, &[0, 1]).replace("protocol: TCP", "protocol: UDP");
    stage.manifests.write("dns.yaml", &yaml)?;
    for pod in [0, 1] {
        stage.lab.serve_udp(pod, 8080)?;
    }
    stage.until(|maps| maps["services"].to_string().contains("default/dns:http/udp"));
    for _ in 0..10 {
        let answer = udp_ask(stage.lab.client(0), stage.vip(1), "who", LATER)?;
        let [server, client, _] = answer.split(' ').collect::<Vec<_>>()[..] else { panic!("{answer}") };
        let told = explain(&stage, client, &stage.vip(1).to_string(), &["--proto", "udp"])?;
        told.says(&["udp ", "default/dns:http/udp", "(slot_owner)"]);
        assert_eq!(backend(&stage, &told)?, server);
    }
    Ok(())
}

#[test]
fn a_port_that_another_vip_of_the_pod_has_is_explained_and_shown() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &[])?;
    for (name, vip) in [("first", 1), ("second", 2)] {
        let yaml = service(&stage.lab, name, vip, &[0]).replace("protocol: TCP", "protocol: UDP");
        stage.manifests.write(&format!("{name}.yaml"), &yaml)?;
    }
    stage.lab.serve_udp(0, 8080)?;
    stage.until(|maps| maps["services"].to_string().contains("default/second:http/udp"));
    stage.until(|maps| maps["services"].to_string().contains("default/first:http/udp"));
    let socket = stage.lab.client(0).run(|| UdpSocket::bind("0.0.0.0:0"))?;
    socket.set_read_timeout(Some(LATER))?;
    let mut seen = Vec::new();
    for vip in [1, 2] {
        socket.send_to(b"who", stage.vip(vip))?;
        let mut buffer = [0; 100];
        let (length, from) = socket.recv_from(&mut buffer)?;
        assert_eq!(from, stage.vip(vip).into());
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let peer: SocketAddr = answer.split(' ').nth(1).context("an answer names the client")?.parse()?;
        seen.push(peer.port());
    }
    let client = SocketAddr::new(stage.lab.client_address(0).into(), socket.local_addr()?.port());
    assert!(seen[0] == client.port() && seen[1] != client.port(), "{client} is seen as {seen:?}");
    let (vip, port) = (stage.vip(2).to_string(), seen[1].to_string());
    let told = explain(&stage, &client.to_string(), &vip, &["--proto", "udp"])?;
    let (line, becomes) = (format!("seen as    port {port} of"), format!("becomes    {}:{port} > ", client.ip()));
    told.says(&["default/second:http/udp", "another VIP of one of the pods", &line, &becomes, "(port_changed)"]);
    assert_eq!(told.text.matches("frontend ").count(), 1, "{}", told.text);
    let shown = xlb(&stage.lab, &["flows", "-o", "wide", "--service", "second"])?;
    let line = shown.text.lines().find(|line| line.contains(&client.to_string())).context("no flow of the client")?;
    assert!(line.contains(&vip) && line.ends_with(&port), "{line} does not end with the port at the pod");
    Ok(())
}

#[test]
fn sctp_is_explained_by_its_first_packet_and_by_later_ones() -> Result<()> {
    let mut stage = Stage::up()?;
    let yaml = service(&stage.lab, "sig", 1, &[0, 1]).replace("protocol: TCP", "protocol: SCTP");
    stage.manifests.write("sig.yaml", &yaml)?;
    stage.until(|maps| maps["services"].to_string().contains("default/sig:http/sctp"));
    let vip = stage.vip(1).to_string();
    for (more, packet) in [(&[][..], "sctp INIT "), (&["--established"], "sctp DATA ")] {
        let told = explain(&stage, CLIENT, &vip, &[&["--proto", "sctp"], more].concat())?;
        told.says(&[packet, "default/sig:http/sctp", "(slot_owner)", "direct by veth"]);
    }
    Ok(())
}

#[test]
fn a_packet_has_two_ends_of_one_ip_version() -> Result<()> {
    let stage = Stage::up()?;
    let told = explain(&stage, "[2001:db8::1]:40000", "[2001:db8::80]:80", &[])?;
    told.says(&["tcp SYN [2001:db8::1]:40000 > [2001:db8::80]:80", "left to the stack"]);
    let arguments = ["explain", "--src", CLIENT, "--dst", "[2001:db8::80]:80"];
    xlb(&stage.lab, &arguments)?.is_refused_with(&["198.51.100.10", "2001:db8::80", "same IP version"]);
    Ok(())
}

/// The slot has a new owner, and the connection's own packets still lead to the pod that accepted it.
#[test]
fn an_open_connection_is_proven_by_its_pod() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 3, ..LabSpec::default() }, &[])?;
    let mut held = stage.hold_at(0, "pod-1")?;
    let client = held.connection.local_address()?.to_string();
    let vip = stage.vip(0).to_string();
    let left = [socket(&stage.lab, 0), socket(&stage.lab, 2)];
    let leave: [fn(&Stage) -> Result<()>; 2] = [terminate_pod_1, |stage| stage.serve_pods(&[0, 2])];
    for leave in leave {
        leave(&stage)?;
        stage.until(|maps| takers(maps, "web") == left);
        let told = explain(&stage, &client, &vip, &["--established"])?;
        told.says(&["before it", "holds the connection", "(proven_owner)"]);
        assert_eq!(backend(&stage, &told)?, "pod-1");
        held.answers()?;
    }

    // The kernel forgets the connection with its socket.
    held.connection.stream().shutdown(std::net::Shutdown::Both)?;
    drop(held);
    let told = explain(&stage, CLIENT, &vip, &["--established"])?;
    assert_ne!(backend(&stage, &told)?, "pod-1");
    Ok(())
}

fn terminate_pod_1(stage: &Stage) -> Result<()> {
    let address = |pod| stage.lab.pod_address(pod);
    let endpoints =
        [EndpointSpec::ready(address(0)), EndpointSpec::terminating(address(1)), EndpointSpec::ready(address(2))];
    stage.manifests.write("web.yaml", &service_with(&stage.lab, "web", 0, &endpoints))
}

#[test]
fn explanations_agree_with_reality() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 4, ..LabSpec::default() }, &[])?;
    // Slots with previous owners are among those that are compared.
    stage.serve_pods(&[0, 1, 3])?;
    stage.until(|maps| takers(maps, "web").len() == 3);
    stage.serve_pods(&[0, 1, 2, 3])?;
    stage.until(|maps| takers(maps, "web").len() == 4);
    let first = 20_000 + u16::from_ne_bytes(std::process::id().to_ne_bytes()[..2].try_into()?) % 10_000;
    let mut connections: Vec<(u16, Held)> = Vec::new();
    for port in first..first + PORTS_COMPARED {
        let foretold = foretell(&stage, port, &[])?;
        let mut connection = LineClient::connect_from_port(stage.lab.client(0), port, stage.vip(0))?;
        let server = connection.identity()?.server;
        assert_eq!(foretold, server, "port {port}");
        assert_eq!(foretell(&stage, port, &["--established"])?, server, "port {port}");
        connections.push((port, Held { connection, server }));
    }
    let servers: std::collections::BTreeSet<&str> = connections.iter().map(|(_, held)| held.server.as_str()).collect();
    assert_eq!(servers.len(), 4, "every pod has its share");

    stage.serve_pods(&[0, 2])?;
    stage.until(|maps| takers(maps, "web").len() == 2);
    for (port, held) in &mut connections {
        held.answers()?;
        assert_eq!(foretell(&stage, *port, &["--established"])?, held.server, "port {port}");
    }
    Ok(())
}

/// The server that an explanation names for a packet of the first client.
fn foretell(stage: &Stage, port: u16, more: &[&str]) -> Result<String> {
    let client = format!("{}:{port}", stage.lab.client_address(0));
    backend(stage, &explain(stage, &client, &stage.vip(0).to_string(), more)?)
}

fn explain(stage: &Stage, source: &str, destination: &str, more: &[&str]) -> Result<Ended> {
    let told = xlb(&stage.lab, &[&["explain", "--src", source, "--dst", destination], more].concat())?;
    assert_eq!(told.code, Some(0), "{}", told.text);
    Ok(told)
}

/// The server behind the line `backend`.
fn backend(stage: &Stage, told: &Ended) -> Result<String> {
    let line = told.text.lines().find_map(|line| line.strip_prefix("backend "));
    let address = line.and_then(|line| line.trim().split(',').next()).with_context(|| told.text.clone())?;
    let pod = stage.lab.pods().find(|&pod| socket(&stage.lab, pod) == address);
    Ok(format!("pod-{}", pod.with_context(|| told.text.clone())?))
}
