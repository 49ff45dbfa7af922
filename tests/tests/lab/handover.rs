//! Connections that kube-proxy began: they go on through its conntrack when their address and port become xlb's.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_tests::lab::{
    EndpointSpec, Greeting, Lab, LabSpec, LineClient, Manifests, TcpServer, Version, kube_proxy, wait_for,
};

use crate::scene::{
    ANSWER_TIMEOUT, Delivery, Door, PORT, Scene, TARGET_PORT, list, ready, service_name, start_agent, takers, web,
    web_slice,
};

const BULK_BYTES: u64 = 1_000_000;
/// The endpoint of another node: a server at a client.
const ELSEWHERE: usize = 1;
const HANDOVER: [&str; 2] = ["--handover", "1h"];

/// The endpoint is a pod of this node, and the client's address is kept: its kernel knows the connection under the very
/// addresses that xlb would give it, and netfilter must see both directions all the same.
#[test]
fn a_connection_to_a_pod_of_this_node_outlives_the_start_of_xlb() -> Result<()> {
    let ways = [(Delivery::Direct, Door::Tc), (Delivery::Stack, Door::Tc), (Delivery::Direct, Door::XdpNative)];
    for ((delivery, door), version) in ways.into_iter().flat_map(|way| Version::ALL.map(|version| (way, version))) {
        println!("{delivery:?}, {door:?}, {version:?}");
        let spec = LabSpec { kube_proxy_rules: true, pod_gro: true, dual_stack: true, ..LabSpec::default() };
        let mut lab = Lab::new(spec)?;
        let vip = SocketAddr::new(lab.vip_in(version, 0), PORT);
        let pod = SocketAddr::new(lab.pod_address_in(version, 0), TARGET_PORT);
        let server = lab.serve_tcp(0, TARGET_PORT, Greeting::OnRequest)?;
        kube_proxy::serve(lab.node(), vip, pod, false)?;
        let mut old = LineClient::connect(lab.client(0), vip)?;
        let mut idle = LineClient::connect(lab.client(0), vip)?;
        assert_eq!(old.identity()?.server, "pod-0");

        let manifests = Manifests::new()?;
        manifests.write("web.yaml", &web(&lab, true, &[]))?;
        manifests.write("slice.yaml", &web_slice(&ready(&lab, &[0])))?;
        let mut agent = start_agent(&lab, &manifests, delivery, door, &HANDOVER)?;
        let service = service_name("default/web:http", version);
        agent.wait_until(|maps| takers(maps, &service).len() == 1);

        old.download(BULK_BYTES)?;
        old.upload(BULK_BYTES)?;
        assert_eq!(idle.identity()?.server, "pod-0", "it says its first word now");
        assert_eq!(lab.dropped_as_invalid()?, 0);
        let mut new = LineClient::connect(lab.client(0), vip)?;
        assert_eq!(new.identity()?.server, "pod-0");
        new.download(BULK_BYTES)?;
        let counters = agent.inspect()?["counters"].clone();
        let count = |reason: Reason| counters[reason.label()].as_u64().unwrap_or(0);
        assert!(count(Reason::LeftToFormer) > 0 && count(Reason::SoleBackend) > 0, "{counters:#}");

        // It ends as it went on: the host's stack sees its end, and nothing of it is left open at the pod.
        drop(old);
        let open = || (server.open_connections() == 2).then_some(());
        wait_for(ANSWER_TIMEOUT, open).context("the pod does not hear that a client closed")?;
    }
    Ok(())
}

/// The daily case: kube-proxy serves a Service without a pod here, then it gets one.
#[test]
fn a_connection_to_another_node_outlives_the_first_pod_of_this_one() -> Result<()> {
    let mut scene = without_pods(&HANDOVER)?;
    let _server = elsewhere(&scene.lab)?;
    let mut old = LineClient::connect(scene.lab.client(0), scene.vip())?;
    assert_eq!(old.identity()?.server, "elsewhere");

    for pods in [&[0][..], &[0, 2], &[2]] {
        scene.set_endpoints(&[&ready(&scene.lab, pods)[..], &[of_another_node()]].concat(), pods)?;
        assert_eq!(old.identity()?.server, "elsewhere", "with {pods:?}");
        assert!(pods.contains(&scene.check_connection(0)?));
    }
    old.download(BULK_BYTES)?;
    scene.counters()?.assert_some(&[Reason::LeftToFormer]);
    Ok(())
}

#[test]
fn it_ends_after_its_time() -> Result<()> {
    let mut scene = without_pods(&["--handover", "2s"])?;
    let _server = elsewhere(&scene.lab)?;
    let mut old = LineClient::connect(scene.lab.client(0), scene.vip())?;
    assert_eq!(old.identity()?.server, "elsewhere");
    assert!(is_handed_over(&scene)?, "it goes on for as long as kube-proxy serves");

    scene.set_endpoints(&[&ready(&scene.lab, &[0])[..], &[of_another_node()]].concat(), &[0])?;
    assert!(wait_for(ANSWER_TIMEOUT * 2, || (!is_handed_over(&scene).ok()?).then_some(())).is_some());
    assert!(old.identity().is_err(), "the local pod refuses what it does not know");
    assert_eq!(scene.check_connection(0)?, 0);
    Ok(())
}

#[test]
fn an_agent_that_is_to_hand_nothing_over_does_not() -> Result<()> {
    let scene = without_pods(&["--handover", "0"])?;
    assert!(!is_handed_over(&scene)?);
    Ok(())
}

/// A Service whose only endpoint is on another node. What xlb leaves, kube-proxy leads there.
fn without_pods(arguments: &[&str]) -> Result<Scene> {
    let lab = Lab::new(LabSpec { kube_proxy_rules: true, clients: 2, ..LabSpec::default() })?;
    let endpoint = SocketAddrV4::new(lab.client_address(ELSEWHERE), TARGET_PORT);
    kube_proxy::serve(lab.node(), vip(&lab), endpoint, true)?;
    let mut scene = Scene::on(lab, Delivery::Direct, Door::Tc, arguments)?;
    scene.set_endpoints(&[of_another_node()], &[])?;
    // The agent has served pods until now: a later one is like a new one.
    scene.agent.stop()?;
    scene.agent.start_again()?;
    scene.agent.wait_until_it_reports();
    scene.wait_for_takers(&[]);
    Ok(scene)
}

fn elsewhere(lab: &Lab) -> Result<TcpServer> {
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, TARGET_PORT);
    TcpServer::start(lab.client(ELSEWHERE), any, "elsewhere", Greeting::OnRequest)
}

fn of_another_node() -> EndpointSpec {
    EndpointSpec { node: "another".into(), ..EndpointSpec::ready(Ipv4Addr::new(10, 99, 0, 1)) }
}

/// Whether any frontend of the Service is being handed over.
fn is_handed_over(scene: &Scene) -> Result<bool> {
    let maps = scene.agent.inspect()?;
    Ok(list(&maps, "services").any(|service| list(service, "handed_over").next().is_some()))
}

fn vip(lab: &Lab) -> SocketAddrV4 {
    SocketAddrV4::new(lab.vip(0), PORT)
}
