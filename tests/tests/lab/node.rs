//! Nodes that are not as usual: two uplinks, and one that does not forward.

use anyhow::Result;
use xlb_tests::lab::{Capture, Frame, Lab, LabSpec, LineClient, PodShape};

use crate::scene::{Delivery, Door, Scene};

const TRIES: usize = 20;
const BULK_BYTES: u64 = 1_000_000;

/// The default route leads over eth0. Replies must not take it: a router may filter by source there.
#[test]
fn replies_leave_by_the_uplink_by_which_the_client_came() -> Result<()> {
    for pods in PodShape::ALL {
        let lab = Lab::new(LabSpec { pods, uplinks: 2, ..LabSpec::default() })?;
        route_vips_over(&lab, 1)?;
        let scene = Scene::on(lab, Delivery::Direct, Door::Tc, &[])?;
        let captures = [0, 1].map(|uplink| Capture::start(scene.lab.node(), &scene.lab.uplink(uplink).node_device));
        for _ in 0..TRIES {
            scene.check_connection(0)?;
            scene.check_datagram(0)?;
        }
        let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
        open.download(BULK_BYTES)?;

        let [first, second] = captures.map(|capture| capture?.stop());
        assert_eq!(packets_of_vip(&scene, &first?), (0, 0));
        let (requests, replies) = packets_of_vip(&scene, &second?);
        assert!(requests > TRIES && replies > TRIES, "{requests} requests, {replies} replies");
        // The router changes its mind; the connection goes on.
        route_vips_over(&scene.lab, 0)?;
        scene.check_identity(&mut open)?;
        scene.check_connection(0)?;
    }
    Ok(())
}

#[test]
fn direct_delivery_needs_no_forwarding() -> Result<()> {
    for pods in PodShape::ALL {
        let lab = Lab::new(LabSpec { pods, ..LabSpec::default() })?;
        lab.node().sysctl(&[("net.ipv4.ip_forward", "0")])?;
        let scene = Scene::on(lab, Delivery::Direct, Door::Tc, &[])?;
        for _ in 0..TRIES {
            scene.check_connection(0)?;
            scene.check_datagram(0)?;
        }
    }
    Ok(())
}

fn route_vips_over(lab: &Lab, uplink: usize) -> Result<()> {
    lab.router().ip(&format!("route replace 203.0.113.0/24 via {}", lab.uplink(uplink).node_address))
}

/// IPv4 packets to the VIP that came in, and from the VIP that went out.
fn packets_of_vip(scene: &Scene, frames: &[Frame]) -> (usize, usize) {
    let vip = scene.lab.vip(0).octets();
    let count = |is_outgoing, address: std::ops::Range<usize>| {
        let ipv4 = frames.iter().filter(|frame| frame.is_outgoing == is_outgoing && frame.bytes[12..14] == [8, 0]);
        ipv4.filter(|frame| frame.bytes[address.clone()] == vip).count()
    };
    (count(false, 30..34), count(true, 26..30))
}
