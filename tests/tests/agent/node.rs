//! A node that changes under the agent, without a word from Kubernetes: pods' links and uplinks come and go.

use std::net::Ipv6Addr;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_common::abi::Uplink;
use xlb_tests::lab::{EndpointSpec, Greeting, Lab, LabSpec, PodShape, wait_for};
use xlb_userspace::maps::live::LiveMaps;
use xlb_userspace::maps::pins::PinDirectory;

use crate::stage::{Held, LATER, Stage, TARGET_PORT, backend, refusal, serves, service_with, socket, takers};

#[test]
fn a_pod_whose_link_is_gone_gets_no_more_connections() -> Result<()> {
    for pods in PodShape::ALL {
        let mut stage = Stage::with(LabSpec { pods, pod_count: 3, ..LabSpec::default() }, &[])?;
        stage.until(|maps| takers(maps, "web").len() == 3);
        let mut held = [stage.hold_at(0, "pod-1")?, stage.hold_at(0, "pod-2")?];
        let before = identity(&stage.agent.inspect()?, &stage.lab, 0);

        stage.lab.remove_pod(0)?;
        let gone = stage.lab.pod_address(0).to_string();
        let others = [socket(&stage.lab, 1), socket(&stage.lab, 2)];
        stage
            .until(|maps| takers(maps, "web") == others && maps["backends"].as_array().is_some_and(|it| it.len() == 2));
        stage.until_refused(&["endpoint", &gone, "default/web", "not reachable from this node"]);
        answer_all(&mut held)?;
        for _ in 0..5 {
            assert_ne!(stage.who(0)?, "pod-0");
        }

        stage.lab.add_pod_again(0)?;
        stage.lab.serve_tcp(0, TARGET_PORT, Greeting::OnRequest)?;
        let maps = stage.until(|maps| takers(maps, "web").len() == 3 && refusal(maps, &[&gone]).is_none());
        assert_ne!(identity(&maps, &stage.lab, 0), before, "another pod is another backend");
        drop(stage.hold_at(0, "pod-0")?);
        answer_all(&mut held)?;
    }
    Ok(())
}

#[test]
fn an_endpoint_that_is_not_here_is_told_and_served_when_it_comes() -> Result<()> {
    for pods in PodShape::ALL {
        let mut stage = Stage::with(LabSpec { pods, pod_count: 2, ..LabSpec::default() }, &[])?;
        let mut held = [stage.hold_at(0, "pod-0")?, stage.hold_at(0, "pod-1")?];
        let (later, elsewhere) = (stage.lab.pod_address(2), stage.lab.client_address(7));
        let mut endpoints: Vec<EndpointSpec> = [0, 1].map(|pod| EndpointSpec::ready(stage.lab.pod_address(pod))).into();
        endpoints.extend([EndpointSpec::ready(later), EndpointSpec::ready(elsewhere)]);
        stage.manifests.write("web.yaml", &service_with(&stage.lab, "web", 0, &endpoints))?;

        for address in [later, elsewhere] {
            let object = format!("endpoint {address} of default/web");
            stage.until_refused(&[&object, "not reachable from this node", "nodeName", "\"node\""]);
        }
        answer_all(&mut held)?;
        assert_eq!(takers(&stage.agent.inspect()?, "web").len(), 2);
        assert!(stage.who(0).is_ok());

        assert_eq!(stage.lab.add_pod()?, 2);
        stage.lab.serve_tcp(2, TARGET_PORT, Greeting::OnRequest)?;
        let maps = stage.until(|maps| takers(maps, "web").len() == 3);
        assert!(refusal(&maps, &[&elsewhere.to_string()]).is_some());
        drop(stage.hold_at(0, "pod-2")?);
        answer_all(&mut held)?;
    }
    Ok(())
}

/// The same address behind another link: the pod was replaced faster than anyone could tell.
#[test]
fn a_pod_replaced_at_once_is_another_backend() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold_at(0, "pod-1")?;
    let before = identity(&stage.agent.inspect()?, &stage.lab, 0);
    stage.lab.remove_pod(0)?;
    stage.lab.add_pod_again(0)?;
    stage.lab.serve_tcp(0, TARGET_PORT, Greeting::OnRequest)?;
    drop(stage.hold_at(0, "pod-0")?);
    let address = socket(&stage.lab, 0);
    let maps = stage.until(|maps| takers(maps, "web").contains(&address));
    assert_ne!(identity(&maps, &stage.lab, 0), before);
    held.answers()
}

#[test]
fn an_uplink_made_anew_is_served_again() -> Result<()> {
    let mut stage = Stage::up()?;
    let (before, generation) = (attached(&stage), stage.agent.inspect()?["generation"].clone());
    assert!(stage.who(0).is_ok());
    remove_uplink(&stage.lab, 0)?;
    stage.until_refused(&["uplink eth0", "eth0", "lo"]);

    add_uplink(&stage.lab, 0)?;
    let maps = stage.until(|maps| refusal(maps, &["uplink eth0"]).is_none());
    assert!(maps["generation"].as_u64() >= generation.as_u64());
    assert!(stage.who(0).is_ok());
    assert_ne!(attached(&stage), before);
    assert_eq!(attached(&stage).len(), before.len(), "pins of the uplink that is gone go with it");
    Ok(())
}

