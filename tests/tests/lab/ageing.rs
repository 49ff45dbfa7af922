//! Flows that are over leave the flow maps; those that live stay, however silent they are, and however many others come and
//! go.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use serde_json::Value;
use xlb_common::Reason;
use xlb_tests::lab::{Lab, LabSpec, LineClient, Pattern, UdpClient, Version, allow_open_files, connect, wait_for};
use xlb_tests::openmetrics::{self, Metrics};

use xlb_userspace::maps::pins::PinDirectory;

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, SILENCE, Scene, list, ready};

/// Seconds instead of minutes and days.
const SHORT: [&str; 12] = [
    "--flow-timeout-tcp-established",
    "2s",
    "--flow-timeout-tcp-close-wait",
    "2s",
    "--flow-timeout-closed",
    "2s",
    "--flow-timeout-udp",
    "2s",
    "--flow-timeout-udp-stream",
    "4s",
    "--flow-timeout-sctp",
    "2s",
];
/// A download that does not end by itself.
const ENDLESS_BYTES: u64 = 1_000_000_000;
/// Long enough for a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

static CROWD: Mutex<()> = Mutex::new(());

/// Facts with thousands of connections take turns: they share the limit of this process's open files.
fn crowd() -> Result<MutexGuard<'static, ()>> {
    allow_open_files()?;
    Ok(CROWD.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn a_closed_connection_leaves_flows_at_once_and_the_pods_last_word_arrives() -> Result<()> {
    for delivery in Delivery::ALL {
        let scene = Scene::new(LabSpec { pod_count: 1, ..LabSpec::default() }, delivery, Door::Tc)?;
        for end in [End::Fin, End::Reset, End::PodReset] {
            let mut connection = LineClient::connect(scene.lab.client(0), scene.vip())?;
            connection.identity()?;
            let client = connection.local_address()?;
            assert_eq!(states_of(&scene, client)?, words(&["accepted", "pending"]), "{delivery:?}");
            end.make(&scene, connection).with_context(|| format!("{end:?} by {delivery:?}"))?;
            let moved = || (states_of(&scene, client).ok()? == words(&["closed"])).then_some(());
            let found = wait_for(LIMIT, moved);
            ensure!(found.is_some(), "{:?} after {end:?} by {delivery:?}", states_of(&scene, client)?);
        }
        scene.counters()?.assert_none(&[Reason::ClosedUnknown, Reason::ReplyUnknown]);
    }
    Ok(())
}

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Reset,
    /// The server closes with what it has not read: its kernel sends a reset after it has closed the socket.
    PodReset,
}

impl End {
    fn make(self, scene: &Scene, mut connection: LineClient) -> Result<()> {
        match self {
            Self::Fin => drop(connection),
            Self::Reset => reset_at_close(connection.stream())?,
            Self::PodReset => {
                connection.send(&format!("DOWNLOAD {ENDLESS_BYTES}"))?;
                let mut pattern = Pattern::default();
                connection.receive_pattern(&mut pattern, 1)?;
                connection.send("what the server has no time to read")?;
                // It is on its way to the pod, and nothing tells that it arrived.
                sleep(SILENCE);
                scene.tcp[&0].stop();
                let error = connection.receive_pattern(&mut pattern, ENDLESS_BYTES).unwrap_err();
                ensure!(format!("{error:#}").contains("reset"), "heard {error:#}");
            }
        }
        Ok(())
    }
}

/// The connection ends with a reset, and leaves no TIME_WAIT behind.
fn reset_at_close(stream: &TcpStream) -> Result<()> {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(stream, Linger, &at_once).context("setting SO_LINGER")
}

/// What the maps have of a client's TCP flow.
fn states_of(scene: &Scene, client: SocketAddr) -> Result<BTreeSet<String>> {
    let maps = scene.agent.inspect()?;
    let own = list(&maps, "flows").filter(|flow| flow["client"] == client.to_string().as_str());
    Ok(own.map(|flow| flow["state"].as_str().unwrap_or_default().to_owned()).collect())
}

fn words(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|&word| word.to_owned()).collect()
}

/// Entries of connections of whose end nobody heard, as after an agent that was away.
const FORGOTTEN: usize = 50;

/// Writes such entries: one that lives, with ports that nobody has.
fn forget_closing(scene: &Scene) -> Result<()> {
    let pins = PinDirectory::new(scene.lab.pin_directory());
    let mut flows: HashMap<_, [u8; 12], [u8; 64]> =
        HashMap::try_from(Map::LruHashMap(MapData::from_pin(pins.map("FLOWS_V4"))?))?;
    let (mut key, entry) = flows.iter().next().context("no flow")??;
    for port in 1..=FORGOTTEN {
        // Behind both addresses; clients' own ports are higher.
        key[8..10].copy_from_slice(&u16::try_from(port)?.to_be_bytes());
        flows.insert(key, entry, 0)?;
    }
    Ok(())
}

