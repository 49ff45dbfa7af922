//! Clients inside: processes of the node and of its pods reach VIPs through the programs that an agent attaches to a cgroup
//! of the test's own.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use xlb_tests::lab::{
    Agent, Cgroup, EndpointSpec, Greeting, Lab, LabSpec, LineClient, Manifests, Namespace, ServiceSpec, SliceSpec,
    service_yaml, slice_yaml, udp_ask, udp_ask_unconnected, wait_for,
};

use crate::stage::{PORT, TARGET_PORT, with_sizes};

const PORTS: &[(&str, &str, u16)] = &[("http", "TCP", PORT), ("dns", "UDP", PORT)];
const TARGET_PORTS: &[(&str, &str, u16)] = &[("http", "TCP", TARGET_PORT), ("dns", "UDP", TARGET_PORT)];
const CLIENTS_INSIDE: &str = "--clients-inside";
/// How long a client waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the agent may take.
const SOON: Duration = Duration::from_secs(30);

/// A lab whose first pod is of this node and whose second stands for one of another node. The fields go in this order.
struct Stage {
    agent: Agent,
    manifests: Manifests,
    cgroup: Cgroup,
    lab: Lab,
}

#[test]
fn a_local_service_without_a_local_pod_is_reached_from_the_node_and_its_pods() -> Result<()> {
    let stage = Stage::up(&[elsewhere(1)], "")?;
    for place in [stage.lab.node(), stage.lab.pod(0), stage.lab.pod(1)] {
        let mut client = LineClient::connect(place, stage.vip())?;
        assert_eq!(client.stream().peer_addr()?, SocketAddr::V4(stage.vip()), "from {}", place.name());
        assert_eq!(client.identity()?.server, "pod-1");
        assert!(udp_ask(place, stage.vip(), "?", PATIENCE)?.starts_with("pod-1 "));
        let (answer, sender) = udp_ask_unconnected(place, stage.vip(), "?", PATIENCE)?;
        assert!(answer.starts_with("pod-1 "), "{answer}");
        assert_eq!(sender, SocketAddr::V4(stage.vip()));
    }
    let maps = stage.agent.inspect()?;
    assert_eq!(inside(&maps, "http"), Some((1, 0)));
    assert_eq!(maps["services"][0]["backends"], Value::Array(vec![]), "nobody outside is served here");
    let flows = inside_of(&maps).filter_map(|service| service["traffic"]["inside_flows"].as_u64());
    assert_eq!(flows.sum::<u64>(), 9, "three sockets in each of three places");
    assert!(
        stage.agent.run_xlb(&["services", "web"])?.contains("clients on this node reach 1 endpoints of the cluster")
    );
    Ok(())
}

#[test]
fn a_change_of_the_endpoints_moves_new_connections_and_ends_none() -> Result<()> {
    let mut stage = Stage::up(&[elsewhere(1)], "")?;
    let mut old = LineClient::connect(stage.lab.node(), stage.vip())?;
    stage.publish(&[here(0)], "")?;
    stage.until_inside_is(Some((1, 0)), "pod-0")?;
    assert_eq!(old.identity()?.server, "pod-1");
    assert_eq!(LineClient::connect(stage.lab.pod(0), stage.vip())?.identity()?.server, "pod-0", "it reaches itself");

    stage.publish(&[], "")?;
    stage.agent.wait_until(|maps| inside(maps, "http") == Some((0, 0)));
    for place in [stage.lab.node(), stage.lab.pod(0)] {
        assert_eq!(stage.connect(place), Err(ErrorKind::ConnectionRefused), "from {}", place.name());
    }
    Ok(())
}

#[test]
fn with_external_policy_pods_get_the_local_endpoints_and_the_node_those_of_the_cluster() -> Result<()> {
    let mut stage = Stage::with(&[here(0), elsewhere(1)], "", &[CLIENTS_INSIDE, "external-policy"])?;
    for (place, expected) in [(stage.lab.pod(0), &["pod-0"][..]), (stage.lab.node(), &["pod-0", "pod-1"])] {
        let servers = (0..40).map(|_| Ok(LineClient::connect(place, stage.vip())?.identity()?.server));
        let servers = servers.collect::<Result<BTreeSet<String>>>()?;
        assert!(servers.iter().eq(expected), "{servers:?} from {}", place.name());
    }
    assert!(udp_ask_unconnected(stage.lab.pod(1), stage.vip(), "?", PATIENCE)?.0.starts_with("pod-0 "));
    assert!(
        stage.agent.run_xlb(&["services", "web"])?.contains("reach 2 endpoints of the cluster, in pods 1 of this node")
    );

    stage.publish(&[elsewhere(1)], "")?;
    stage.until_inside_is(Some((1, 0)), "pod-1")?;
    assert_eq!(stage.connect(stage.lab.pod(0)), Err(ErrorKind::PermissionDenied));
    assert_eq!(stage.agent.inspect()?["services"][0]["inside"]["for_pods"], 0);

    stage.agent.kill()?;
    let cgroup = stage.cgroup.path().display().to_string();
    let arguments = with_sizes(&[CLIENTS_INSIDE, "on", "--cgroup", &cgroup]);
    let mut other = Agent::start(&stage.lab, stage.manifests.path(), &arguments)?;
    other.wait_until(|maps| maps["services"][0]["inside"]["for_pods"].is_null());
    assert_eq!(LineClient::connect(stage.lab.pod(0), stage.vip())?.identity()?.server, "pod-1");
    Ok(())
}