/// What comes by the other uplink is served meanwhile, and changes take effect.
#[test]
fn an_uplink_that_is_gone_does_not_hold_up_the_other() -> Result<()> {
    let mut stage = Stage::with(LabSpec { pod_count: 2, uplinks: 2, ..LabSpec::default() }, &[])?;
    let by_second = &stage.lab.uplink(1).node_address;
    stage.lab.router().ip(&format!("route replace 203.0.113.0/24 via {by_second}"))?;
    let mut held = stage.hold_at(0, "pod-1")?;
    remove_uplink(&stage.lab, 0)?;
    // Without its default route the node would refuse what comes from clients (rp_filter).
    stage.lab.node().ip(&format!("route add default via {}", stage.lab.uplink(1).router_address))?;
    stage.until_refused(&["uplink eth0"]);
    held.answers()?;

    stage.serve_pods(&[0])?;
    let left = [socket(&stage.lab, 0)];
    stage.until(|maps| takers(maps, "web") == left);
    assert_eq!(stage.who(0)?, "pod-0");
    stage.lab.remove_pod(0)?;
    stage.until(|maps| !serves(maps, "web") || takers(maps, "web").is_empty());
    held.answers()
}

/// A bond that fails over, or an operator, gives it another one.
#[test]
fn an_uplink_with_another_mac_is_served_on() -> Result<()> {
    let stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    stage.lab.node().ip("link set eth0 address 02:00:00:00:00:77\nneigh flush dev eth0")?;
    stage.lab.router().ip("neigh flush dev uplink0")?;
    stage.until_answers(0, "pod-0")?;
    stage.until_answers(0, "pod-1")?;
    held.answers()
}

/// From these the node reports errors to clients.
#[test]
fn the_programs_know_an_uplinks_addresses_and_follow_them() -> Result<()> {
    let stage = Stage::up()?;
    let known = || -> Result<Uplink> {
        let maps = LiveMaps::open(&PinDirectory::new(stage.lab.pin_directory()))?;
        let links = attached(&stage);
        let index = links.iter().find_map(|link| link.rsplit_once('-')?.1.parse().ok()).context("no uplink")?;
        maps.uplink(index).context("the uplink is not in the maps")
    };
    assert_eq!(known()?.address_v4, stage.lab.uplink(0).node_address.octets());
    stage.lab.node().sysctl(&[("net.ipv6.conf.eth0.disable_ipv6", "0")])?;
    let address: Ipv6Addr = "2001:db8:ff::7".parse()?;
    stage.lab.node().ip(&format!("address add {address}/64 dev eth0 nodad"))?;
    let know = |octets: [u8; 16]| wait_for(LATER, || (known().ok()?.address_v6 == octets).then_some(()));
    know(address.octets()).context("the programs do not learn of a new address")?;
    // The link-local one that is left is not meant for clients.
    stage.lab.node().ip(&format!("address del {address}/64 dev eth0"))?;
    know([0; 16]).context("the programs do not forget an address")
}

/// Both ends of an uplink vanish with one of them.
fn remove_uplink(lab: &Lab, index: usize) -> Result<()> {
    lab.node().ip(&format!("link del {}", lab.uplink(index).node_device))
}

fn add_uplink(lab: &Lab, index: usize) -> Result<()> {
    let uplink = lab.uplink(index);
    lab.router().ip(&format!(
        "link add {router} type veth peer name {node} netns {netns}\n\
         address add {router_address}/29 dev {router}\n\
         link set {router} up",
        router = uplink.router_device,
        router_address = uplink.router_address,
        node = uplink.node_device,
        netns = lab.node().name(),
    ))?;
    lab.node().ip(&format!(
        "address add {node_address}/29 dev {node}\n\
         link set {node} up\n\
         route add default via {router_address}\n\
         link show dev {node}",
        node = uplink.node_device,
        node_address = uplink.node_address,
        router_address = uplink.router_address,
    ))?;
    lab.router()
        .ip(&format!("route add 203.0.113.0/24 via {}\nlink show dev {}", uplink.node_address, uplink.router_device))
}

/// The pins of links to interfaces.
fn attached(stage: &Stage) -> std::collections::BTreeSet<String> {
    let links = std::fs::read_dir(stage.lab.pin_directory().join(format!("v{}/links", xlb_common::abi::ABI_VERSION)))
        .into_iter()
        .flatten()
        .flatten();
    let names = links.map(|link| link.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("ingress") || name.starts_with("uplink")).collect()
}

/// What tells a backend from every other that had its address.
fn identity(maps: &Value, lab: &Lab, pod: usize) -> (Value, Value) {
    let backend = backend(maps, lab, pod).unwrap_or(&Value::Null);
    (backend["id"].clone(), backend["generation"].clone())
}

fn answer_all(held: &mut [Held]) -> Result<()> {
    held.iter_mut().try_for_each(Held::answers)
}
