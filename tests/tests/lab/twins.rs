//! Two VIPs lead to one port of one pod, and a client speaks to both from one port: neither hears what is the other's.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result, ensure};
use xlb_common::Reason;
use xlb_tests::lab::{LabSpec, LineClient, ServiceSpec, SliceSpec, Version, service_yaml, slice_yaml};

use crate::scene::{
    ANSWER_TIMEOUT, Delivery, Door, PORT, PORTS, Scene, TARGET_PORT, TARGET_PORTS, ready, service_name, takers,
    web_slice,
};

/// Rounds of questions, each to both VIPs at once.
const ROUNDS: usize = 100;
const CLIENT_PORT: u16 = 20_123;
const BULK_BYTES: u64 = 1_000_000;

#[test]
fn datagrams_are_answered_by_the_vip_that_was_asked() -> Result<()> {
    for (delivery, door) in [
        (Delivery::Direct, Door::Tc),
        (Delivery::Direct, Door::XdpGeneric),
        (Delivery::Direct, Door::XdpNative),
        (Delivery::Stack, Door::Tc),
        (Delivery::Stack, Door::XdpGeneric),
    ] {
        let spec = LabSpec { pod_count: 1, dual_stack: true, pod_gro: true, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        publish(&mut scene, &[0])?;
        for version in Version::ALL {
            scene.version = version;
            ask_both(&scene).with_context(|| format!("{version:?} by {delivery:?}, {door:?}"))?;
        }
        let counters = scene.counters()?;
        counters.assert_some(&[Reason::PortChanged]);
        counters.assert_none(&[Reason::PortsTaken, Reason::OtherFrontend, Reason::ReplyUnknown]);
    }
    Ok(())
}

/// One socket, and two questions before any answer: as a resolver asks two name servers.
fn ask_both(scene: &Scene) -> Result<()> {
    let vips = [0, 1].map(|vip| SocketAddr::new(scene.lab.vip_in(scene.version, vip), PORT));
    let any = if vips[0].is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = scene.lab.client(0).run(|| UdpSocket::bind(any))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    for round in 0..ROUNDS {
        let questions: Vec<(SocketAddr, String)> = vips.iter().map(|&vip| (vip, format!("{round}-{vip}"))).collect();
        for (vip, question) in &questions {
            socket.send_to(question.as_bytes(), vip)?;
        }
        let mut answers = Vec::new();
        for _ in &questions {
            let mut buffer = [0; 200];
            let (length, from) = socket.recv_from(&mut buffer).with_context(|| format!("round {round}"))?;
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            answers.push((from, text.rsplit(' ').next().unwrap_or_default().to_owned()));
        }
        let (asked, answered): (BTreeSet<_>, BTreeSet<_>) =
            (questions.into_iter().collect(), answers.into_iter().collect());
        ensure!(asked == answered, "asked {asked:?}, and heard {answered:?}");
    }
    Ok(())
}

#[test]
fn a_second_connection_of_one_port_with_one_pod_is_refused_until_the_first_has_ended() -> Result<()> {
    for (delivery, door) in
        [(Delivery::Direct, Door::Tc), (Delivery::Direct, Door::XdpNative), (Delivery::Stack, Door::Tc)]
    {
        let spec = LabSpec { pod_count: 1, pod_gro: true, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        publish(&mut scene, &[0])?;
        let mut first = connect(&scene, 0)?;
        scene.check_identity(&mut first)?;
        assert!(connect(&scene, 1).is_err(), "two connections of one port with one pod, by {delivery:?}, {door:?}");
        scene.counters()?.assert_some(&[Reason::PortInUse]);
        scene.check_identity(&mut first)?;
        first.download(BULK_BYTES)?;

        drop(first);
        let mut second = connect(&scene, 1).context("the first one has ended")?;
        scene.check_identity(&mut second)?;
        second.download(BULK_BYTES)?;
    }
    Ok(())
}

/// Each of the two pods becomes the present owner of the slots whose former owner the other one is.
#[test]
fn connections_of_one_port_with_two_pods_stay_with_them() -> Result<()> {
    for (delivery, door) in
        [(Delivery::Direct, Door::Tc), (Delivery::Direct, Door::XdpNative), (Delivery::Stack, Door::Tc)]
    {
        let spec = LabSpec { pod_count: 2, pod_gro: true, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        scene.set_endpoints(&ready(&scene.lab, &[0]), &[0])?;
        publish(&mut scene, &[1])?;
        let mut open = [connect(&scene, 0)?, connect(&scene, 1)?];
        go_on(&scene, &mut open)?;
        for pods in [[0, 1], [1, 0], [1, 1], [0, 0], [0, 1]] {
            scene.manifests.write("slice.yaml", &web_slice(&ready(&scene.lab, &pods[..1])))?;
            scene.wait_for_takers(&pods[..1]);
            publish(&mut scene, &pods[1..])?;
            go_on(&scene, &mut open).with_context(|| format!("with {pods:?} by {delivery:?}, {door:?}"))?;
        }
    }
    Ok(())
}

/// The first connection is with pod 0, the second one with pod 1; what each is told is its own.
fn go_on(scene: &Scene, open: &mut [LineClient; 2]) -> Result<()> {
    for (pod, connection) in open.iter_mut().enumerate() {
        assert_eq!(scene.check_identity(connection)?, pod);
        assert_eq!(connection.ask(&format!("secret {pod}"))?, format!("pod-{pod} secret {pod}"));
        connection.download(BULK_BYTES)?;
    }
    Ok(())
}

fn connect(scene: &Scene, vip: usize) -> Result<LineClient> {
    LineClient::connect_from_port(scene.lab.client(0), CLIENT_PORT, SocketAddrV4::new(scene.lab.vip(vip), PORT))
}

/// A Service `default/other` at VIP 1 with these pods, at the same ports as `default/web`.
pub fn publish(scene: &mut Scene, pods: &[usize]) -> Result<()> {
    let vips: Vec<_> = scene.lab.versions().iter().map(|&version| scene.lab.vip_in(version, 1)).collect();
    let (namespace, name) = ("default", "other");
    let service = ServiceSpec { namespace, name, vips: &vips, ports: &PORTS, local_policy: false, fields: &[] };
    let endpoints = ready(&scene.lab, pods);
    let slice = slice_yaml(&SliceSpec { namespace, service: name, ports: &TARGET_PORTS, endpoints: &endpoints });
    scene.manifests.write("other.yaml", &format!("{}---\n{slice}", service_yaml(&service)))?;
    let expected: Vec<(String, BTreeSet<SocketAddr>)> = scene
        .lab
        .versions()
        .iter()
        .flat_map(|&version| {
            let address = |&pod: &usize| SocketAddr::new(scene.lab.pod_address_in(version, pod), TARGET_PORT);
            let sockets: BTreeSet<SocketAddr> = pods.iter().map(address).collect();
            ["http", "udp/udp"].map(|port| (service_name(&format!("default/other:{port}"), version), sockets.clone()))
        })
        .collect();
    scene.agent.wait_until(|maps| expected.iter().all(|(service, sockets)| takers(maps, service) == *sockets));
    Ok(())
}