/// The agent has told the programs the node's address, else its processes would be left to the stack.
#[test]
fn source_ranges_are_for_the_node_too() -> Result<()> {
    let mut stage = Stage::up(&[elsewhere(1)], "198.51.100.0/24")?;
    assert_eq!(stage.connect(stage.lab.node()), Err(ErrorKind::PermissionDenied));
    stage.publish(&[elsewhere(1)], "192.0.2.0/24, 10.0.0.0/8")?;
    stage.until_inside_is(Some((1, 0)), "pod-1")?;
    Ok(())
}

#[test]
fn clients_inside_are_served_while_no_agent_runs_and_by_the_next_one() -> Result<()> {
    let mut stage = Stage::up(&[elsewhere(1)], "")?;
    let before = stage.links()?;
    assert_eq!(before.iter().filter(|link| is_of_inside(link)).count(), 8, "{before:?}");
    stage.agent.kill()?;
    assert_eq!(LineClient::connect(stage.lab.pod(0), stage.vip())?.identity()?.server, "pod-1");

    stage.agent.start_again()?;
    let is_running = |maps: Value| maps["agent"]["is_running"] == true;
    while !stage.agent.inspect().is_ok_and(is_running) {
        stage.connect(stage.lab.pod(0)).map_err(|kind| anyhow!("a client met {kind} while the agent started"))?;
    }
    let before_counts = stage.served()?;
    assert_eq!(LineClient::connect(stage.lab.pod(0), stage.vip())?.identity()?.server, "pod-1");
    assert_eq!(stage.served()?, before_counts + 1, "one program serves, not the old one as well");
    assert_eq!(stage.links()?, before);
    stage.publish(&[here(0)], "")?;
    stage.until_inside_is(Some((1, 0)), "pod-0")
}

#[test]
fn an_agent_that_is_told_to_serve_nobody_inside_detaches_and_empties() -> Result<()> {
    let mut stage = Stage::up(&[elsewhere(1)], "")?;
    stage.agent.kill()?;
    let arguments = with_sizes(&[CLIENTS_INSIDE, "off"]);
    let mut other = Agent::start(&stage.lab, stage.manifests.path(), &arguments)?;
    other.wait_until(|maps| maps["agent"]["is_running"] == true && inside(maps, "http").is_none());
    let has_detached = || stage.links().ok().filter(|links| !links.iter().any(|link| is_of_inside(link)));
    wait_for(SOON, has_detached).context("the programs are still attached")?;
    assert!(stage.connect(stage.lab.pod(0)).is_err());
    Ok(())
}

#[test]
fn the_end_of_the_agent_is_the_end_of_service_inside_unless_the_dataplane_is_kept() -> Result<()> {
    let mut stage = Stage::up(&[elsewhere(1)], "")?;
    stage.agent.stop()?;
    let is_over = wait_for(SOON, || stage.connect(stage.lab.pod(0)).is_err().then_some(()));
    is_over.context("clients inside are still served")?;

    let mut kept = Stage::with(&[elsewhere(1)], "", &["--keep-dataplane"])?;
    kept.agent.stop()?;
    assert_eq!(LineClient::connect(kept.lab.pod(0), kept.vip())?.identity()?.server, "pod-1");
    kept.agent.run_xlb(&["cleanup"])?;
    let is_over = wait_for(SOON, || kept.connect(kept.lab.pod(0)).is_err().then_some(()));
    is_over.context("clients inside are served after the cleanup")
}

impl Stage {
    /// An agent that serves `default/web`, with policy Local, at the first VIP.
    fn up(endpoints: &[Endpoint], ranges: &str) -> Result<Stage> {
        Stage::with(endpoints, ranges, &[])
    }

