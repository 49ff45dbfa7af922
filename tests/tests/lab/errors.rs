//! ICMP errors about the VIP's flows reach who has to hear of them: routers' the pod, pods' and the node's the client.

use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_tests::kernel::frame::{ICMP, ICMP_V6};
use xlb_tests::kernel::headers::Layout;
use xlb_tests::kernel::icmp::quoted;
use xlb_tests::lab::{Capture, Lab, LabSpec, LineClient, PodShape, UdpClient, Version, wait_for};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, SILENCE, Scene};

const BULK_BYTES: u64 = 4_000_000;

/// By tc and by each kind of XDP, direct and through the stack.
const WAYS: [(Delivery, Door); 5] = [
    (Delivery::Direct, Door::Tc),
    (Delivery::Direct, Door::XdpNative),
    (Delivery::Direct, Door::XdpGeneric),
    (Delivery::Stack, Door::Tc),
    (Delivery::Stack, Door::XdpGeneric),
];

#[test]
fn a_download_finds_its_path_mtu_and_a_client_that_the_port_is_closed() -> Result<()> {
    for spec in specs() {
        for (delivery, door) in WAYS {
            let scene = Scene::new(spec.clone(), delivery, door)?;
            check_path_mtu(&scene).with_context(|| format!("{:?} {delivery:?} {door:?}", scene.version))?;
            check_closed_port(&scene).with_context(|| format!("{:?} {delivery:?} {door:?}", scene.version))?;
        }
    }
    Ok(())
}

#[test]
fn a_download_over_a_small_hop_that_has_offloads() -> Result<()> {
    for spec in specs() {
        let scene = Scene::new(LabSpec { tx_offload: true, ..spec }, Delivery::Direct, Door::Tc)?;
        check_path_mtu(&scene)?;
    }
    Ok(())
}

#[test]
fn a_pod_whose_replies_are_too_big_for_the_uplink_is_told_so() -> Result<()> {
    for spec in specs() {
        for is_segmented_by_the_pod in [false, true] {
            let scene = Scene::new(spec.clone(), Delivery::Direct, Door::Tc)?;
            if is_segmented_by_the_pod {
                set_segmenting(&scene.lab)?;
            }
            let (uplink, mtu) = (scene.lab.uplink(0), mtu(scene.version));
            scene.lab.node().ip(&format!("link set {} mtu {mtu}", uplink.node_device))?;
            scene.lab.router().ip(&format!("link set {} mtu {mtu}", uplink.router_device))?;
            let pod = check_download(&scene)?;
            assert_eq!(learnt_mtu(&scene, pod)?, mtu);
            let counters = scene.counters()?;
            counters.assert_some(&[Reason::ReplyTooBig, Reason::Replied]);
            counters.assert_none(&[Reason::ReplyNotCut, Reason::ErrorDelivered]);
        }
    }
    Ok(())
}

#[test]
fn what_expires_on_the_nodes_stack_is_reported_about_the_packet_to_the_vip() -> Result<()> {
    for spec in specs() {
        let scene = Scene::new(spec, Delivery::Stack, Door::Tc)?;
        let client = scene.lab.client_address_in(scene.version, 0);
        let sent = scene.frame(&format!("udp {} {} ttl 1 data 32", socket(client), scene.vip()))?;
        let capture = Capture::start(scene.lab.client(0), "eth0")?;
        scene.send(&sent)?;
        scene.counters()?.assert_some(&[Reason::ErrorReplied]);
        std::thread::sleep(SILENCE);
        let frames = capture.stop()?;
        let mut reports = frames.iter().filter(|frame| is_icmp(&frame.bytes)).filter_map(|frame| quoted(&frame.bytes));
        let report = reports.next().context("no report came")?;
        assert!(report[14..].starts_with(&sent.build()[14..]), "{report:02x?}");
    }
    Ok(())
}

/// The pod learns of the small hop behind the router.
fn check_path_mtu(scene: &Scene) -> Result<()> {
    scene.lab.router().ip(&format!("link set clients mtu {}", mtu(scene.version)))?;
    let pod = check_download(scene)?;
    assert_eq!(learnt_mtu(scene, pod)?, mtu(scene.version));
    scene.counters()?.assert_some(&[Reason::ErrorDelivered]);
    Ok(())
}

/// After which a client asks again: nobody repeats an ICMP error.
const RETRY: Duration = Duration::from_millis(300);

/// The client learns that the pod has closed its port.
fn check_closed_port(scene: &Scene) -> Result<()> {
    let socket = UdpClient::connect(scene.lab.client(0), scene.vip())?;
    socket.ask("hello", ANSWER_TIMEOUT)?;
    for server in scene.udp.values() {
        server.stop();
    }
    let is_refused = |error: &anyhow::Error| {
        error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    let refused = wait_for(ANSWER_TIMEOUT, || socket.ask("hello", RETRY).err().filter(is_refused));
    assert!(refused.is_some(), "nobody told the client that the port is closed");
    scene.counters()?.assert_some(&[Reason::ErrorReplied]);
    Ok(())
}

/// A small hop over IPv4 and over IPv6, behind a node that drops what is in no state that netfilter knows.
fn specs() -> [LabSpec; 2] {
    let spec = LabSpec { pod_gro: true, pod_count: 2, kube_proxy_rules: true, ..LabSpec::default() };
    [spec.clone(), LabSpec { dual_stack: true, pods: PodShape::Bridge, ..spec }]
}

/// Of the small hop.
fn mtu(version: Version) -> u32 {
    match version {
        Version::V4 => 1000,
        Version::V6 => 1280,
    }
}

/// The pod that served it.
fn check_download(scene: &Scene) -> Result<usize> {
    let mut connection = LineClient::connect(scene.lab.client(0), scene.vip())?;
    let pod = scene.check_identity(&mut connection)?;
    connection.download(BULK_BYTES)?;
    Ok(pod)
}

/// What the pod's kernel knows of the way to the client.
fn learnt_mtu(scene: &Scene, pod: usize) -> Result<u32> {
    let client = scene.lab.client_address_in(scene.version, 0).to_string();
    let route = scene.lab.pod(pod).output("ip", &["route", "get", &client])?;
    let mtu = route.split_whitespace().skip_while(|word| *word != "mtu").nth(1);
    mtu.and_then(|mtu| mtu.parse().ok()).with_context(|| format!("no MTU was learnt: {route}"))
}

/// Pods send packets as large as the link takes, and no larger ones to be cut on their way.
fn set_segmenting(lab: &Lab) -> Result<()> {
    for pod in lab.pods() {
        lab.pod(pod).output("ethtool", &["-K", "eth0", "gso", "off", "tso", "off"])?;
    }
    Ok(())
}

fn socket(address: IpAddr) -> std::net::SocketAddr {
    (address, 40_000).into()
}

fn is_icmp(frame: &[u8]) -> bool {
    Layout::of(frame).is_some_and(|layout| [ICMP, ICMP_V6].contains(&frame[layout.protocol_at]))
}