/// Connections of all kinds, through several sweeps and beyond every time-out. UDP's have one: they end.
#[test]
fn silent_connections_outlive_the_sweeps_and_idle_datagrams_do_not() -> Result<()> {
    for delivery in Delivery::ALL {
        let lab = Lab::new(LabSpec { pod_count: 2, dual_stack: true, ..LabSpec::default() })?;
        let mut scene = Scene::on(lab, delivery, Door::Tc, &SHORT)?;
        let mut silent = Vec::new();
        for version in Version::ALL {
            scene.version = version;
            for _ in 0..25 {
                silent.push(LineClient::connect(scene.lab.client(0), scene.vip())?);
                silent.push(LineClient::connect(scene.lab.client(0), scene.banner_vip())?);
                silent.last_mut().context("one was pushed")?.greeting()?;
            }
            for connection in silent.iter().skip(silent.len() - 50).step_by(2) {
                scene.pod_of(connection)?;
            }
        }
        forget_closing(&scene)?;
        let talker = UdpClient::connect(scene.lab.client(0), scene.vip())?;
        let idle = UdpClient::connect(scene.lab.client(0), scene.vip())?;
        // The second one makes it a flow that stays.
        idle.ask("hello", ANSWER_TIMEOUT)?;
        idle.ask("hello", ANSWER_TIMEOUT)?;
        let (speaks, was) = (talker.local_address()?, idle.local_address()?);
        let begun = sweeps(&scene)?;
        let done = wait_for(LIMIT, || {
            (removed(&scene, "FLOWS_V4", "no_socket").ok()? >= FORGOTTEN as f64).then_some(())?;
            talker.ask("still here", ANSWER_TIMEOUT).ok()?;
            let is_idle_gone = states_of(&scene, was).ok()?.is_empty();
            (is_idle_gone && sweeps(&scene).ok()? >= begun + 5.0).then_some(())
        });
        ensure!(done.is_some(), "{:?} is left of {was}, {} sweeps", states_of(&scene, was)?, sweeps(&scene)? - begun);
        ensure!(!states_of(&scene, speaks)?.is_empty(), "the flow that speaks is gone");
        // Numbers follow with the agent's next round.
        let is_counted = || (removed(&scene, "UDP_FLOWS_V6", "idle").ok()? >= 1.0).then_some(());
        ensure!(wait_for(LIMIT, is_counted).is_some(), "nothing was counted");
        assert_eq!(removed_in_all(&scene, "FLOWS_V6")?, 0.0, "by {delivery:?}");
        assert_eq!(removed_in_all(&scene, "FLOWS_V4")?, FORGOTTEN as f64, "by {delivery:?}");
        assert_eq!(removed(&scene, "FLOWS_V4", "no_socket")?, FORGOTTEN as f64, "by {delivery:?}");
        assert_eq!(accepted_tcp(&scene.agent.inspect()?), silent.len(), "{delivery:?}");
        for connection in &mut silent {
            connection.ask("after the sweeps")?;
        }
        idle.ask("hello again", ANSWER_TIMEOUT)?;
    }
    Ok(())
}

#[test]
fn flows_of_a_pod_that_is_gone_are_forgotten_and_those_of_others_are_not() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let mut scene = Scene::on(lab, Delivery::Direct, Door::Tc, &SHORT)?;
    let mut with_pods = [Vec::new(), Vec::new()];
    while with_pods.iter().any(|connections| connections.len() < 5) {
        let mut connection = LineClient::connect(scene.lab.client(0), scene.vip())?;
        with_pods[scene.check_identity(&mut connection)?].push(connection);
    }
    let all = with_pods.iter().map(Vec::len).sum::<usize>();
    assert_eq!(accepted_tcp(&scene.agent.inspect()?), all);
    scene.lab.remove_pod(1)?;
    let left = ready(&scene.lab, &[0]);
    scene.set_endpoints(&left, &[0])?;
    let kept = with_pods[0].len();
    let forgotten = scene.agent.wait_until(|maps| accepted_tcp(maps) <= kept);
    assert_eq!(accepted_tcp(&forgotten), kept);
    for connection in &mut with_pods[0] {
        assert_eq!(scene.check_identity(connection)?, 0);
    }
    Ok(())
}

