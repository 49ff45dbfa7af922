//! A dataplane of the version before becomes one of this version, under traffic: nothing is lost, and no flow moves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xlb_common::abi::ABI_VERSION;
use xlb_tests::lab::{Lab, LabSpec, LineClient, UdpClient, wait_for};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, Scene};

/// Clients of each protocol that talk all the time.
const CLIENTS: usize = 6;
/// Between two questions of a client: the agent needs the CPUs, too.
const PAUSE: Duration = Duration::from_millis(1);
/// Upgrades of each scene: the second one has more room for flows, so that these are copied into other maps.
const FLOWS_MAX: [Option<&str>; 2] = [None, Some("65536")];

#[test]
fn an_upgrade_to_another_map_abi_loses_no_packet_and_moves_no_flow() -> Result<()> {
    check(Delivery::Direct, Door::Tc)
}

#[test]
fn an_upgrade_by_native_xdp_loses_no_packet_and_moves_no_flow() -> Result<()> {
    check(Delivery::Direct, Door::XdpNative)
}

#[test]
fn an_upgrade_through_the_hosts_stack_loses_no_packet_and_moves_no_flow() -> Result<()> {
    check(Delivery::Stack, Door::Tc)
}

fn check(delivery: Delivery, door: Door) -> Result<()> {
    let lab = Lab::new(LabSpec { pod_gro: true, ..LabSpec::default() })?;
    let mut scene = Scene::on(lab, delivery, door, &[])?;
    let held = (0..CLIENTS).map(|_| Talk::tcp(&scene)).collect::<Result<Vec<_>>>()?;
    let told = (0..CLIENTS).map(|_| Talk::udp(&scene)).collect::<Result<Vec<_>>>()?;
    let is_over = AtomicBool::new(false);
    let (upgraded, answers) = thread::scope(|scope| {
        let talks = held.into_iter().chain(told).map(|talk| scope.spawn(|| talk.go_on(&is_over)));
        let talks: Vec<_> = talks.collect();
        let upgraded = FLOWS_MAX.iter().try_for_each(|flows_max| upgrade(&mut scene, *flows_max));
        is_over.store(true, Ordering::Relaxed);
        let answers = talks.into_iter().map(|talk| talk.join().expect("a client panicked"));
        (upgraded, answers.collect::<Result<Vec<usize>>>())
    });
    upgraded?;
    println!("{} questions were answered by who answered before", answers?.iter().sum::<usize>());
    for _ in 0..10 {
        scene.check_connection(0)?;
        scene.check_datagram(0)?;
    }
    Ok(())
}

/// The agent is killed, what it leaves becomes the version before, and the next agent finds that.
fn upgrade(scene: &mut Scene, flows_max: Option<&str>) -> Result<()> {
    scene.agent.kill()?;
    scene.agent.become_version(ABI_VERSION - 1)?;
    if let Some(flows_max) = flows_max {
        scene.agent.set_argument("--max-flows", flows_max);
    }
    scene.agent.start_again()?;
    scene.agent.wait_until_it_reports();
    let pins = scene.lab.pin_directory();
    let left = wait_for(ANSWER_TIMEOUT, || (!pins.join(format!("v{}", ABI_VERSION - 1)).exists()).then_some(()));
    left.context("the older dataplane is still there")
}

/// A client and who answers it.
enum Talk {
    Tcp(LineClient, String),
    Udp(UdpClient, String),
}

impl Talk {
    fn tcp(scene: &Scene) -> Result<Talk> {
        let mut connection = LineClient::connect(scene.lab.client(0), scene.vip())?;
        let server = connection.identity()?.server;
        Ok(Talk::Tcp(connection, server))
    }

    fn udp(scene: &Scene) -> Result<Talk> {
        let socket = UdpClient::connect(scene.lab.client(0), scene.vip())?;
        let answer = socket.ask("first", ANSWER_TIMEOUT)?;
        let server = answer.strip_suffix("first").context("another answer")?.to_owned();
        Ok(Talk::Udp(socket, server))
    }

    /// Asks one question after the other. Each is numbered, and answered by who answered the first.
    fn go_on(self, is_over: &AtomicBool) -> Result<usize> {
        match self {
            Talk::Tcp(mut connection, server) => count(is_over, |number| {
                let found = connection.identity().with_context(|| format!("question {number} over TCP"))?.server;
                ensure!(found == server, "{found} answers on the connection of {server}");
                Ok(())
            }),
            Talk::Udp(socket, server) => count(is_over, |number| {
                let answer = socket.ask(&number.to_string(), ANSWER_TIMEOUT);
                let answer = answer.with_context(|| format!("datagram {number} or its answer is lost"))?;
                ensure!(answer == format!("{server}{number}"), "{answer} is not {server}{number}");
                Ok(())
            }),
        }
    }
}

fn count(is_over: &AtomicBool, mut ask: impl FnMut(usize) -> Result<()>) -> Result<usize> {
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        ask(number)?;
        thread::sleep(PAUSE);
    }
    Ok(number)
}
