//! Which Services are served: VIPs that are no VIPs, Services that are none of xlb's, and two that want the same.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_common::abi::SourceKeyV4;
use xlb_tests::lab::{Greeting, LabSpec, LineClient, TcpServer};
use xlb_userspace::maps::live::LiveMaps;
use xlb_userspace::maps::pins::PinDirectory;

use crate::stage::{PORT, Stage, find, lab, refusal, serves, service};

/// The node's own address is reached as before; without it the VIP is one.
#[test]
fn an_address_of_the_node_is_no_vip() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let own = stage.lab.vip(1);
    stage.lab.node().ip(&format!("address add {own}/32 dev lo"))?;
    let server = TcpServer::start(stage.lab.node(), stage.vip(1), "node", Greeting::OnRequest)?;
    let mut to_node = LineClient::connect(stage.lab.client(0), stage.vip(1))?;
    assert_eq!(to_node.identity()?.server, "node");

    stage.manifests.write("api.yaml", &service(&stage.lab, "api", 1, &[0]))?;
    stage.until_refused(&["Service default/api", &own.to_string(), "address of this node", "give the Service"]);
    assert_eq!(to_node.identity()?.server, "node");
    assert_eq!(stage.who(1)?, "node");
    assert!(find(&stage.agent.inspect()?, "api").is_none());

    server.stop();
    stage.lab.node().ip(&format!("address del {own}/32 dev lo"))?;
    stage.until_answers(1, "pod-0")?;
    assert_eq!(refusal(&stage.agent.inspect()?, &["default/api"]), None);
    held.answers()
}

#[test]
fn a_vip_that_becomes_an_address_of_the_node_is_left_to_it() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.manifests.write("api.yaml", &service(&stage.lab, "api", 1, &[0]))?;
    stage.until(|maps| serves(maps, "api"));
    let mut held = stage.hold(0)?;
    stage.lab.node().ip(&format!("address add {}/32 dev lo", stage.lab.vip(1)))?;
    let _server = TcpServer::start(stage.lab.node(), stage.vip(1), "node", Greeting::OnRequest)?;
    stage.until_answers(1, "node")?;
    stage.until_refused(&["Service default/api", "address of this node"]);
    held.answers()
}

/// A name, changes to a Service of type LoadBalancer, and what is said of it: nothing where Kubernetes does not ask for
/// its being served.
type NotServed = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const NOT_SERVED: &[NotServed] = &[
    (
        "external-ips",
        &[("status:\n", "oldStatus:\n"), ("spec:\n", "spec:\n  externalIPs: [VIP]\n")],
        &["VIP", "--external-ip-cidrs"],
    ),
    ("hostname", &[("- ip: VIP", "- hostname: lb.example.org")], &[]),
    ("ip-mode-proxy", &[("- ip: VIP", "- ip: VIP\n      ipMode: Proxy")], &[]),
    ("headless", &[("clusterIP: 10.96.0.10", "clusterIP: None")], &[]),
    ("external-name", &[("type: LoadBalancer", "type: ExternalName")], &[]),
    (
        "other-proxy",
        &[("metadata:\n", "metadata:\n  labels: {service.kubernetes.io/service-proxy-name: other}\n")],
        &[],
    ),
    ("without-status", &[("status:\n", "oldStatus:\n")], &[]),
    ("ipv6", &[("- ip: VIP", "- ip: 2001:db8::80")], &["2001:db8::80", "IPv6 cluster IP", "spec.ipFamilyPolicy"]),
    ("loopback", &[("- ip: VIP", "- ip: 127.0.0.5")], &["127.0.0.5", "unicast"]),
    ("dccp", &[("protocol: TCP", "protocol: DCCP")], &["port 80", "DCCP", "TCP, UDP or SCTP"]),
    ("no-cluster-ip", &[("  clusterIP: 10.96.0.10\n", "")], &["VIP", "cluster IP", "spec.clusterIP"]),
];

