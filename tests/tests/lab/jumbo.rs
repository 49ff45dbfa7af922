//! Links with an MTU of 9 000: frames in several buffers.

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_tests::lab::{Lab, LabSpec, LineClient, UdpClient, Version};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, Scene};

const MTU: usize = 9_000;
/// More than a page, and less than an IP packet of the MTU.
const DATAGRAM: usize = 8_000;
const BULK_BYTES: u64 = 4_000_000;

#[test]
fn jumbo_frames_are_served_by_every_door() -> Result<()> {
    for door in Door::ALL {
        for delivery in Delivery::ALL {
            let lab = Lab::new(LabSpec { dual_stack: true, pod_gro: true, pod_count: 2, ..LabSpec::default() })?;
            enlarge(&lab)?;
            let mut scene = Scene::on(lab, delivery, door, &[])?;
            for version in Version::ALL {
                scene.version = version;
                scene.wait_for_takers(&[0, 1]);
                check(&scene).with_context(|| format!("{door:?}, {delivery:?}, {version:?}"))?;
            }
            scene.counters()?.assert_none(&[Reason::ReplyTooBig, Reason::ReplyNotCut, Reason::Fragment]);
        }
    }
    Ok(())
}

fn check(scene: &Scene) -> Result<()> {
    LineClient::connect(scene.lab.client(0), scene.vip())?.download(BULK_BYTES)?;
    let socket = UdpClient::connect(scene.lab.client(0), scene.vip())?;
    let text = "j".repeat(DATAGRAM);
    let answer = socket.ask(&text, ANSWER_TIMEOUT)?;
    anyhow::ensure!(answer.ends_with(&text), "the answer has {} bytes", answer.len());
    Ok(())
}

/// Every link between client and pod.
fn enlarge(lab: &Lab) -> Result<()> {
    let uplink = lab.uplink(0);
    lab.client(0).ip(&format!("link set eth0 mtu {MTU}"))?;
    let router = ["client0", "clients", &uplink.router_device].map(|device| format!("link set {device} mtu {MTU}"));
    lab.router().ip(&router.join("\n"))?;
    lab.node().ip(&format!("link set {} mtu {MTU}", uplink.node_device))?;
    for pod in lab.pods() {
        lab.node().ip(&format!("link set {} mtu {MTU}", lab.pod_host_end(pod)))?;
        lab.pod(pod).ip(&format!("link set eth0 mtu {MTU}"))?;
    }
    Ok(())
}