    /// The same with more arguments. The pods are outside of the cgroup, as they serve on threads made before it.
    fn with(endpoints: &[Endpoint], ranges: &str, arguments: &[&str]) -> Result<Stage> {
        let mut lab = Lab::new(LabSpec { pod_count: 2, clients: 0, ..LabSpec::default() })?;
        for pod in lab.pods() {
            lab.serve_tcp(pod, TARGET_PORT, Greeting::OnRequest)?;
            lab.serve_udp(pod, TARGET_PORT)?;
        }
        let manifests = Manifests::new()?;
        manifests.write("web.yaml", &web(&lab, endpoints, ranges))?;
        let cgroup = Cgroup::enter()?;
        let path = cgroup.path().display().to_string();
        let inside = if arguments.contains(&CLIENTS_INSIDE) { &[][..] } else { &[CLIENTS_INSIDE, "on"] };
        let arguments = [inside, &["--cgroup", &path], arguments].concat();
        let mut agent = Agent::start(&lab, manifests.path(), &with_sizes(&arguments))?;
        agent.wait_until(|maps| inside_of(maps).count() == 2);
        Ok(Stage { agent, manifests, cgroup, lab })
    }

    fn publish(&self, endpoints: &[Endpoint], ranges: &str) -> Result<()> {
        self.manifests.write("web.yaml", &web(&self.lab, endpoints, ranges))
    }

    fn until_inside_is(&mut self, expected: Option<(u64, u64)>, server: &str) -> Result<()> {
        self.agent.wait_until(|maps| inside(maps, "http") == expected);
        let who = || Some(LineClient::connect(self.lab.node(), self.vip()).ok()?.identity().ok()?.server);
        wait_for(SOON, || who().filter(|name| name == server)).map(drop).with_context(|| format!("not {server}"))
    }

    fn vip(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.lab.vip(0), PORT)
    }

    fn connect(&self, from: &Namespace) -> Result<(), ErrorKind> {
        let vip = self.vip().into();
        from.run(|| TcpStream::connect_timeout(&vip, PATIENCE)).map(drop).map_err(|error| error.kind())
    }

    /// Names of the pinned links.
    fn links(&self) -> Result<Vec<String>> {
        let mut versions = fs::read_dir(self.lab.pin_directory())?;
        let links = versions.next().context("no dataplane")??.path().join("links");
        ensure!(self.cgroup.path().exists());
        let mut names = Vec::new();
        for link in fs::read_dir(links)? {
            names.push(link?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Connections of clients inside so far.
    fn served(&self) -> Result<u64> {
        Ok(self.agent.inspect()?["counters"]["inside_served"].as_u64().unwrap_or(0))
    }
}

/// A pod by its number, and whether it is on this node.
type Endpoint = (usize, bool);

fn here(pod: usize) -> Endpoint {
    (pod, true)
}

fn elsewhere(pod: usize) -> Endpoint {
    (pod, false)
}

fn web(lab: &Lab, endpoints: &[Endpoint], ranges: &str) -> String {
    let vips = [lab.vip(0).into()];
    let node = |is_here| if is_here { "node" } else { "elsewhere" }.to_owned();
    let endpoints: Vec<EndpointSpec> = endpoints
        .iter()
        .map(|&(pod, is_here)| EndpointSpec { node: node(is_here), ..EndpointSpec::ready(lab.pod_address(pod)) })
        .collect();
    let restricted = format!("loadBalancerSourceRanges: [{ranges}]");
    let fields: &[&str] = if ranges.is_empty() { &[] } else { &[&restricted] };
    let service =
        ServiceSpec { namespace: "default", name: "web", vips: &vips, ports: PORTS, local_policy: true, fields };
    let slice = SliceSpec { namespace: "default", service: "web", ports: TARGET_PORTS, endpoints: &endpoints };
    format!("{}---\n{}", service_yaml(&service), slice_yaml(&slice))
}

/// How many endpoints clients inside get at a port, and how many linger.
fn inside(maps: &Value, port: &str) -> Option<(u64, u64)> {
    let name = format!("default/web:{port}");
    let service = maps["services"].as_array()?.iter().find(|service| service["name"] == *name)?;
    Some((service["inside"]["endpoints"].as_u64()?, service["inside"]["lingering"].as_u64()?))
}

fn inside_of(maps: &Value) -> impl Iterator<Item = &Value> {
    let services = maps["services"].as_array().into_iter().flatten();
    services.filter(|service| service["inside"]["endpoints"].is_u64())
}

fn is_of_inside(link: &str) -> bool {
    ["connect", "sendmsg", "recvmsg", "getpeername"].iter().any(|program| link.starts_with(program))
}
