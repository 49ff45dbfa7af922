//! A Service without a usable pod on this node: silence, kube-proxy, or a refusal, as its policy and its pods elsewhere
//! have it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use xlb_common::Reason;
use xlb_tests::lab::{EndpointSpec, Greeting, Lab, LabSpec, LineClient, TcpServer, Version, udp_ask};

use crate::answers::{answer_apart, take_frames};
use crate::scene::{Delivery, Door, PORT, SILENCE, Scene, list, ready};

/// Where the node serves what is not xlb's.
const NODE_PORT: u16 = 9000;
/// A client that was not refused sends its SYN again after a second.
const AT_ONCE: Duration = Duration::from_millis(900);

#[test]
fn with_policy_local_the_client_hears_nothing() -> Result<()> {
    for door in Door::ALL {
        let (mut scene, _object) = start(true, true, false, door)?;
        for version in Version::ALL {
            scene.version = version;
            assert_eq!(refusals(&scene), [ErrorKind::TimedOut, ErrorKind::WouldBlock]);
        }
        let counters = scene.counters()?;
        assert!(counters.of(Reason::EmptyDropped) >= 4);
        counters.assert_none(&[Reason::EmptyPassed, Reason::EmptyRejected]);
    }
    Ok(())
}

#[test]
fn with_policy_cluster_kube_proxy_serves() -> Result<()> {
    for door in Door::ALL {
        let (mut scene, _object) = start(false, true, false, door)?;
        for version in Version::ALL {
            scene.version = version;
            redirect_to_node(&scene.lab, version)?;
            let any: IpAddr = match version {
                Version::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Version::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            let _server = TcpServer::start(scene.lab.node(), (any, NODE_PORT), "node", Greeting::OnRequest)?;
            assert_eq!(LineClient::connect(scene.lab.client(0), scene.vip())?.identity()?.server, "node");
        }
        let counters = scene.counters()?;
        counters.assert_some(&[Reason::EmptyPassed]);
        counters.assert_none(&[Reason::EmptyDropped, Reason::EmptyRejected]);
    }
    Ok(())
}

#[test]
fn without_a_usable_pod_anywhere_the_client_is_refused_at_once() -> Result<()> {
    let mut wrong = Vec::new();
    for (local_policy, tx_offload) in [(true, false), (false, true)] {
        for door in Door::ALL {
            let (mut scene, _object) = start(local_policy, false, tx_offload, door)?;
            for version in Version::ALL {
                scene.version = version;
                let begin = Instant::now();
                let found = refusals(&scene).map(|kind| kind == ErrorKind::ConnectionRefused);
                if found != [true; 2] || begin.elapsed() > AT_ONCE {
                    let took = begin.elapsed();
                    wrong.push(format!(
                        "{door:?}, offload {tx_offload}, {version:?}: TCP and UDP {found:?} in {took:?}"
                    ));
                }
            }
            scene.counters()?.assert_some(&[Reason::EmptyRejected]);
        }
    }
    ensure!(wrong.is_empty(), "not refused: {wrong:#?}");
    Ok(())
}

/// A pod that ends is better than none (KEP-1669), and keeps what it has when a ready one comes.
#[test]
fn a_terminating_pod_serves_until_a_ready_one_appears() -> Result<()> {
    for (dual_stack, delivery) in [(false, Delivery::Direct), (true, Delivery::Direct), (true, Delivery::Stack)] {
        let spec = LabSpec { dual_stack, pod_count: 2, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, Door::Tc)?;
        scene.set_service(true, &[])?;
        let (ending, fresh) = (EndpointSpec::terminating(scene.pod_address(0)), scene.pod_address(1));
        scene.set_endpoints(std::slice::from_ref(&ending), &[0])?;
        let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
        assert_eq!([scene.check_identity(&mut open)?, scene.check_connection(0)?, scene.check_datagram(0)?], [0; 3]);

        scene.set_endpoints(&[ending, EndpointSpec::ready(fresh)], &[1])?;
        assert_eq!([scene.check_connection(0)?, scene.check_datagram(0)?], [1; 2]);
        assert_eq!(scene.check_identity(&mut open)?, 0);
    }
    Ok(())
}

/// A scene of a Service without pods here; elsewhere it has one, or none. And the program that takes what XDP answers.
fn start(local_policy: bool, has_remote: bool, tx_offload: bool, door: Door) -> Result<(Scene, Ebpf)> {
    let lab = Lab::new(LabSpec { pod_count: 0, dual_stack: true, tx_offload, ..LabSpec::default() })?;
    let object = take_frames(&lab)?;
    answer_apart(&lab)?;
    let mut scene = Scene::on(lab, Delivery::Direct, door, &[])?;
    // Whoever is to be answered at once must know its neighbours.
    let uplink = scene.lab.uplink(0);
    for node in [IpAddr::from(uplink.node_address), uplink.node_address_v6.into()] {
        scene.lab.client(0).output("ping", &["-c", "1", "-W", "3", &node.to_string()])?;
    }
    scene.set_service(local_policy, &[])?;
    // A pod of another node: nothing here leads to its address.
    let pods = ready(&scene.lab, if has_remote { &[100] } else { &[] });
    let remote = pods.into_iter().map(|endpoint| EndpointSpec { node: "another".to_owned(), ..endpoint });
    scene.set_endpoints(&remote.collect::<Vec<_>>(), &[])?;
    let expected = match (has_remote, local_policy) {
        (false, _) => "reject",
        (true, true) => "drop",
        (true, false) => "pass",
    };
    scene.agent.wait_until(|maps| {
        let services = || list(maps, "services");
        services().count() == 6 && services().all(|service| service["when_empty"] == expected)
    });
    Ok((scene, object))
}

/// How a TCP client fails, and a UDP client.
fn refusals(scene: &Scene) -> [ErrorKind; 2] {
    let (client, vip) = (scene.lab.client(0), scene.vip());
    let tcp = client.run(|| TcpStream::connect_timeout(&vip, SILENCE)).expect_err("nobody serves");
    let udp = udp_ask(client, vip, "hello", SILENCE).expect_err("nobody serves");
    let udp = udp.root_cause().downcast_ref::<io::Error>().map_or(ErrorKind::Other, io::Error::kind);
    [tcp.kind(), udp]
}

/// What kube-proxy does, made short: the VIP becomes a server that the node's stack can reach.
fn redirect_to_node(lab: &Lab, version: Version) -> Result<()> {
    let uplink = lab.uplink(0);
    let (family, node): (_, IpAddr) = match version {
        Version::V4 => ("ip", uplink.node_address.into()),
        Version::V6 => ("ip6", uplink.node_address_v6.into()),
    };
    let (vip, to) = (lab.vip_in(version, 0), SocketAddr::new(node, NODE_PORT));
    let rules = format!(
        "add table {family} nat; add chain {family} nat prerouting {{ type nat hook prerouting priority dstnat; }}; \
         add rule {family} nat prerouting {family} daddr {vip} tcp dport {PORT} dnat to {to}"
    );
    lab.node().output("nft", &[&rules]).context("redirecting the VIP to the node")?;
    Ok(())
}