#[test]
fn what_is_not_for_xlb_is_not_served_and_surprises_are_told() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    for (index, (name, changes, _)) in NOT_SERVED.iter().enumerate() {
        let vip = stage.lab.vip(1 + index).to_string();
        let yaml = changes.iter().fold(service(&stage.lab, name, 1 + index, &[0]), |yaml, (from, to)| {
            let from = from.replace("VIP", &vip);
            assert!(yaml.contains(&from), "{name}: {from:?} is not in {yaml}");
            yaml.replacen(&from, &to.replace("VIP", &vip), 1)
        });
        stage.manifests.write(&format!("{name}.yaml"), &yaml)?;
    }
    // The last one to be read.
    stage.manifests.write("zz.yaml", &service(&stage.lab, "last", 1 + NOT_SERVED.len(), &[1]))?;
    let maps = stage.until(|maps| serves(maps, "last") && refusal(maps, &["no-cluster-ip"]).is_some());

    for (index, (name, _, parts)) in NOT_SERVED.iter().enumerate() {
        let vip = stage.lab.vip(1 + index).to_string();
        assert_eq!(find(&maps, name), None, "{name}");
        assert!(!maps["services"].to_string().contains(&vip), "{name}");
        let told = refusal(&maps, &[name]);
        assert_eq!(told.is_some(), !parts.is_empty(), "{name}: {told:?}");
        let parts: Vec<String> = parts.iter().map(|part| part.replace("VIP", &vip)).collect();
        assert!(parts.iter().all(|part| told.as_ref().is_some_and(|told| told.contains(part))), "{name}: {told:?}");
    }
    assert_eq!(stage.who(1 + NOT_SERVED.len())?, "pod-1");
    held.answers()
}

/// What a Service asks of its clients reaches the maps, outlives the agent, and goes when it is asked for no more.
#[test]
fn source_ranges_and_affinity_follow_the_manifest() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let vip = stage.lab.vip(1);
    let plain = service(&stage.lab, "api", 1, &[0]);
    let spec = "spec:\n  loadBalancerSourceRanges: [' 198.51.100.7/24 ', 198.18.0.0/15]\n  sessionAffinity: ClientIP\n";
    stage.manifests.write("api.yaml", &plain.replacen("spec:\n", spec, 1))?;
    let expected = serde_json::json!({
        "frontends": [format!("{vip}:80/tcp")],
        "ranges": ["198.18.0.0/15", "198.51.100.0/24"],
    });
    let is_asked = |maps: &Value| {
        let api = find(maps, "api");
        api.is_some_and(|api| api["sources"] == expected && api["affinity_s"] == 10_800)
    };
    stage.until(is_asked);
    stage.agent.kill()?;
    stage.agent.start_again()?;
    stage.until(|maps| maps["agent"]["is_running"] == true && is_asked(maps));
    for (client, is_allowed) in [([198, 51, 100, 9], true), ([198, 19, 255, 1], true), ([198, 51, 101, 9], false)] {
        assert_eq!(is_allowed_source(&stage, "default/api:http", client)?, is_allowed, "{client:?}");
    }

    stage.manifests.write("api.yaml", &plain)?;
    stage.until(|maps| find(maps, "api").is_some_and(|api| api["sources"].is_null() && api["affinity_s"].is_null()));
    stage.until_answers(1, "pod-0")?;
    held.answers()
}

/// The maps of IPv6 are filled as those of IPv4 are: a dual-stack Service is one service in each.
#[test]
fn a_dual_stack_service_is_in_the_maps_of_both_families() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let vip = stage.lab.vip(1);
    let both = service(&stage.lab, "api", 1, &[0])
        .replace("clusterIP: 10.96.0.10\n", "clusterIPs: [10.96.0.10, 'fd00:96::10']\n")
        .replace(&format!("- ip: {vip}"), &format!("- ip: {vip}\n    - ip: 2001:db8::80"));
    stage.manifests.write("api.yaml", &both)?;
    let frontend_of = |maps: &Value, name: &str| {
        let all = maps["services"].as_array().into_iter().flatten();
        all.into_iter().find(|service| service["name"] == name).map(|service| service["frontends"][0].clone())
    };
    stage.until(|maps| {
        frontend_of(maps, "default/api:http") == Some(format!("{vip}:80/tcp").into())
            && frontend_of(maps, "default/api:http/ipv6") == Some("[2001:db8::80]:80/tcp".into())
    });
    stage.until_answers(1, "pod-0")?;
    held.answers()
}

#[test]
fn an_external_ip_is_served_where_the_operator_allows_it() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let manifests = xlb_tests::lab::Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    for (index, name) in [(1, "allowed"), (2, "elsewhere")] {
        let spec = format!("spec:\n  externalIPs: [{}]\n", lab.vip(index));
        let yaml = service(&lab, name, index, &[1]).replace("status:\n", "oldStatus:\n").replacen("spec:\n", &spec, 1);
        manifests.write(&format!("{name}.yaml"), &yaml)?;
    }
    let range = format!("{}/32", lab.vip(1));
    let mut stage = Stage::start(lab, manifests, &["--external-ip-cidrs", &range])?;
    stage.until_answers(1, "pod-1")?;
    stage.until_refused(&["Service default/elsewhere", &stage.lab.vip(2).to_string(), "--external-ip-cidrs"]);
    Ok(())
}

