//! Datagrams longer than the MTU, with real sockets: fragments both ways, and fragments that overtake each other.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xlb_common::Reason;
use xlb_common::abi::UDP;
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::pieces::{is_fragment, split};
use xlb_tests::lab::{Capture, LabSpec, PodShape, UdpClient, Version, send_frames, wait_for};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, PORT, Scene, TARGET_PORT, pod_number};

/// Three and fourteen fragments at an MTU of 1500.
const LENGTHS: [usize; 2] = [4_000, 20_000];
/// Datagrams of each length: with three pods, one that all miss is one case in a million.
const TRIES: usize = 36;
/// What the tests say themselves.
const CLIENT_PORT: u16 = 41_000;
const SIZE: usize = 1_400;
/// How long misdelivered fragments would take at most.
const SETTLING: Duration = Duration::from_millis(300);

#[test]
fn long_datagrams_direct_by_tc() -> Result<()> {
    check(&LabSpec::default(), Delivery::Direct, Door::Tc)
}

#[test]
fn long_datagrams_direct_by_native_xdp_into_pods_with_gro() -> Result<()> {
    check(&LabSpec { pod_gro: true, ..LabSpec::default() }, Delivery::Direct, Door::XdpNative)
}

#[test]
fn long_datagrams_direct_by_tc_behind_native_xdp() -> Result<()> {
    check(&LabSpec::default(), Delivery::Direct, Door::XdpNative)
}

#[test]
fn long_datagrams_direct_by_generic_xdp() -> Result<()> {
    check(&LabSpec::default(), Delivery::Direct, Door::XdpGeneric)
}

#[test]
fn long_datagrams_through_the_stack() -> Result<()> {
    for door in Door::ALL {
        check(&LabSpec::default(), Delivery::Stack, door)?;
    }
    Ok(())
}

/// Connection tracking puts fragments together, and takes them apart again behind itself.
#[test]
fn long_datagrams_through_a_stack_that_puts_fragments_together() -> Result<()> {
    check(&LabSpec { kube_proxy_rules: true, ..LabSpec::default() }, Delivery::Stack, Door::Tc)
}

#[test]
fn long_datagrams_with_unfinished_sums() -> Result<()> {
    for delivery in Delivery::ALL {
        check(&LabSpec { tx_offload: true, ..LabSpec::default() }, delivery, Door::Tc)?;
    }
    Ok(())
}

fn check(spec: &LabSpec, delivery: Delivery, door: Door) -> Result<()> {
    for pods in PodShape::ALL {
        let mut scene = Scene::new(LabSpec { pods, dual_stack: true, ..spec.clone() }, delivery, door)?;
        for version in Version::ALL {
            scene.version = version;
            scene.wait_for_takers(&[0, 1, 2]);
            check_answers(&scene).with_context(|| format!("{pods:?} pods, {version:?}"))?;
        }
        let counters = scene.counters()?;
        counters.assert_some(&[Reason::FragmentFollowed, Reason::ReplyFragment]);
        counters.assert_none(&[Reason::FragmentEarly, Reason::FragmentLeft, Reason::Malformed]);
    }
    Ok(())
}

/// Every pod gets whole datagrams from the client's own address, and the client as long answers from the VIP.
fn check_answers(scene: &Scene) -> Result<()> {
    let mut met = [0; 3];
    for length in LENGTHS {
        let payload = "0123456789abcdef".repeat(length / 16);
        for _ in 0..TRIES {
            let socket = UdpClient::connect(scene.lab.client(0), scene.vip())?;
            let answer = socket.ask(&payload, ANSWER_TIMEOUT).with_context(|| format!("{length} bytes"))?;
            let (pod, rest) = answer.split_once(' ').context("an answer has three words")?;
            ensure!(rest == format!("{} {payload}", socket.local_address()?), "{pod} got or saw something else");
            met[pod_number(pod)?] += 1;
        }
    }
    ensure!(met.iter().all(|&answers| answers > 0), "answers by pod: {met:?}");
    Ok(())
}

