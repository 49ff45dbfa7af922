//! Pods whose links vanish or go down while the API still calls them ready: the kernel's word counts.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xlb_common::Reason;
use xlb_tests::lab::{EndpointSpec, LabSpec, PodShape, wait_for};
use xlb_userspace::maps::live::LiveMaps;
use xlb_userspace::maps::pins::PinDirectory;
use xlb_userspace::plan::Observed;

use crate::datagrams::Datagrams;
use crate::scene::{Delivery, Door, Open, Scene, is_reset, list, ready};

/// Connections in which each of three pods is met, whatever their client's ports are.
const TRIES: usize = 60;
/// TCP ports of the Service, in each of at most two IP versions.
const SERVICES: usize = 4;
/// For what takes milliseconds on an idle machine.
const LONG: Duration = Duration::from_secs(60);

/// Both shapes, deliveries and IP versions, and native XDP.
const WAYS: [(PodShape, Delivery, bool, Door); 5] = [
    (PodShape::Routed, Delivery::Direct, false, Door::Tc),
    (PodShape::Bridge, Delivery::Direct, true, Door::Tc),
    (PodShape::Routed, Delivery::Stack, true, Door::Tc),
    (PodShape::Bridge, Delivery::Stack, false, Door::Tc),
    (PodShape::Routed, Delivery::Direct, false, Door::XdpNative),
];

/// How a pod's link goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Hosts,
    Pods,
}

#[test]
fn a_pod_whose_link_vanished_gets_nothing_new_and_its_clients_hear_of_it() -> Result<()> {
    each_way(|scene, end| {
        let (mut held, lost) = (hold(scene)?, scene.pod_address(0).to_string());
        let mut flows: Vec<Datagrams> = (0..TRIES).map(|_| Datagrams::begin(scene)).collect::<Result<_>>()?;
        ensure!(flows.iter().any(|flow| flow.pod == 0), "no flow met pod 0");

        let device = scene.lab.pod_host_end(0);
        let took = until_left(scene, |scene| match end {
            End::Hosts => scene.lab.node().ip(&format!("link del {device}")),
            End::Pods => scene.lab.pod(0).ip("link del eth0"),
        })?;
        println!("its link is deleted: nobody new after {took:?}");
        assert_eq!(met(scene)?, [1, 2].into());
        for flow in &mut flows {
            let before = flow.pod;
            let now = flow.ask()?;
            assert!(now == before || before == 0, "a flow of pod {before} goes to pod {now}");
        }
        for Open { connection, pod } in &mut held {
            let answer = connection.identity();
            match pod {
                0 => assert!(answer.as_ref().is_err_and(is_reset), "pod 0 is gone, and its client gets {answer:?}"),
                pod => assert_eq!(answer?.server, format!("pod-{pod}")),
            }
        }
        scene.agent.wait_until(|maps| refusal(maps, &lost).is_some_and(|why| why.contains("not reachable")));
        scene.counters()?.assert_none(&[Reason::StaleReference]);
        Ok(())
    })
}

/// The false alarm: it comes back as the one it was.
#[test]
fn a_link_that_is_down_gets_nothing_new_and_all_that_it_had_when_it_is_up_again() -> Result<()> {
    each_way(|scene, end| {
        let (mut held, lost) = (hold(scene)?, scene.pod_address(0).to_string());
        let before = (backends(scene)?, owners(&observed(scene)?));
        let took = until_left(scene, |scene| match end {
            End::Hosts => scene.lab.node().ip(&format!("link set {} down", scene.lab.pod_host_end(0))),
            End::Pods => scene.lab.pod(0).ip("link set eth0 down"),
        })?;
        println!("its link is down: nobody new after {took:?}");
        assert_eq!(met(scene)?, [1, 2].into());
        scene.agent.wait_until(|maps| refusal(maps, &lost).is_some_and(|why| why.contains("does not carry")));
        for Open { connection, pod } in &mut held {
            match pod {
                0 => connection.send("WHOAMI")?,
                pod => assert_eq!(connection.identity()?.server, format!("pod-{pod}")),
            }
        }
        // UDP does not wait.
        assert_eq!(met_by_datagrams(scene)?, [1, 2].into());

        scene.lab.reconnect_pod(0)?;
        scene.wait_for_takers(&[0, 1, 2]);
        scene.agent.wait_until(|maps| refusal(maps, &lost).is_none());
        for Open { connection, pod } in held.iter_mut().filter(|held| held.pod == 0) {
            // What was sent meanwhile comes again after a pause that has doubled some times.
            connection.stream().set_read_timeout(Some(LONG))?;
            assert_eq!(connection.receive()?.split(' ').next(), Some(format!("pod-{pod}").as_str()));
        }
        assert_eq!(backends(scene)?, before.0);
        let moved = owners(&observed(scene)?).iter().zip(&before.1).filter(|(now, before)| now != before).count();
        // Slots do not divide by three: of the one that is left over those have the first claim who did not lose it.
        assert!(moved <= SERVICES, "{moved} slots have other owners than before");
        assert_eq!(met(scene)?, [0, 1, 2].into());
        scene.counters()?.assert_none(&[Reason::StaleReference]);
        Ok(())
    })
}

