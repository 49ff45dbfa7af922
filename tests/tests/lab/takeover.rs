//! A Service replaced by another at the same address, under open connections: each stays with its pod.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use xlb_tests::lab::{LabSpec, ServiceSpec, SliceSpec, Version, service_yaml, slice_yaml};

use crate::scene::{
    Delivery, Door, Open, PORTS, Scene, TARGET_PORT, TARGET_PORTS, ready, service_name, takers, web, web_slice,
};

const CONNECTIONS: usize = 40;
/// Pods of `default/web`, and those of the Service that takes its addresses.
const WEB: [usize; 2] = [0, 1];
const NEXT: [usize; 2] = [1, 2];

#[test]
fn breaks_no_connection_of_either_version() -> Result<()> {
    for (delivery, door) in [(Delivery::Direct, Door::Tc), (Delivery::Stack, Door::Tc)] {
        let spec = LabSpec { dual_stack: true, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        check(&mut scene).with_context(|| format!("{delivery:?}"))?;
    }
    Ok(())
}

fn check(scene: &mut Scene) -> Result<()> {
    scene.manifests.write("slice.yaml", &web_slice(&ready(&scene.lab, &WEB)))?;
    wait_for_takers(scene, "web", &WEB);
    let mut open = Vec::new();
    join(scene, &mut open, &WEB)?;

    println!("another Service asks for the addresses, and is first by name");
    publish_next(scene)?;
    wait_for_takers(scene, "next", &NEXT);
    go_on(scene, &mut open)?;
    join(scene, &mut open, &NEXT)?;

    println!("the first one goes");
    for name in ["web.yaml", "slice.yaml"] {
        scene.manifests.remove(name)?;
    }
    wait_for_takers(scene, "web", &[]);
    go_on(scene, &mut open)?;

    println!("it comes back, and the other one goes");
    scene.manifests.write("slice.yaml", &web_slice(&ready(&scene.lab, &[0])))?;
    scene.manifests.write("web.yaml", &web(&scene.lab, false, &[]))?;
    for name in ["next.yaml", "next-slice.yaml"] {
        scene.manifests.remove(name)?;
    }
    wait_for_takers(scene, "next", &[]);
    wait_for_takers(scene, "web", &[0]);
    go_on(scene, &mut open)?;
    join(scene, &mut open, &[0])
}

fn publish_next(scene: &Scene) -> Result<()> {
    let vips: Vec<_> = scene.lab.versions().iter().map(|&version| scene.lab.vip_in(version, 0)).collect();
    let (namespace, name) = ("default", "next");
    let service =
        service_yaml(&ServiceSpec { namespace, name, vips: &vips, ports: &PORTS, local_policy: false, fields: &[] });
    let endpoints = ready(&scene.lab, &NEXT);
    let slice = slice_yaml(&SliceSpec { namespace, service: name, ports: &TARGET_PORTS, endpoints: &endpoints });
    scene.manifests.write("next-slice.yaml", &slice)?;
    scene.manifests.write("next.yaml", &service)
}

/// Waits until exactly these pods get new connections of that Service, in each version.
fn wait_for_takers(scene: &mut Scene, name: &str, pods: &[usize]) {
    let expected: Vec<(String, BTreeSet<SocketAddr>)> = Version::ALL
        .map(|version| {
            let address = |&pod: &usize| SocketAddr::new(scene.lab.pod_address_in(version, pod), TARGET_PORT);
            (service_name(&format!("default/{name}:http"), version), pods.iter().map(address).collect())
        })
        .into();
    scene.agent.wait_until(|maps| expected.iter().all(|(service, sockets)| takers(maps, service) == *sockets));
}

/// New connections of both versions, which meet these pods only.
fn join(scene: &mut Scene, open: &mut Vec<Open>, pods: &[usize]) -> Result<()> {
    for number in 0..CONNECTIONS {
        scene.version = Version::ALL[number % Version::ALL.len()];
        let new = scene.open(0)?;
        assert!(pods.contains(&new.pod), "pod {} gets a new connection", new.pod);
        open.push(new);
    }
    Ok(())
}

fn go_on(scene: &mut Scene, open: &mut [Open]) -> Result<()> {
    for Open { connection, pod } in open {
        scene.version = if connection.local_address()?.is_ipv4() { Version::V4 } else { Version::V6 };
        let found = scene.check_identity(connection).with_context(|| format!("a connection with pod {pod}"))?;
        assert_eq!(found, *pod);
    }
    Ok(())
}
