//! A pod whose MAC nobody knows: its packets are never lost to that.

use anyhow::{Result, ensure};
use xlb_common::Reason;
use xlb_tests::lab::{Lab, LabSpec, LineClient};

use crate::scene::{Delivery, Door, Scene, list};

/// The pod hears no question for its MAC.
const SILENCE_ARP: &str =
    "add table arp silent; add chain arp silent in { type filter hook input priority filter; policy drop; }";

/// Generic XDP redirects with the pod's MAC, and has nobody behind it who would ask for it.
#[test]
fn a_pod_that_does_not_tell_its_mac_is_left_to_the_stack_until_it_does() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    lab.pod(1).output("nft", &[SILENCE_ARP])?;
    lab.node().ip("neigh flush all")?;
    let mut scene = Scene::waiting_for(lab, Delivery::Direct, Door::XdpGeneric, &[0])?;
    for _ in 0..20 {
        ensure!(scene.check_connection(0)? == 0, "a pod without a MAC got a connection");
    }
    let why = |maps: &serde_json::Value| {
        list(maps, "refusals").any(|it| it["why"].as_str().is_some_and(|why| why.contains("its MAC is not known yet")))
    };
    scene.agent.wait_until(why);

    scene.set_endpoints(&crate::scene::ready(&scene.lab, &[1]), &[])?;
    ensure!(LineClient::connect(scene.lab.client(0), scene.vip()).is_err(), "nobody should serve");
    let counters = scene.counters()?;
    counters.assert_some(&[Reason::EmptyPassed]);
    counters.assert_none(&[Reason::LinkNotReady]);

    scene.lab.pod(1).output("nft", &["delete table arp silent"])?;
    scene.wait_for_takers(&[1]);
    ensure!(scene.check_connection(0)? == 1, "the pod that tells its MAC is not served");
    scene.counters()?.assert_none(&[Reason::LinkNotReady]);
    Ok(())
}