/// A later fragment that comes first is not misdelivered: no pod gets any part of the datagram, and the next is served.
#[test]
fn fragments_in_reverse_order_reach_no_pod() -> Result<()> {
    for (delivery, door) in
        [(Delivery::Direct, Door::Tc), (Delivery::Direct, Door::XdpGeneric), (Delivery::Stack, Door::Tc)]
    {
        let mut scene = Scene::new(LabSpec { dual_stack: true, ..LabSpec::default() }, delivery, door)?;
        for version in Version::ALL {
            scene.version = version;
            scene.wait_for_takers(&[0, 1, 2]);
            let captures = [0, 1, 2].map(|pod| Capture::start(scene.lab.pod(pod), "eth0"));
            let mut reversed = pieces(&scene, 1)?;
            reversed.reverse();
            send(&scene, &reversed)?;
            std::thread::sleep(SETTLING);
            for capture in captures {
                let strays = capture?.stop()?.into_iter().filter(|frame| is_fragment(&frame.bytes)).count();
                ensure!(strays == 0, "{version:?}: a pod got {strays} fragments");
            }
            ensure!(peers(&scene) == 0, "{version:?}: a pod got the datagram");
            send(&scene, &pieces(&scene, 2)?)?;
            let arrived = wait_for(ANSWER_TIMEOUT, || (peers(&scene) == 1).then_some(()));
            ensure!(arrived.is_some(), "{version:?}: the next datagram is lost");
        }
        scene.counters()?.assert_some(&[Reason::FragmentEarly, Reason::FragmentLeft, Reason::FragmentFollowed]);
    }
    Ok(())
}

/// Where kube-proxy serves the VIP too, its connection tracking has all parts, and one pod gets the datagram.
#[test]
fn fragments_in_reverse_order_are_put_together_for_kube_proxy() -> Result<()> {
    for door in [Door::Tc, Door::XdpGeneric] {
        let scene = Scene::new(LabSpec::default(), Delivery::Direct, door)?;
        let (vip, pod) = (scene.lab.vip(0), scene.lab.pod_address(1));
        let rules = format!(
            "add table ip services; add chain ip services prerouting {{ type nat hook prerouting priority dstnat; }}; \
             add rule ip services prerouting ip daddr {vip} udp dport {PORT} dnat to {pod}:{TARGET_PORT}"
        );
        scene.lab.node().output("nft", &[&rules])?;
        let mut reversed = pieces(&scene, 1)?;
        reversed.reverse();
        send(&scene, &reversed)?;
        let arrived = wait_for(ANSWER_TIMEOUT, || (peers(&scene) == 1).then_some(()));
        ensure!(arrived.is_some(), "the datagram is lost");
        ensure!(scene.udp[&1].peers().iter().any(|peer| peer.port() == CLIENT_PORT), "another pod got it");
        scene.counters()?.assert_none(&[Reason::FragmentFollowed]);
    }
    Ok(())
}

/// Behind native XDP, tc meets the first fragment before it meets an early one that came with it in one burst; either way
/// all of them go to one pod or none does.
#[test]
fn fragments_in_any_order_arrive_whole_or_not_at_all() -> Result<()> {
    for pod_gro in [false, true] {
        let spec = LabSpec { pod_gro, ..LabSpec::default() };
        let scene = Scene::new(spec, Delivery::Direct, Door::XdpNative)?;
        for (number, order) in
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate()
        {
            let pieces = pieces(&scene, 10 + number as u16)?;
            let before = peers(&scene);
            let frames: Vec<Vec<u8>> = order.iter().map(|&piece| pieces[piece].clone()).collect();
            send(&scene, &frames)?;
            let is_first_ahead = order[0] == 0;
            let patience = if is_first_ahead { ANSWER_TIMEOUT } else { SETTLING };
            let arrived = wait_for(patience, || (peers(&scene) > before).then_some(())).is_some();
            ensure!(arrived || !is_first_ahead, "the datagram in the order {order:?} is lost");
            ensure!(peers(&scene) <= before + 1, "the datagram in the order {order:?} came twice");
        }
    }
    Ok(())
}

/// The fragments of a datagram of the client, as the router sends them.
fn pieces(scene: &Scene, identification: u16) -> Result<Vec<Vec<u8>>> {
    let client = match scene.version {
        Version::V4 => scene.lab.client_address(0).into(),
        Version::V6 => scene.lab.client_address_in(Version::V6, 0),
    };
    let links = scene.frame(&format!("udp {} {}", SocketAddr::new(client, CLIENT_PORT), scene.vip()))?;
    let spec =
        Spec { data: LENGTHS[0], from: links.from, to: links.to, ..Spec::new(UDP, links.source, links.destination) };
    Ok(split(&spec.build(), SIZE, identification))
}

fn send(scene: &Scene, frames: &[Vec<u8>]) -> Result<()> {
    send_frames(scene.lab.router(), &scene.lab.uplink(0).router_device, frames)
}

/// Datagrams of [`CLIENT_PORT`] in the version that the client speaks, that pods got whole.
fn peers(scene: &Scene) -> usize {
    let seen = scene.udp.values().flat_map(|server| server.peers());
    seen.filter(|peer| peer.port() == CLIENT_PORT && peer.is_ipv4() == scene.vip().is_ipv4()).count()
}
