//! Frames with VLAN tags come by the uplink, as from a trunk: the kernel takes the outer tag out before tc sees them.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_tests::kernel::frame::tag;
use xlb_tests::lab::{Capture, LabSpec, wait_for};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, Scene};

const PORT: u16 = 40_007;

/// A capture shows frames without their outer tag, which the kernel takes out again: it shows that there was one by the
/// inner one, which then stands alone.
#[test]
fn a_datagram_with_two_tags_is_answered_with_them() -> Result<()> {
    for door in [Door::Tc, Door::XdpNative] {
        let scene = Scene::new(LabSpec { pod_gro: true, ..LabSpec::default() }, Delivery::Direct, door)?;
        let client = SocketAddr::from((scene.lab.client_address(0), PORT));
        let capture = Capture::start(scene.lab.router(), &scene.lab.uplink(0).router_device)?;
        scene.send(&scene.frame(&format!("udp {client} {} data 32 provider 9 vlan 7", scene.vip()))?)?;
        let peers = || scene.udp.values().any(|server| server.peers().contains(&client));
        wait_for(ANSWER_TIMEOUT, || peers().then_some(())).context("no pod has the datagram")?;
        wait_for(ANSWER_TIMEOUT, || {
            let counters = scene.counters().ok()?;
            (counters.of(Reason::RepliedHalfOpen) > 0).then_some(())
        })
        .context("no pod answered")?;
        let answers = capture.stop()?;
        let is_answer = |bytes: &[u8]| {
            bytes.get(12..16) == Some(&tag("vlan", 7)) && bytes.get(38..40) == Some(&scene.vip().port().to_be_bytes())
        };
        let is_there = answers.iter().any(|frame| is_answer(&frame.bytes));
        let texts: Vec<_> = answers.iter().map(|frame| format!("{:02x?}", frame.bytes)).collect();
        assert!(is_there, "{door:?}: no answer with the inner tag among\n{}", texts.join("\n"));
    }
    Ok(())
}
