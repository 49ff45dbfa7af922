//! An open connection stays with its pod while pods come, drain and go, for as long as its own pod lives.

use anyhow::{Context, Result, ensure};
use xlb_tests::lab::{EndpointSpec, Lab, LabSpec, LineClient, PodShape};

use crate::scene::{Delivery, Door, Scene, is_silence, pod_number};

/// Connections that are open before the first change.
const CONNECTIONS: usize = 200;
/// Connections that join after each change.
const NEWCOMERS: usize = 30;

/// What the cluster says of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Ready,
    NotReady,
    Terminating,
}
use Condition::{NotReady, Ready, Terminating};

/// A change to the endpoints, and who gets new connections after it.
struct Change {
    what: &'static str,
    endpoints: &'static [(usize, Condition)],
    takers: &'static [usize],
}

const CHANGES: [Change; 5] = [
    Change {
        what: "two pods are added",
        endpoints: &[(0, Ready), (1, Ready), (2, Ready), (3, Ready), (4, Ready)],
        takers: &[0, 1, 2, 3, 4],
    },
    Change {
        what: "a pod terminates",
        endpoints: &[(0, Terminating), (1, Ready), (2, Ready), (3, Ready), (4, Ready)],
        takers: &[1, 2, 3, 4],
    },
    Change {
        what: "a pod leaves the slice and lives on",
        endpoints: &[(0, Terminating), (2, Ready), (3, Ready), (4, Ready)],
        takers: &[2, 3, 4],
    },
    Change {
        what: "a pod is not ready",
        endpoints: &[(0, Terminating), (2, NotReady), (3, Ready), (4, Ready)],
        takers: &[3, 4],
    },
    Change {
        what: "it is ready again",
        endpoints: &[(0, Terminating), (2, Ready), (3, Ready), (4, Ready)],
        takers: &[2, 3, 4],
    },
];

/// The pod that really goes in the end, and what is left.
const REMOVED: usize = 3;
const LAST: Change =
    Change { what: "a pod is removed", endpoints: &[(0, Terminating), (2, Ready), (4, Ready)], takers: &[2, 4] };

#[test]
fn stay_with_their_pods_delivered_directly() -> Result<()> {
    check(PodShape::Routed, Delivery::Direct, Door::Tc)
}

#[test]
fn stay_with_their_pods_delivered_directly_on_a_bridge() -> Result<()> {
    check(PodShape::Bridge, Delivery::Direct, Door::Tc)
}

#[test]
fn stay_with_their_pods_delivered_directly_by_native_xdp() -> Result<()> {
    check(PodShape::Routed, Delivery::Direct, Door::XdpNative)
}

#[test]
fn stay_with_their_pods_through_the_stack() -> Result<()> {
    check(PodShape::Routed, Delivery::Stack, Door::Tc)
}

#[test]
fn stay_with_their_pods_through_the_stack_on_a_bridge() -> Result<()> {
    check(PodShape::Bridge, Delivery::Stack, Door::Tc)
}

#[test]
fn over_ipv6_stay_with_their_pods_delivered_directly() -> Result<()> {
    check_in(LabSpec { dual_stack: true, ..LabSpec::default() }, Delivery::Direct, Door::Tc)
}

#[test]
fn over_ipv6_stay_with_their_pods_through_the_stack_on_a_bridge() -> Result<()> {
    check_in(LabSpec { pods: PodShape::Bridge, dual_stack: true, ..LabSpec::default() }, Delivery::Stack, Door::Tc)
}

fn check(pods: PodShape, delivery: Delivery, door: Door) -> Result<()> {
    check_in(LabSpec { pods, pod_gro: door == Door::XdpNative, ..LabSpec::default() }, delivery, door)
}

/// What came through xlb is told from what the host's stack may have.
#[test]
fn stay_with_their_pods_while_their_frontends_are_handed_over() -> Result<()> {
    check_on(Scene::on(Lab::new(LabSpec::default())?, Delivery::Direct, Door::Tc, &["--handover", "1h"])?)
}