#[test]
fn of_two_services_with_one_frontend_the_older_has_it() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 3, ..LabSpec::default() })?;
    let manifests = xlb_tests::lab::Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[2]))?;
    manifests.write("a.yaml", &created(&service(&lab, "a", 1, &[0]), "2024-05-02T00:00:00Z"))?;
    manifests.write("b.yaml", &created(&service(&lab, "b", 1, &[1]), "2024-05-01T00:00:00Z"))?;
    manifests.write("c.yaml", &service(&lab, "c", 1, &[2]))?;
    let mut stage = Stage::start(lab, manifests, &[])?;
    let mut held = stage.hold(0)?;
    let vip = stage.lab.vip(1).to_string();

    for (winner, pod, losers) in [("b", "pod-1", &["a", "c"][..]), ("a", "pod-0", &["c"]), ("c", "pod-2", &[])] {
        stage.until(|maps| serves(maps, winner));
        stage.until_answers(1, pod)?;
        for loser in losers {
            let owner = format!("default/{winner}");
            stage.until_refused(&[
                &format!("Service default/{loser}"),
                &vip,
                "port 80",
                &owner,
                "change one of the two",
            ]);
        }
        stage.manifests.remove(&format!("{winner}.yaml"))?;
    }
    stage.until(|maps| find(maps, "c").is_none() && maps["refusals"] == Value::Array(Vec::new()));
    held.answers()
}

/// A winner that arrives late takes over, as on every other node.
#[test]
fn an_older_service_that_comes_later_takes_the_frontend() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.manifests.write("b.yaml", &service(&stage.lab, "b", 1, &[0]))?;
    stage.until_answers(1, "pod-0")?;
    stage.manifests.write("c.yaml", &created(&service(&stage.lab, "c", 1, &[1]), "2024-05-01T00:00:00Z"))?;
    stage.until_answers(1, "pod-1")?;
    stage.until_refused(&["Service default/b", "default/c"]);
    stage.manifests.write("a.yaml", &service(&stage.lab, "a", 1, &[0]))?;
    stage.until_refused(&["Service default/a", "default/c"]);
    assert_eq!(stage.who(1)?, "pod-1");
    Ok(())
}

/// The same address and port with two protocols are two frontends, and so are two ports.
#[test]
fn one_vip_can_serve_several_services() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let api = service(&stage.lab, "api", 0, &[1]).replace("port: 80\n", "port: 81\n");
    stage.manifests.write("api.yaml", &api)?;
    stage.lab.serve_udp(0, 5353)?;
    let dns = service(&stage.lab, "dns", 0, &[0])
        .replace("protocol: TCP", "protocol: UDP")
        .replace("port: 8080", "port: 5353");
    stage.manifests.write("dns.yaml", &dns)?;
    let maps = stage.until(|maps| {
        let names: Vec<&str> =
            maps["services"].as_array().into_iter().flatten().filter_map(|it| it["name"].as_str()).collect();
        names.contains(&"default/api:http") && names.contains(&"default/dns:http/udp")
    });
    assert_eq!(maps["refusals"], Value::Array(Vec::new()));
    let at = |port| std::net::SocketAddrV4::new(stage.lab.vip(0), port);
    assert_eq!(LineClient::connect(stage.lab.client(0), at(81))?.identity()?.server, "pod-1");
    let answer = xlb_tests::lab::udp_ask(stage.lab.client(0), at(PORT), "who", std::time::Duration::from_secs(3))?;
    assert!(answer.starts_with("pod-0 ") && answer.ends_with(" who"), "{answer}");
    assert!(answer.contains(&Ipv4Addr::to_string(&stage.lab.client_address(0))), "{answer}");
    held.answers()
}

/// What the programs find in the source ranges.
fn is_allowed_source(stage: &Stage, name: &str, client: [u8; 4]) -> Result<bool> {
    let maps = LiveMaps::open(&PinDirectory::new(stage.lab.pin_directory()))?;
    let observed = maps.observed()?;
    let found = observed.services.iter().find(|(_, service)| service.name == name);
    let (&service, _) = found.context("the service is not in the maps")?;
    Ok(maps.v4.is_allowed_source(SourceKeyV4 { service, client }))
}

fn created(yaml: &str, time: &str) -> String {
    yaml.replacen("metadata:\n", &format!("metadata:\n  creationTimestamp: {time}\n"), 1)
}
