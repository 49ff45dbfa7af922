//! The dataplane without its agent, and an agent that finds a dataplane.

use std::net::SocketAddrV4;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlb_common::Reason;
use xlb_tests::lab::{EndpointSpec, Lab, LabSpec, PodShape, udp_ask, wait_for, without_traffic};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, Open, Scene, TARGET_PORT, list};

const CONNECTIONS: usize = 30;
/// Three fragments at an MTU of 1500: their programs are reached through a map, which is to stay as it is, too.
static FRAGMENTED: LazyLock<String> = LazyLock::new(|| "0123456789".repeat(400));

/// How an agent ends without detaching.
#[derive(Clone, Copy, Debug)]
enum End {
    Stopped,
    Killed,
}

#[test]
fn an_agent_that_ends_leaves_a_dataplane_that_serves_and_the_next_adopts_it() -> Result<()> {
    let ways = [(Delivery::Direct, Door::Tc), (Delivery::Direct, Door::XdpNative), (Delivery::Stack, Door::Tc)];
    for (delivery, door) in ways {
        let lab = Lab::new(LabSpec { pod_gro: true, ..LabSpec::default() })?;
        let mut scene = Scene::on(lab, delivery, door, &["--keep-dataplane"])?;
        let mut open = open_connections(&scene)?;
        let before = layout(&scene.agent.inspect()?);
        for end in [End::Stopped, End::Killed] {
            match end {
                End::Stopped => ensure!(scene.agent.stop()?.success(), "the agent failed"),
                End::Killed => scene.agent.kill()?,
            }
            check_serving(&scene, &mut open).with_context(|| format!("{end:?}"))?;
            check_commands(&scene, &open)?;
            assert_eq!(layout(&scene.agent.inspect()?), before);

            scene.agent.start_again()?;
            scene.agent.wait_until_it_reports();
            assert_eq!(layout(&scene.agent.inspect()?), before);
            check_serving(&scene, &mut open).with_context(|| format!("after {end:?}"))?;
            check_programs_run_once(&scene);
        }
    }
    Ok(())
}

#[test]
fn what_changed_while_no_agent_ran_is_made_up_for_without_breaking_connections() -> Result<()> {
    for delivery in Delivery::ALL {
        let mut scene = Scene::new(LabSpec::default(), delivery, Door::Tc)?;
        let mut open = open_connections(&scene)?;
        scene.agent.kill()?;
        let added = scene.add_pod()?;
        let removed = open[0].pod;
        scene.lab.remove_pod(removed)?;
        open.retain(|connection| connection.pod != removed);

        scene.agent.start_again()?;
        let left: Vec<usize> = scene.lab.pods().collect();
        assert!(left.contains(&added));
        let endpoints: Vec<_> = left.iter().map(|&pod| EndpointSpec::ready(scene.lab.pod_address(pod))).collect();
        scene.set_endpoints(&endpoints, &left)?;
        check_serving(&scene, &mut open)?;
    }
    Ok(())
}

/// Traffic that is delivered directly does not pass the bridge, which forgets behind which port a pod is.
#[test]
fn an_agent_that_finds_a_bridge_without_its_entries_still_knows_the_pods() -> Result<()> {
    let spec = LabSpec { pods: PodShape::Bridge, ..LabSpec::default() };
    let mut scene = Scene::new(spec, Delivery::Direct, Door::Tc)?;
    let mut open = open_connections(&scene)?;
    let before = layout(&scene.agent.inspect()?);
    scene.agent.kill()?;
    scene.lab.node().ip("neigh flush dev cni0\nlink set cni0 type bridge fdb_flush")?;

    scene.agent.start_again()?;
    scene.agent.wait_until_it_reports();
    assert_eq!(layout(&scene.agent.inspect()?), before);
    check_serving(&scene, &mut open)
}

fn open_connections(scene: &Scene) -> Result<Vec<Open>> {
    (0..CONNECTIONS).map(|_| scene.open(0)).collect()
}

/// Open connections go on with their pods; new ones are served too.
fn check_serving(scene: &Scene, open: &mut [Open]) -> Result<()> {
    for Open { connection, pod } in open {
        assert_eq!(scene.check_identity(connection)?, *pod);
    }
    for _ in 0..10 {
        scene.check_connection(0)?;
        scene.check_datagram(0)?;
    }
    let answer = udp_ask(scene.lab.client(0), scene.vip(), &FRAGMENTED, ANSWER_TIMEOUT).context("in fragments")?;
    ensure!(answer.ends_with(&*FRAGMENTED), "a long datagram came back as {} bytes", answer.len());
    Ok(())
}

/// `xlb inspect` and `xlb explain` need no agent.
fn check_commands(scene: &Scene, open: &[Open]) -> Result<()> {
    let maps = scene.agent.inspect()?;
    assert_eq!(maps["agent"]["is_running"], false);
    let Open { connection, pod } = &open[0];
    let (client, vip) = (connection.local_address()?.to_string(), scene.vip().to_string());
    let text = scene.agent.run_xlb(&["explain", "--src", &client, "--dst", &vip, "--established"])?;
    let pod = SocketAddrV4::new(scene.lab.pod_address(*pod), TARGET_PORT);
    assert!(text.contains(&format!("becomes    {client} > {pod}")), "{text}");
    Ok(())
}

/// Services and backends with their ids and slots, and without what traffic changes.
fn layout(maps: &Value) -> [Vec<String>; 2] {
    let maps = without_traffic(maps.clone());
    ["services", "backends"].map(|name| {
        let mut views: Vec<String> = list(&maps, name).map(Value::to_string).collect();
        views.sort();
        views
    })
}

/// A second copy of a program beside the adopted one would count each packet twice. The ends of earlier connections
/// may still be counted meanwhile, so that it takes a few tries.
fn check_programs_run_once(scene: &Scene) {
    let counts_once = || (packets_counted_by_one_question(scene).ok()? == 2).then_some(());
    assert!(wait_for(ANSWER_TIMEOUT, counts_once).is_some(), "one datagram and its answer are not two packets");
}

fn packets_counted_by_one_question(scene: &Scene) -> Result<u64> {
    const WAYS: [Reason; 4] = [Reason::SlotOwner, Reason::UnprovenOwner, Reason::Replied, Reason::RepliedHalfOpen];
    let before = scene.counters()?;
    scene.check_datagram(0)?;
    let after = scene.counters()?;
    Ok(WAYS.map(|reason| after.of(reason) - before.of(reason)).iter().sum())
}
