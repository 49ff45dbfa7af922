//! A pod that shuts down: it keeps what it has for as long as it lives, gets new connections when nobody else is ready, and
//! leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlb_common::Reason;
use xlb_tests::lab::{EndpointSpec, LabSpec, LineClient, Pattern, PodShape};
use xlb_userspace::maps::live::LiveMaps;
use xlb_userspace::maps::pins::PinDirectory;

use crate::datagrams::Datagrams;
use crate::scene::{Delivery, Door, Open, Scene, is_silence, list, ready};

/// Bytes of a stream that pass between two changes: more than the buffers on the way hold at first.
const STREAM_BYTES: u64 = 4_000_000;
/// Connections in which each of a few pods is met, whatever their client's ports are.
const TRIES: usize = 60;

/// Both shapes, deliveries and IP versions, each with each other at least once.
const WAYS: [(PodShape, Delivery, bool); 4] = [
    (PodShape::Routed, Delivery::Direct, false),
    (PodShape::Bridge, Delivery::Direct, true),
    (PodShape::Routed, Delivery::Stack, true),
    (PodShape::Bridge, Delivery::Stack, false),
];

#[test]
fn a_terminating_pod_keeps_its_streams_through_everything_that_happens_to_others() -> Result<()> {
    each_way(|scene| {
        let mut streams = streams(scene, &[0, 1, 2])?;
        let left = streams.remove(&1).context("no stream of pod 1")?;
        terminate(scene, &[0], &[1, 2])?;
        go_on(scene, &mut streams, &[1, 2])?;

        println!("others come, and go");
        assert_eq!(scene.add_pod()?, 3);
        terminate(scene, &[0], &[1, 2, 3])?;
        go_on(scene, &mut streams, &[1, 2, 3])?;
        scene.lab.remove_pod(1)?;
        terminate(scene, &[0], &[2, 3])?;
        go_on(scene, &mut streams, &[2, 3])?;
        left.hears_that_its_pod_is_gone();
        terminate(scene, &[0, 2], &[3])?;
        go_on(scene, &mut streams, &[3])?;

        println!("nobody else is ready, then somebody is");
        terminate(scene, &[0, 2, 3], &[])?;
        go_on(scene, &mut streams, &[0, 2, 3])?;
        assert_eq!(scene.add_pod()?, 4);
        terminate(scene, &[0, 2, 3], &[4])?;
        go_on(scene, &mut streams, &[4])?;
        scene.counters()?.assert_none(&[Reason::StaleReference]);
        Ok(())
    })
}

#[test]
fn a_pod_that_is_gone_leaves_nothing_behind() -> Result<()> {
    each_way(|scene| {
        let mut streams = streams(scene, &[0, 1])?;
        let mut lost = streams.remove(&0).context("no stream of pod 0")?;
        terminate(scene, &[0], &[1, 2])?;
        lost.read(STREAM_BYTES)?;
        assert!(mentions(scene, 0)? > 0, "its slots remember it as long as it lives");

        scene.lab.remove_pod(0)?;
        terminate(scene, &[], &[1, 2])?;
        let gone = addresses(scene, 0);
        scene.agent.wait_until(|maps| !list(maps, "backends").any(|backend| is_of(&gone, &backend["address"])));
        assert_eq!(mentions(scene, 0)?, 0);
        lost.hears_that_its_pod_is_gone();

        println!("another pod gets its address");
        scene.add_pod_again(0)?;
        terminate(scene, &[], &[0, 1, 2])?;
        go_on(scene, &mut streams, &[0, 1, 2])?;
        scene.counters()?.assert_none(&[Reason::StaleReference]);
        Ok(())
    })
}

/// Semantics 11.2: as long as it serves.
#[test]
fn a_udp_flow_stays_with_a_pod_that_serves_and_goes_on_elsewhere_with_its_next_datagram() -> Result<()> {
    each_way(|scene| {
        let mut flows: Vec<Datagrams> = (0..TRIES).map(|_| Datagrams::begin(scene)).collect::<Result<_>>()?;
        ensure!(flows.iter().any(|flow| flow.pod == 0), "no flow met pod 0");
        terminate(scene, &[0], &[1, 2])?;
        for flow in &mut flows {
            let pod = flow.pod;
            assert_eq!(flow.ask()?, pod, "a pod that serves keeps its flows");
        }

        println!("it stops serving, and still lives");
        let stopped = |ip| EndpointSpec { serving: false, ..EndpointSpec::terminating(ip) };
        publish(scene, &[0], stopped, &[1, 2])?;
        let of_pod = addresses(scene, 0);
        let is_its = |backend: &Value| backend["protocol"] == "udp" && is_of(&of_pod, &backend["address"]);
        scene.agent.wait_until(|maps| !list(maps, "backends").any(is_its));
        for flow in &mut flows {
            let before = flow.pod;
            let now = flow.ask()?;
            assert_eq!(now == before, before != 0, "a flow of pod {before} goes to pod {now}");
        }

        println!("another one is removed, and its address is given to a new pod at once");
        scene.lab.remove_pod(1)?;
        scene.add_pod_again(1)?;
        scene.agent.wait_until(|maps| !list(maps, "refusals").any(|refusal| refusal["object"] != "node"));
        scene.wait_for_takers(&[1, 2]);
        for flow in &mut flows {
            let before = flow.pod;
            let now = flow.ask()?;
            assert!(now == before || before == 1, "a flow of pod {before} goes to pod {now}");
        }
        scene.counters()?.assert_none(&[Reason::StaleReference]);
        Ok(())
    })
}