#[test]
fn a_table_that_fills_with_what_lives_is_told_of_before_any_is_lost() -> Result<()> {
    const LIVING: usize = 1_600;
    let _turn = crowd()?;
    let lab = Lab::new(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let mut scene = Scene::on(lab, Delivery::Direct, Door::Tc, &["--max-flows", "2048"])?;
    let told = |maps: &Value| list(maps, "refusals").any(|refusal| refusal["object"] == "flows FLOWS_V4");
    assert!(!told(&scene.agent.inspect()?));
    let living = (0..LIVING).map(|_| LineClient::connect(scene.lab.client(0), scene.vip()));
    let mut living = living.collect::<Result<Vec<_>>>()?;
    let maps = scene.agent.wait_until(told);
    assert_eq!(accepted_tcp(&maps), LIVING);
    let warning = list(&maps, "refusals").find(|refusal| refusal["object"] == "flows FLOWS_V4");
    let why = warning.and_then(|refusal| refusal["why"].as_str()).unwrap_or_default();
    assert!(why.starts_with("80 % of it are flows that live") && why.ends_with("raise --max-flows"), "{why}");
    for connection in &mut living {
        connection.ask("still here")?;
    }
    drop(living);
    scene.agent.wait_until(|maps| !told(maps) && accepted_tcp(maps) == 0);
    Ok(())
}

#[test]
fn a_connection_that_a_full_table_lost_is_served_again_when_its_client_speaks() -> Result<()> {
    const MOST: usize = 1_024;
    const LIVING: usize = 1_300;
    let _turn = crowd()?;
    let lab = Lab::new(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let mut scene = Scene::on(lab, Delivery::Direct, Door::Tc, &["--max-flows", &MOST.to_string()])?;
    let living = (0..LIVING).map(|_| LineClient::connect(scene.lab.client(0), scene.vip()));
    let mut living = living.collect::<Result<Vec<_>>>()?;
    let maps = scene.agent.wait_until(|maps| {
        list(maps, "refusals").any(|refusal| refusal["why"].as_str().is_some_and(|why| why.starts_with("95 %")))
    });
    assert!(accepted_tcp(&maps) <= MOST, "some lost their entries");
    for connection in &mut living {
        connection.ask("still here")?;
    }
    Ok(())
}

/// Live connections that say nothing, and in a map that is not much larger than they need: six times as many others as it
/// holds. FLOWS is never full of what is over, so the kernel evicts nothing.
#[test]
fn a_storm_of_short_connections_evicts_none_that_lives() -> Result<()> {
    const SILENT: usize = 3_000;
    const STORM: usize = 50_000;
    const STORMING: usize = 8;
    let _turn = crowd()?;
    let lab = Lab::new(LabSpec { pod_count: 2, clients: 2, ..LabSpec::default() })?;
    lab.client(1).sysctl(&[("net.ipv4.ip_local_port_range", "1024 65535")])?;
    let scene = Scene::on(lab, Delivery::Direct, Door::Tc, &["--max-flows", "8192"])?;
    let silent = (0..SILENT).map(|_| LineClient::connect(scene.lab.client(0), scene.vip()));
    let mut silent = silent.collect::<Result<Vec<_>>>()?;
    let is_accepted = || (accepted_tcp(&scene.agent.inspect().ok()?) == SILENT).then_some(());
    ensure!(wait_for(LIMIT, is_accepted).is_some(), "not all were accepted");

    let (done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for _ in 0..STORMING {
            threads.spawn(|| {
                while done.fetch_add(1, Ordering::Relaxed) < STORM {
                    if short(&scene, done.load(Ordering::Relaxed).is_multiple_of(2)).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    ensure!(failed * 100 < STORM, "{failed} of {STORM} short connections failed: it was no storm");

    let maps = scene.agent.inspect()?;
    let own = scene.lab.client_address(0).to_string() + ":";
    let is_own = |flow: &&Value| flow["client"].as_str().is_some_and(|client| client.starts_with(&own));
    let living = list(&maps, "flows").filter(is_own).filter(|flow| flow["state"] == "accepted").count();
    println!(
        "{living} of {SILENT} silent connections have their entry after {STORM} short ones, {failed} of which failed"
    );
    assert_eq!(living, SILENT);
    for connection in &mut silent {
        connection.ask("after the storm")?;
    }
    let counters = scene.counters()?;
    counters.assert_none(&[Reason::ClosedUnknown]);
    ensure!(counters.of(Reason::Closed) as usize >= STORM - failed, "not all were told of");
    Ok(())
}

/// A connection that asks once, and ends by a reset or in the usual way.
fn short(scene: &Scene, resets: bool) -> Result<()> {
    let mut connection = LineClient::connect(scene.lab.client(1), scene.vip())?;
    connection.ask("short")?;
    if resets { reset_at_close(connection.stream()) } else { Ok(()) }
}

/// Entries in FLOWS, as `xlb inspect` shows them.
fn accepted_tcp(maps: &Value) -> usize {
    list(maps, "flows").filter(|flow| flow["protocol"] == "tcp" && flow["state"] == "accepted").count()
}

fn metrics(scene: &Scene) -> Result<Metrics> {
    let mut stream = connect(scene.lab.node(), (Ipv4Addr::LOCALHOST, 10_349))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("reading metrics")?;
    let (_, body) = text.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    openmetrics::parse(body).map_err(anyhow::Error::msg)
}

/// Sweeps of FLOWS so far.
fn sweeps(scene: &Scene) -> Result<f64> {
    Ok(metrics(scene)?.value("xlb_flow_sweeps_total", &[("map", "FLOWS_V4")]).unwrap_or(0.0))
}

fn removed(scene: &Scene, map: &str, why: &str) -> Result<f64> {
    Ok(metrics(scene)?.value("xlb_flows_removed_total", &[("map", map), ("why", why)]).unwrap_or(0.0))
}

fn removed_in_all(scene: &Scene, map: &str) -> Result<f64> {
    let metrics = metrics(scene)?;
    let count = |why: &str| metrics.value("xlb_flows_removed_total", &[("map", map), ("why", why)]).unwrap_or(0.0);
    Ok(["closed", "half_closed", "superseded", "no_socket", "pod_gone", "idle", "unanswered"].map(count).iter().sum())
}