fn check_in(spec: LabSpec, delivery: Delivery, door: Door) -> Result<()> {
    check_on(Scene::new(spec, delivery, door)?)
}

fn check_on(mut scene: Scene) -> Result<()> {
    let mut talks = Vec::new();
    join(&scene, &mut talks, CONNECTIONS, &[0, 1, 2])?;
    speak(&mut talks, 0)?;
    for (change, round) in CHANGES.iter().zip(1..) {
        println!("{}", change.what);
        make(&mut scene, change)?;
        speak(&mut talks, round).with_context(|| change.what)?;
        join(&scene, &mut talks, NEWCOMERS, change.takers).with_context(|| change.what)?;
    }
    scene.lab.remove_pod(REMOVED)?;
    make(&mut scene, &LAST)?;
    let (lost, mut kept): (Vec<_>, Vec<_>) = talks.into_iter().partition(|talk| talk.pod == REMOVED);
    speak(&mut kept, usize::MAX).with_context(|| LAST.what)?;
    ensure!(!lost.is_empty(), "no connection met the pod that was removed");
    for mut talk in lost {
        let end = talk.speak().expect_err("its pod is gone");
        assert!(!is_silence(&end), "pod {REMOVED} is gone, and its client waits: {end:#}");
    }
    join(&scene, &mut kept, NEWCOMERS, LAST.takers)
}

fn make(scene: &mut Scene, change: &Change) -> Result<()> {
    while scene.lab.pods().last() < change.takers.last().copied() {
        scene.add_pod()?;
    }
    let endpoint = |&(pod, condition): &(usize, Condition)| {
        let ip = scene.pod_address(pod);
        match condition {
            Ready => EndpointSpec::ready(ip),
            NotReady => EndpointSpec { ready: false, serving: false, ..EndpointSpec::ready(ip) },
            Terminating => EndpointSpec::terminating(ip),
        }
    };
    let endpoints: Vec<EndpointSpec> = change.endpoints.iter().map(endpoint).collect();
    scene.set_endpoints(&endpoints, change.takers)
}

/// An open connection.
struct Talk {
    connection: LineClient,
    /// The pod that accepted it.
    pod: usize,
    /// Whether the pod's greeting is still unread.
    is_greeting_due: bool,
    /// Silent before this round.
    first_round: usize,
}

/// Opens connections, to pods that speak first and to pods that wait in turn. Some speak at once, some only after one
/// or more of the changes.
fn join(scene: &Scene, talks: &mut Vec<Talk>, count: usize, takers: &[usize]) -> Result<()> {
    for number in 0..count {
        let is_greeting_due = number % 2 == 0;
        let to = if is_greeting_due { scene.banner_vip() } else { scene.vip() };
        let connection = LineClient::connect(scene.lab.client(0), to)?;
        let pod = scene.pod_of(&connection)?;
        assert!(takers.contains(&pod), "pod {pod} takes no new connections");
        talks.push(Talk { connection, pod, is_greeting_due, first_round: number / 2 % (CHANGES.len() + 2) });
    }
    Ok(())
}

/// Everyone whose silence is over has a word with its own pod.
fn speak(talks: &mut [Talk], round: usize) -> Result<()> {
    let due = talks.iter_mut().filter(|talk| talk.first_round <= round);
    due.enumerate().try_for_each(|(number, talk)| {
        talk.speak().with_context(|| format!("connection {number} with pod {}, round {round}", talk.pod))
    })
}

impl Talk {
    fn speak(&mut self) -> Result<()> {
        let identity = match self.is_greeting_due {
            true => self.connection.greeting()?,
            false => self.connection.identity()?,
        };
        self.is_greeting_due = false;
        ensure!(pod_number(&identity.server)? == self.pod, "{} answers", identity.server);
        ensure!(identity.peer == self.connection.local_address()?, "the pod sees {}", identity.peer);
        let answer = self.connection.ask("still there?")?;
        ensure!(answer == format!("pod-{} still there?", self.pod), "{answer}");
        Ok(())
    }
}