fn each_way(check: impl Fn(&mut Scene) -> Result<()>) -> Result<()> {
    for (pods, delivery, dual_stack) in WAYS {
        let mut scene = Scene::new(LabSpec { pods, dual_stack, ..LabSpec::default() }, delivery, Door::Tc)?;
        check(&mut scene).with_context(|| format!("{pods:?} pods, {delivery:?}, {:?}", scene.version))?;
    }
    Ok(())
}

/// Publishes these pods as terminating and those as ready, and waits until the right ones get new connections.
fn terminate(scene: &mut Scene, terminating: &[usize], are_ready: &[usize]) -> Result<()> {
    publish(scene, terminating, EndpointSpec::terminating, are_ready)
}

fn publish(
    scene: &mut Scene,
    others: &[usize],
    condition: impl Fn(IpAddr) -> EndpointSpec,
    are_ready: &[usize],
) -> Result<()> {
    let mut endpoints = ready(&scene.lab, are_ready);
    endpoints.extend(others.iter().flat_map(|&pod| addresses(scene, pod)).map(condition));
    scene.set_endpoints(&endpoints, if are_ready.is_empty() { others } else { are_ready })
}

/// Every stream goes on, and new connections meet exactly the `takers`.
fn go_on(scene: &Scene, streams: &mut BTreeMap<usize, Stream>, takers: &[usize]) -> Result<()> {
    for (pod, stream) in streams {
        stream.read(STREAM_BYTES).with_context(|| format!("the stream of pod {pod}"))?;
    }
    let met = (0..TRIES).map(|_| scene.check_connection(0)).collect::<Result<BTreeSet<usize>>>()?;
    assert_eq!(met, takers.iter().copied().collect());
    Ok(())
}

/// A download that has no end in a test.
struct Stream {
    connection: LineClient,
    pattern: Pattern,
}

/// One stream of each of these pods.
fn streams(scene: &Scene, pods: &[usize]) -> Result<BTreeMap<usize, Stream>> {
    let mut streams = BTreeMap::new();
    for _ in 0..TRIES {
        let Open { mut connection, pod } = scene.open(0)?;
        if pods.contains(&pod) && !streams.contains_key(&pod) {
            connection.send(&format!("DOWNLOAD {}", 1_u64 << 40))?;
            let mut stream = Stream { connection, pattern: Pattern::default() };
            stream.read(STREAM_BYTES)?;
            streams.insert(pod, stream);
        }
    }
    ensure!(streams.len() == pods.len(), "not all of {pods:?} were met");
    Ok(streams)
}

impl Stream {
    fn read(&mut self, bytes: u64) -> Result<()> {
        let bytes = bytes.min(u64::MAX - self.pattern.position());
        self.connection.receive_pattern(&mut self.pattern, bytes)
    }

    /// The answer to its next word says so. Without a word it may have nothing to tell anybody: all that it has got is acknowledged.
    fn hears_that_its_pod_is_gone(mut self) {
        let answer = self.connection.send("PING").and_then(|()| self.read(u64::MAX)).expect_err("its pod is gone");
        assert!(!is_silence(&answer), "{answer:#}");
    }
}

/// A pod's addresses.
fn addresses(scene: &Scene, pod: usize) -> Vec<IpAddr> {
    scene.lab.versions().iter().map(|&version| scene.lab.pod_address_in(version, pod)).collect()
}

/// Whether an address with a port, as JSON has it, is one of these.
fn is_of(addresses: &[IpAddr], socket: &Value) -> bool {
    let socket: Option<SocketAddr> = socket.as_str().and_then(|text| text.parse().ok());
    socket.is_some_and(|socket| addresses.contains(&socket.ip()))
}

/// How many slots of all services name a backend with the pod's address, as owner now or before. One that names a backend
/// that is not there any more is a mistake.
fn mentions(scene: &Scene, pod: usize) -> Result<usize> {
    let observed = LiveMaps::open(&PinDirectory::new(scene.lab.pin_directory()))?.observed()?;
    let addresses = addresses(scene, pod);
    let mut mentions = 0;
    for service in observed.services.values() {
        for word in observed.words(service).unwrap_or_default() {
            for owner in word.current().into_iter().chain(word.previous()) {
                let member = observed.members.get(&(service.members_base + u32::from(owner))).context("no member")?;
                let backend = observed.backends.get(&member.id()).context("no backend")?;
                let is_there = backend.is_in_use() && backend.generation == member.generation;
                ensure!(is_there, "a slot of {} names backend {} that is gone", service.name, member.id());
                mentions += usize::from(addresses.contains(&backend.socket().ip()));
            }
        }
    }
    Ok(mentions)
}