/// The one that shuts down is better than the one that cannot be reached.
#[test]
fn a_terminating_pod_gets_new_connections_when_the_last_ready_one_of_the_node_is_cut_off() -> Result<()> {
    let mut scene = Scene::new(LabSpec { pod_count: 2, ..LabSpec::default() }, Delivery::Direct, Door::Tc)?;
    scene.set_service(true, &[])?;
    let terminating = EndpointSpec::terminating(scene.pod_address(1));
    scene.set_endpoints(&[&ready(&scene.lab, &[0])[..], &[terminating]].concat(), &[0])?;
    scene.lab.node().ip(&format!("link set {} down", scene.lab.pod_host_end(0)))?;
    scene.wait_for_takers(&[1]);
    assert_eq!(scene.check_connection(0)?, 1);
    scene.lab.reconnect_pod(0)?;
    scene.wait_for_takers(&[0]);
    assert_eq!(scene.check_connection(0)?, 0);
    Ok(())
}

fn each_way(check: impl Fn(&mut Scene, End) -> Result<()>) -> Result<()> {
    for ((pods, delivery, dual_stack, door), end) in WAYS.into_iter().zip([End::Hosts, End::Pods].into_iter().cycle()) {
        let spec = LabSpec { pods, dual_stack, pod_gro: door == Door::XdpNative, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        check(&mut scene, end).with_context(|| format!("{pods:?} pods, {delivery:?}, {door:?}, {end:?} end"))?;
    }
    Ok(())
}

fn hold(scene: &Scene) -> Result<Vec<Open>> {
    let held: Vec<Open> = (0..TRIES).map(|_| scene.open(0)).collect::<Result<_>>()?;
    ensure!((0..3).all(|pod| held.iter().any(|held| held.pod == pod)), "not every pod was met");
    Ok(held)
}

fn met(scene: &Scene) -> Result<BTreeSet<usize>> {
    (0..TRIES).map(|_| scene.check_connection(0)).collect()
}

fn met_by_datagrams(scene: &Scene) -> Result<BTreeSet<usize>> {
    (0..TRIES).map(|_| scene.check_datagram(0)).collect()
}

/// Cuts pod 0 off, and says how long it owned slots after that. Looking takes some milliseconds, too.
fn until_left(scene: &Scene, cut: impl FnOnce(&Scene) -> Result<()>) -> Result<Duration> {
    let pod = scene.pod_address(0);
    let maps = open(scene)?;
    let owns = |observed: &Observed| owners(observed).iter().flatten().any(|owner| owner.ip() == pod);
    ensure!(owns(&maps.observed()?), "pod 0 owns no slots");
    let begun = Instant::now();
    cut(scene)?;
    let left = wait_for(LONG, || maps.observed().ok().filter(|observed| !owns(observed)));
    left.with_context(|| format!("pod 0 still owns slots after {LONG:?}"))?;
    Ok(begun.elapsed())
}

fn open(scene: &Scene) -> Result<LiveMaps> {
    LiveMaps::open(&PinDirectory::new(scene.lab.pin_directory()))
}

fn observed(scene: &Scene) -> Result<Observed> {
    open(scene)?.observed()
}

/// The owners of all slots of the TCP services that clients begin.
fn owners(observed: &Observed) -> Vec<Option<SocketAddr>> {
    let services = observed.services.values().filter(|service| !service.name.contains("/udp"));
    let slots = services.flat_map(|service| {
        let owner = |local: u8| {
            let member = observed.members.get(&(service.members_base + u32::from(local)))?;
            Some(observed.backends.get(&member.id())?.socket())
        };
        let words = observed.words(service).unwrap_or_default();
        words.iter().map(move |word| word.current().and_then(owner))
    });
    slots.collect()
}

/// What tells TCP backends from each other: their ids and generations.
fn backends(scene: &Scene) -> Result<Value> {
    let maps = scene.agent.inspect()?;
    let tcp = list(&maps, "backends").filter(|backend| backend["protocol"] == "tcp");
    Ok(tcp.map(|backend| json!([backend["id"], backend["address"], backend["generation"]])).collect())
}

fn refusal<'a>(maps: &'a Value, pod: &str) -> Option<&'a str> {
    let about = |refusal: &&Value| refusal["object"].as_str().is_some_and(|object| object.contains(pod));
    list(maps, "refusals").find(about).and_then(|refusal| refusal["why"].as_str())
}
