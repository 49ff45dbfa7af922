//! Handing back to kube-proxy: what xlb has goes on until it ends, and what begins is kube-proxy's.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use xlb_tests::lab::{Greeting, Lab, LabSpec, LineClient, TcpServer, UdpClient, kube_proxy, wait_for};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, PORT, Scene, TARGET_PORT};

const BULK_BYTES: u64 = 1_000_000;
const CONNECTIONS: usize = 12;
/// The endpoint that kube-proxy has: a server at a client.
const ELSEWHERE: usize = 1;

#[test]
fn flows_go_on_after_xlb_detach_and_new_connections_are_kube_proxys() -> Result<()> {
    check(Delivery::Direct, Door::Tc)
}

#[test]
fn flows_by_native_xdp_go_on_after_xlb_detach() -> Result<()> {
    check(Delivery::Direct, Door::XdpNative)
}

#[test]
fn flows_through_the_hosts_stack_go_on_after_xlb_detach() -> Result<()> {
    check(Delivery::Stack, Door::Tc)
}

fn check(delivery: Delivery, door: Door) -> Result<()> {
    let lab = Lab::new(LabSpec { kube_proxy_rules: true, pod_gro: true, clients: 2, ..LabSpec::default() })?;
    let (vip, elsewhere) = (SocketAddrV4::new(lab.vip(0), PORT), lab.client_address(ELSEWHERE));
    kube_proxy::serve(lab.node(), vip, SocketAddrV4::new(elsewhere, TARGET_PORT), true)?;
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, TARGET_PORT);
    let _server = TcpServer::start(lab.client(ELSEWHERE), any, "elsewhere", Greeting::OnRequest)?;
    hand_back_and_take_over(&mut Scene::on(lab, delivery, door, &["--handover", "1h"])?)
}

fn hand_back_and_take_over(scene: &mut Scene) -> Result<()> {
    let mut open = (0..CONNECTIONS).map(|_| Open::connect(scene)).collect::<Result<Vec<_>>>()?;
    assert!(open.iter().all(|open| open.server != "elsewhere"));
    let datagrams = UdpClient::connect(scene.lab.client(0), scene.vip())?;
    // The second one makes it a flow that stays.
    let answer = datagrams.ask("x", ANSWER_TIMEOUT)?;
    assert_eq!(datagrams.ask("x", ANSWER_TIMEOUT)?, answer);

    let refused = scene.agent.run_xlb(&["detach", "--keep-flows"]).err().context("an agent has the dataplane")?;
    assert!(refused.to_string().contains("stop it first"), "{refused}");
    scene.agent.kill()?;
    let before = detach(scene)?;
    assert!(before > CONNECTIONS, "{before} flows of TCP and UDP");

    let mut handed_back = Open::connect(scene)?;
    assert_eq!(handed_back.server, "elsewhere");
    handed_back.connection.download(BULK_BYTES)?;
    assert_eq!(datagrams.ask("x", ANSWER_TIMEOUT)?, answer);
    for open in &mut open {
        open.goes_on()?;
    }
    open[0].connection.download(BULK_BYTES)?;
    open[0].connection.upload(BULK_BYTES)?;
    assert_eq!(scene.lab.dropped_as_invalid()?, 0);

    open.truncate(CONNECTIONS / 2);
    let fewer = wait_for(ANSWER_TIMEOUT, || (detach(scene).ok()? <= before - CONNECTIONS / 2).then_some(()));
    fewer.context("connections ended, and are still counted")?;

    scene.agent.start_again()?;
    let pods: Vec<usize> = scene.lab.pods().collect();
    scene.wait_for_takers(&pods);
    assert!(pods.contains(&scene.check_connection(0)?), "xlb serves again");
    handed_back.goes_on()?;
    open.iter_mut().try_for_each(Open::goes_on)
}

/// Answers how many flows are left.
fn detach(scene: &Scene) -> Result<usize> {
    let said = scene.agent.run_xlb(&["detach", "--keep-flows"])?;
    let words: Vec<&str> = said.split(' ').collect();
    let at = words.iter().position(|word| *word == "flows").with_context(|| format!("no number in {said}"))?;
    Ok(words[at - 1].parse()?)
}

/// A connection and who accepted it.
struct Open {
    connection: LineClient,
    server: String,
}

impl Open {
    fn connect(scene: &Scene) -> Result<Open> {
        let mut connection = LineClient::connect(scene.lab.client(0), scene.vip())?;
        let server = connection.identity()?.server;
        Ok(Open { connection, server })
    }

    fn goes_on(&mut self) -> Result<()> {
        let found = self.connection.identity().with_context(|| format!("the connection to {} is lost", self.server))?;
        assert_eq!(found.server, self.server);
        Ok(())
    }
}
