//! A node with the rules of kube-proxy and a CNI plugin: `ct state invalid drop`, and masquerade for what pods send.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use xlb_tests::lab::{Greeting, LabSpec, LineClient, PodShape, TcpServer, UdpServer, udp_ask};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, Scene};

const TRIES: usize = 20;
const BULK_BYTES: u64 = 1_000_000;
/// A port of a server outside, at a client.
const OUTSIDE_PORT: u16 = 9000;

#[test]
fn both_deliveries_pass_its_rules() -> Result<()> {
    for pods in PodShape::ALL {
        for delivery in Delivery::ALL {
            let scene = Scene::new(LabSpec { pods, kube_proxy_rules: true, ..LabSpec::default() }, delivery, Door::Tc)?;
            check_served(&scene).with_context(|| format!("{pods:?} pods, {delivery:?}"))?;
            let is_tracked = tracked_connections(&scene)? > 0;
            assert_eq!(is_tracked, delivery == Delivery::Stack);

            check_outbound(&scene)?;
            assert!(scene.lab.masqueraded()? >= 2);
            assert_eq!(scene.lab.dropped_as_invalid()?, 0);
        }
    }
    Ok(())
}

/// The pod sees the client's own address, which the checks compare, and both directions carry data.
fn check_served(scene: &Scene) -> Result<()> {
    for _ in 0..TRIES {
        scene.check_connection(0)?;
        scene.check_datagram(0)?;
        LineClient::connect(scene.lab.client(0), scene.banner_vip())?.greeting()?;
    }
    let mut bulk = LineClient::connect(scene.lab.client(0), scene.vip())?;
    bulk.download(BULK_BYTES)?;
    bulk.upload(BULK_BYTES)?;
    scene.check_identity(&mut bulk)?;
    Ok(())
}

/// Conntrack entries of the node that name the client.
fn tracked_connections(scene: &Scene) -> Result<usize> {
    let table = scene.lab.node().run(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"));
    let client = format!("src={} ", scene.lab.client_address(0));
    Ok(table.context("reading the conntrack table")?.lines().filter(|line| line.contains(&client)).count())
}

/// What a pod sends of its own accord is the CNI plugin's: it leaves with the node's address, as without xlb.
fn check_outbound(scene: &Scene) -> Result<()> {
    let (lab, any) = (&scene.lab, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, OUTSIDE_PORT));
    let _tcp = TcpServer::start(lab.client(0), any, "outside", Greeting::OnRequest)?;
    let udp = UdpServer::start(lab.client(0), any, "outside")?;
    let outside = SocketAddrV4::new(lab.client_address(0), OUTSIDE_PORT);

    let identity = LineClient::connect(lab.pod(0), outside)?.identity()?;
    assert_eq!(identity.peer.ip(), lab.uplink(0).node_address);
    udp_ask(lab.pod(0), outside, "hello", ANSWER_TIMEOUT)?;
    assert!(udp.peers().iter().all(|peer| peer.ip() == lab.uplink(0).node_address));
    Ok(())
}
