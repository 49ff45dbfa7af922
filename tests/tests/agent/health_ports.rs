//! `healthCheckNodePort`: what a load balancer sees of a Service on this node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use serde_json::json;
use xlb_tests::lab::{EndpointSpec, Lab, LabSpec, Manifests};

use crate::ask::{Answered, ask, get, soon};
use crate::stage::{Stage, lab, refusal, serves, service_with};

const PORT: u16 = 30123;

#[test]
fn ready_pods_of_this_node_are_counted_and_terminating_ones_are_not() -> Result<()> {
    let stage = stage(&[])?;
    until(&stage, PORT, 200, 2)?;
    let [first, second] = [0, 1].map(|pod| stage.lab.pod_address(pod));
    let elsewhere = EndpointSpec { node: "other".into(), ..EndpointSpec::ready(Ipv4Addr::new(10, 9, 0, 1)) };
    let unready = EndpointSpec { ready: false, serving: false, ..EndpointSpec::ready(first) };
    for (endpoints, status, count) in [
        (vec![EndpointSpec::ready(first), EndpointSpec::terminating(second)], 200, 1),
        (vec![EndpointSpec::terminating(first), EndpointSpec::terminating(second)], 503, 0),
        (vec![EndpointSpec::ready(first)], 200, 1),
        (vec![unready, elsewhere], 503, 0),
        (vec![EndpointSpec::ready(first), EndpointSpec::ready(second)], 200, 2),
    ] {
        serve(&stage.lab, &stage.manifests, &endpoints, PORT)?;
        until(&stage, PORT, status, count)?;
    }
    Ok(())
}

#[test]
fn every_path_and_method_is_answered_as_kube_proxy_does() -> Result<()> {
    let stage = stage(&[])?;
    until(&stage, PORT, 200, 2)?;
    let from_router = ask(stage.lab.node(), Ipv4Addr::LOCALHOST, PORT, "POST", "/anything/else?x=1")?;
    for answer in [from_router, get(stage.lab.node(), PORT, "/")?] {
        assert_eq!(answer.status, 200);
        let expected = json!({
            "service": { "namespace": "default", "name": "web" },
            "localEndpoints": 2,
            "serviceProxyHealthy": true,
        });
        assert_eq!(answer.json(), expected);
        for header in
            ["content-type: application/json", "x-load-balancing-endpoint-weight: 2", "x-content-type-options: nosniff"]
        {
            assert!(answer.head.contains(header), "{answer:?}");
        }
    }
    Ok(())
}

#[test]
fn a_port_follows_its_service_and_closes_with_it() -> Result<()> {
    let stage = stage(&[])?;
    until(&stage, PORT, 200, 2)?;
    let pod = [EndpointSpec::ready(stage.lab.pod_address(0))];
    serve(&stage.lab, &stage.manifests, &pod, PORT + 1)?;
    until(&stage, PORT + 1, 200, 1)?;
    until_closed(&stage, PORT)?;
    stage.manifests.remove("web.yaml")?;
    until_closed(&stage, PORT + 1)
}

#[test]
fn probes_of_either_family_are_answered_for_a_service_of_one() -> Result<()> {
    let (lab, manifests) = prepared()?;
    lab.node().sysctl(&[("net.ipv6.conf.lo.disable_ipv6", "0")])?;
    let mut stage = Stage::start(lab, manifests, &[])?;
    stage.until(|maps| serves(maps, "web"));
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let count = soon("an answer", || {
            let answer = ask(stage.lab.node(), address, PORT, "GET", "/healthz").ok()?;
            (answer.status == 200).then(|| answer.json()["localEndpoints"].clone())
        });
        assert_eq!(count.with_context(|| format!("at {address}"))?, 2);
    }
    Ok(())
}

#[test]
fn a_port_that_something_else_has_is_told_and_taken_when_it_is_free_and_others_are_unaffected() -> Result<()> {
    let (lab, manifests) = prepared()?;
    let taken = lab.node().run(|| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))))?;
    let api = service_with(&lab, "api", 1, &[EndpointSpec::ready(lab.pod_address(1))]);
    manifests.write("api.yaml", &with_port(&api, PORT + 1))?;
    let mut stage = Stage::start(lab, manifests, &["--health-check-node-ports", "on"])?;
    let told = stage.until_refused(&[
        "Service default/web",
        "health check port 30123",
        "in use",
        "--health-check-node-ports off",
    ]);
    assert!(stage.agent.log().contains(&told));
    until(&stage, PORT + 1, 200, 1)?;
    drop(taken);
    until(&stage, PORT, 200, 2)?;
    stage.until(|maps| refusal(maps, &["health check port"]).is_none());
    assert_eq!(stage.agent.log().matches("health check port 30123 (IPv4) cannot").count(), 1, "told once");
    Ok(())
}

#[test]
fn by_default_a_port_that_kube_proxy_has_is_left_to_it_and_off_opens_none() -> Result<()> {
    let (lab, manifests) = prepared()?;
    let _taken = lab.node().run(|| TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))))?;
    let mut stage = Stage::start(lab, manifests, &[])?;
    soon("told", || stage.agent.log().contains("health check port 30123 (IPv4) of default/web: left").then_some(()))?;
    let maps = stage.until(|maps| serves(maps, "web"));
    assert_eq!(refusal(&maps, &["health check port"]), None);
    drop(stage);

    let stage = self::stage(&["--health-check-node-ports", "off"])?;
    assert!(get(stage.lab.node(), PORT, "/healthz").is_err());
    Ok(())
}

fn stage(arguments: &[&str]) -> Result<Stage> {
    let (lab, manifests) = prepared()?;
    Stage::start(lab, manifests, arguments)
}

/// Two pods behind `default/web` with policy Local and a health port.
fn prepared() -> Result<(Lab, Manifests)> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    let pods: Vec<_> = lab.pods().map(|pod| EndpointSpec::ready(lab.pod_address(pod))).collect();
    serve(&lab, &manifests, &pods, PORT)?;
    Ok((lab, manifests))
}

fn serve(lab: &Lab, manifests: &Manifests, endpoints: &[EndpointSpec], port: u16) -> Result<()> {
    manifests.write("web.yaml", &with_port(&service_with(lab, "web", 0, endpoints), port))
}

fn with_port(yaml: &str, port: u16) -> String {
    let local = format!("externalTrafficPolicy: Local\n  healthCheckNodePort: {port}\n");
    yaml.replace("externalTrafficPolicy: Cluster\n", &local)
}

fn until(stage: &Stage, port: u16, status: u16, count: usize) -> Result<Answered> {
    soon(&format!("{status} with {count} at port {port}"), || {
        let answer = get(stage.lab.node(), port, "/healthz").ok()?;
        (answer.status == status && answer.json()["localEndpoints"] == count).then_some(answer)
    })
}

fn until_closed(stage: &Stage, port: u16) -> Result<()> {
    soon("closed", || get(stage.lab.node(), port, "/healthz").is_err().then_some(()))
}
