//! `loadBalancerSourceRanges`: whom a Service is open to, and that a change cuts no connection.

use std::io::{self, ErrorKind};

use anyhow::Result;
use xlb_common::Reason;
use xlb_tests::lab::{LabSpec, LineClient, UdpClient, Version, connect, udp_ask};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, SILENCE, Scene, list};

/// The network of all clients, in both versions.
const EVERYBODY: [&str; 2] = ["198.51.100.0/24", "2001:db8:100::/64"];

#[test]
fn decide_who_may_begin_and_cut_nothing() -> Result<()> {
    let rows = [(Delivery::Direct, Door::Tc), (Delivery::Stack, Door::Tc), (Delivery::Direct, Door::XdpNative)];
    for (delivery, door) in rows {
        let spec = LabSpec { clients: 2, dual_stack: true, pod_gro: true, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        for version in Version::ALL {
            println!("{version:?}");
            scene.version = version;
            check(&mut scene)?;
        }
        scene.counters()?.assert_some(&[Reason::SourceNotAllowed]);
    }
    Ok(())
}

fn check(scene: &mut Scene) -> Result<()> {
    open_to(scene, &EVERYBODY)?;
    let mut talks = [talk(scene, 0)?, talk(scene, 1)?];

    let first = Version::ALL.map(|version| scene.lab.client_address_in(version, 0));
    let first = first.map(|address| format!("{address}/{}", if address.is_ipv6() { 128 } else { 32 }));
    open_to(scene, &[&first[0], &first[1]])?;
    scene.check_connection(0)?;
    scene.check_datagram(0)?;
    assert_shut(scene, 1);
    go_on(scene, &mut talks)?;

    open_to(scene, &[])?;
    for client in [0, 1] {
        scene.check_connection(client)?;
        scene.check_datagram(client)?;
    }
    go_on(scene, &mut talks)
}

/// Publishes the ranges, and waits until they are in force; none: open to all.
fn open_to(scene: &mut Scene, ranges: &[&str]) -> Result<()> {
    let field = format!("loadBalancerSourceRanges: {ranges:?}");
    let fields: Vec<&str> = if ranges.is_empty() { Vec::new() } else { vec![&field] };
    scene.set_service(false, &fields)?;
    scene.agent.wait_until(|maps| {
        let services: Vec<_> = list(maps, "services").collect();
        let in_force =
            |range: &&str| services.iter().any(|service| list(&service["sources"], "ranges").any(|it| it == range));
        match ranges {
            [] => services.iter().all(|service| service["sources"].is_null()),
            _ => {
                services.iter().all(|service| list(&service["sources"], "ranges").count() == 1)
                    && ranges.iter().all(in_force)
            }
        }
    });
    Ok(())
}

/// A connection and a UDP socket of one client, both in use.
fn talk(scene: &Scene, client: usize) -> Result<(LineClient, UdpClient)> {
    let mut tcp = LineClient::connect(scene.lab.client(client), scene.vip())?;
    scene.check_identity(&mut tcp)?;
    let udp = UdpClient::connect(scene.lab.client(client), scene.vip())?;
    udp.ask("hello", ANSWER_TIMEOUT)?;
    Ok((tcp, udp))
}

fn go_on(scene: &Scene, talks: &mut [(LineClient, UdpClient)]) -> Result<()> {
    for (tcp, udp) in talks {
        scene.check_identity(tcp)?;
        udp.ask("still there?", ANSWER_TIMEOUT)?;
    }
    Ok(())
}

/// The client hears nothing, as a firewall has it.
fn assert_shut(scene: &Scene, client: usize) {
    let (client, vip) = (scene.lab.client(client), scene.vip());
    let errors = [connect(client, vip).err(), udp_ask(client, vip, "hello", SILENCE).err()];
    let kinds = errors.map(|error| Some(error?.root_cause().downcast_ref::<io::Error>()?.kind()));
    assert_eq!(kinds, [Some(ErrorKind::TimedOut), Some(ErrorKind::WouldBlock)]);
}
