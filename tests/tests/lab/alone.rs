//! Entries of connections are lost, and pods speak: with `--pod-ips cluster-only` a pod's only frontend is enough.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData};
use xlb_common::Reason;
use xlb_tests::lab::{Lab, LabSpec, LineClient};
use xlb_userspace::maps::pins::PinDirectory;

use crate::scene::{Delivery, Door, PORT, Scene, TARGET_PORT};
use crate::twins::publish;

const BULK_BYTES: u64 = 1_000_000;
/// The flow maps of IPv4 and TCP.
const FLOW_MAPS: [&str; 2] = ["FLOWS_V4", "PENDING_V4"];

#[test]
fn a_connection_whose_entry_is_lost_goes_on_by_its_pods_only_frontend() -> Result<()> {
    for (delivery, door) in
        [(Delivery::Direct, Door::Tc), (Delivery::Direct, Door::XdpGeneric), (Delivery::Stack, Door::Tc)]
    {
        let scene = scene(delivery, door, &[])?;
        let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
        scene.check_identity(&mut open)?;
        forget_flows(&scene)?;
        scene.check_identity(&mut open).with_context(|| format!("by {delivery:?}, {door:?}"))?;
        open.download(BULK_BYTES)?;
        scene.check_connection(0)?;
        let counters = scene.counters()?;
        counters.assert_some(&[Reason::RepliedAlone]);
        counters.assert_none(&[Reason::ReplyUnknown]);
    }
    Ok(())
}

#[test]
fn where_pods_are_routed_or_have_two_frontends_nothing_leaves_without_an_entry() -> Result<()> {
    for delivery in Delivery::ALL {
        let routed = Scene::new(LabSpec { pod_count: 1, ..LabSpec::default() }, delivery, Door::Tc)?;
        let mut shared = scene(delivery, Door::Tc, &[])?;
        publish(&mut shared, &[0])?;
        for scene in [routed, shared] {
            let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
            scene.check_identity(&mut open)?;
            forget_flows(&scene)?;
            assert!(scene.check_identity(&mut open).is_err(), "an answer came by {delivery:?}");
            let counters = scene.counters()?;
            counters.assert_some(&[Reason::ReplyUnknown]);
            counters.assert_none(&[Reason::RepliedAlone]);
        }
    }
    Ok(())
}

#[test]
fn a_port_that_loses_its_second_frontend_still_needs_entries() -> Result<()> {
    let mut scene = scene(Delivery::Direct, Door::Tc, &[])?;
    publish(&mut scene, &[0])?;
    let other = SocketAddrV4::new(scene.lab.vip(1), PORT);
    let mut open = LineClient::connect(scene.lab.client(0), other)?;
    scene.check_identity(&mut open)?;
    scene.manifests.remove("other.yaml")?;
    scene.agent.wait_until(|maps| !maps["frontends"].to_string().contains(&other.ip().to_string()));
    forget_flows(&scene)?;
    assert!(scene.check_identity(&mut open).is_err(), "it would have been the other VIP's answer");
    scene.counters()?.assert_none(&[Reason::RepliedAlone]);
    Ok(())
}

/// What the operator's word means: a client of the cluster may address pods, and any other one hears of the VIP.
#[test]
fn clients_of_the_cluster_address_pods_and_others_must_not() -> Result<()> {
    for delivery in Delivery::ALL {
        let lab = lab()?;
        let inside = format!("{}/32", lab.client_address(1));
        lab.route_pods_from_router()?;
        let scene = on(lab, delivery, Door::Tc, &[&inside])?;
        let pod = SocketAddr::new(scene.pod_address(0), TARGET_PORT);
        scene.check_identity(&mut LineClient::connect(scene.lab.client(1), pod)?)?;
        scene.counters()?.assert_none(&[Reason::RepliedAlone]);
        assert!(LineClient::connect(scene.lab.client(0), pod).and_then(|mut open| open.identity()).is_err());
        scene.counters()?.assert_some(&[Reason::RepliedAlone]);
    }
    Ok(())
}

fn lab() -> Result<Lab> {
    Lab::new(LabSpec { clients: 2, pod_count: 1, pod_gro: true, ..LabSpec::default() })
}

fn scene(delivery: Delivery, door: Door, further: &[&str]) -> Result<Scene> {
    on(lab()?, delivery, door, further)
}

/// The cluster's networks are those of the pods, of the node, and these.
fn on(lab: Lab, delivery: Delivery, door: Door, further: &[&str]) -> Result<Scene> {
    let node = format!("{}/32", lab.uplink(0).node_address);
    let networks = [&[lab.pod_network().as_str(), &node][..], further].concat().join(",");
    Scene::on(lab, delivery, door, &["--pod-ips", "cluster-only", "--cluster-cidrs", &networks])
}

/// What a flood of real connections, or an agent of another version, would do to the entries.
fn forget_flows(scene: &Scene) -> Result<()> {
    // What the client has acknowledged late is not to be taken for an answer.
    std::thread::sleep(Duration::from_millis(100));
    let pins = PinDirectory::new(scene.lab.pin_directory());
    for name in FLOW_MAPS {
        let map = aya::maps::Map::from_map_data(MapData::from_pin(pins.map(name))?)?;
        let mut map: HashMap<_, [u8; 12], [u8; 64]> = map.try_into()?;
        let keys: Vec<[u8; 12]> = map.keys().collect::<Result<_, _>>()?;
        for key in &keys {
            map.remove(key).with_context(|| format!("forgetting a flow of {name}"))?;
        }
    }
    Ok(())
}
