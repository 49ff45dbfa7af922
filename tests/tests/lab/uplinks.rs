//! Two uplinks: the node's default route leads over eth0, and clients come by eth1. Then uplinks and routers change.

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_tests::lab::{Capture, Frame, Lab, LabSpec, LineClient, Version, wait_for};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, Scene, list};

const TRIES: usize = 10;
const BULK_BYTES: u64 = 1_000_000;
const STRICT: [(&str, &str); 2] = [("net.ipv4.conf.uplink0.rp_filter", "1"), ("net.ipv4.conf.uplink1.rp_filter", "1")];

/// The router drops what comes from a VIP by a link over which it does not send to it.
#[test]
fn every_reply_leaves_by_the_uplink_that_the_client_came_by() -> Result<()> {
    let ways = [
        (Delivery::Direct, Door::Tc),
        (Delivery::Direct, Door::XdpNative),
        (Delivery::Direct, Door::XdpGeneric),
        (Delivery::Stack, Door::Tc),
        (Delivery::Stack, Door::XdpGeneric),
    ];
    for (delivery, door) in ways {
        let mut scene = scene(delivery, door, true)?;
        for version in Version::ALL {
            scene.version = version;
            scene.wait_for_takers(&[0, 1, 2]);
            let captures = [0, 1].map(|uplink| Capture::start(scene.lab.node(), &scene.lab.uplink(uplink).node_device));
            for _ in 0..TRIES {
                scene.check_connection(0)?;
                scene.check_datagram(0)?;
            }
            LineClient::connect(scene.lab.client(0), scene.vip())?.download(BULK_BYTES)?;
            let [first, second] = captures.map(|capture| capture?.stop());
            assert_eq!(replies(&scene, &first?), 0, "{delivery:?}, {door:?}, {version:?}");
            assert!(replies(&scene, &second?) > TRIES);
        }
    }
    Ok(())
}

#[test]
fn a_connection_goes_on_when_another_router_takes_the_gateways_place() -> Result<()> {
    let scene = scene(Delivery::Direct, Door::Tc, false)?;
    let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
    scene.check_identity(&mut open)?;
    // The router asks for the node anew, as one does that takes over, and so tells its own MAC.
    scene.lab.router().ip("link set uplink1 address 02:00:00:00:00:77\nneigh flush dev uplink1")?;
    scene.check_identity(&mut open)?;
    open.download(BULK_BYTES)
}

#[test]
fn a_connection_goes_on_by_the_other_uplink_when_its_own_goes_down() -> Result<()> {
    for delivery in Delivery::ALL {
        let scene = scene(delivery, Door::Tc, false)?;
        let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
        scene.check_identity(&mut open)?;
        scene.lab.router().ip("link set uplink1 down")?;
        route_vips_over(&scene.lab, 0)?;
        scene.check_identity(&mut open)?;
        open.download(BULK_BYTES)?;
        scene.check_connection(0)?;
    }
    Ok(())
}

#[test]
fn a_connection_goes_on_by_an_uplink_that_is_made_anew() -> Result<()> {
    let mut scene = scene(Delivery::Direct, Door::Tc, false)?;
    let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
    scene.check_identity(&mut open)?;
    let uplink = scene.lab.uplink(1).clone();
    scene.lab.node().ip("link del eth1")?;
    let is_refused = |maps: &serde_json::Value| list(maps, "refusals").any(|it| it["object"] == "uplink eth1");
    scene.agent.wait_until(is_refused);
    scene.lab.router().ip(&format!(
        "link add uplink1 type veth peer name eth1 netns {}\naddress add {}/29 dev uplink1\nlink set uplink1 up",
        scene.lab.node().name(),
        uplink.router_address,
    ))?;
    scene.lab.node().ip(&format!("address add {}/29 dev eth1\nlink set eth1 up", uplink.node_address))?;
    scene.agent.wait_until(|maps| !is_refused(maps));
    route_vips_over(&scene.lab, 1)?;
    scene.check_identity(&mut open)?;
    open.download(BULK_BYTES)
}

#[test]
fn a_strict_filter_that_drops_what_is_for_mode_stack_is_named_until_it_is_not() -> Result<()> {
    let lab = Lab::new(LabSpec { uplinks: 2, ..LabSpec::default() })?;
    let mut scene = Scene::on(lab, Delivery::Stack, Door::Tc, &[])?;
    let is_named = |maps: &serde_json::Value| {
        let mut why = list(maps, "refusals").filter_map(|refusal| refusal["why"].as_str());
        why.any(|why| why.contains("sysctl -w net.ipv4.conf.eth1.rp_filter=2"))
    };
    scene.agent.wait_until(is_named);
    route_vips_over(&scene.lab, 1)?;
    assert!(scene.check_connection(0).is_err(), "the warning is wrong");
    scene.lab.node().sysctl(&[("net.ipv4.conf.eth1.rp_filter", "2")])?;
    scene.agent.wait_until(|maps| !is_named(maps));
    wait_for(ANSWER_TIMEOUT, || scene.check_connection(0).ok()).context("still not served")?;
    scene.counters()?.assert_none(&[Reason::ReplyUplinkGone]);
    Ok(())
}

/// Clients come by eth1; the router's filters are strict.
fn scene(delivery: Delivery, door: Door, dual_stack: bool) -> Result<Scene> {
    let lab = Lab::new(LabSpec { uplinks: 2, dual_stack, pod_gro: true, ..LabSpec::default() })?;
    route_vips_over(&lab, 1)?;
    lab.router().sysctl(&STRICT)?;
    if delivery == Delivery::Stack {
        lab.node().sysctl(&[("net.ipv4.conf.eth1.rp_filter", "2")])?;
    }
    Scene::on(lab, delivery, door, &[])
}

fn route_vips_over(lab: &Lab, uplink: usize) -> Result<()> {
    let to = lab.uplink(uplink);
    lab.router().ip(&format!("route replace 203.0.113.0/24 via {}", to.node_address))?;
    if lab.spec().dual_stack {
        lab.router().ip(&format!("route replace 2001:db8:113::/64 via {}", to.node_address_v6))?;
    }
    Ok(())
}

/// Packets that went out from the VIP.
fn replies(scene: &Scene, frames: &[Frame]) -> usize {
    let (source, vip) = match scene.vip().ip() {
        std::net::IpAddr::V4(vip) => (26..30, vip.octets().to_vec()),
        std::net::IpAddr::V6(vip) => (22..38, vip.octets().to_vec()),
    };
    let is_reply = |frame: &&Frame| frame.is_outgoing && frame.bytes.get(source.clone()) == Some(&vip[..]);
    frames.iter().filter(is_reply).count()
}
