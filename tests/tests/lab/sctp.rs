//! SCTP with real packets, from crafted peers: opened, used and ended through a VIP, by each door and delivery.
//!
//! Each peer drops, and counts, what arrives with a wrong sum; nothing on the way leaves sums to a device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_tests::lab::{
    Agent, Association, EndpointSpec, Greeting, Lab, LabSpec, LineClient, Manifests, SctpServer, ServiceSpec,
    SliceSpec, Version, ask, service_yaml, slice_yaml, udp_ask, wait_for,
};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, SILENCE, list, service_name, start_agent, takers};

/// The VIP's port of all three protocols: the pods have another one for each.
const PORT: u16 = 80;
/// A port that is the same on the pods.
const SAME_PORT: u16 = 3868;
const SCTP_TARGET_PORT: u16 = 3899;
const TCP_TARGET_PORT: u16 = 8080;
const UDP_TARGET_PORT: u16 = 5353;
/// Bytes of messages: with each kind of padding, and some with more than one digit of length.
const MESSAGES: [usize; 7] = [1, 2, 3, 4, 5, 100, 1_201];

/// The Service `default/three`: its ports, and those of its pods.
const PORTS: [(&str, &str, u16, u16); 4] = [
    ("sig", "SCTP", PORT, SCTP_TARGET_PORT),
    ("same", "SCTP", SAME_PORT, SAME_PORT),
    ("web", "TCP", PORT, TCP_TARGET_PORT),
    ("dns", "UDP", PORT, UDP_TARGET_PORT),
];

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Clients of one test never use a port twice: raw sockets do not reserve any.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);

/// A lab with the Service, its pods' servers, and an agent.
struct Stage {
    agent: Agent,
    manifests: Manifests,
    servers: Vec<SctpServer>,
    lab: Lab,
    version: Version,
}

impl Stage {
    fn up(version: Version, delivery: Delivery, door: Door) -> Result<Stage> {
        let spec = LabSpec { dual_stack: version == Version::V6, pod_gro: true, pod_count: 2, ..LabSpec::default() };
        let mut lab = Lab::new(spec)?;
        let manifests = Manifests::new()?;
        manifests.write("service.yaml", &service(&lab, version, false))?;
        manifests.write("slice.yaml", &slice(&[0, 1].map(|pod| ready(&lab, version, pod))))?;
        let servers = serve(&mut lab, version)?;
        let agent = start_agent(&lab, &manifests, delivery, door, &[])?;
        let mut stage = Stage { agent, manifests, servers, lab, version };
        stage.wait_for_agent();
        stage.wait_for_takers(&[0, 1]);
        if door != Door::Tc && delivery == Delivery::Direct {
            stage.agent.wait_until(|maps| list(maps, "backends").all(|backend| backend["takes_xdp"] == true));
        }
        Ok(stage)
    }

    fn vip(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.lab.vip_in(self.version, 0), port)
    }

    fn open(&self, port: u16) -> Result<Association> {
        Association::open(self.lab.client(0), NEXT_PORT.fetch_add(1, Ordering::SeqCst), self.vip(port))
    }

    /// Publishes these endpoints, and waits until exactly the `takers` among them get new associations.
    fn set_endpoints(&mut self, endpoints: &[EndpointSpec], takers: &[usize]) -> Result<()> {
        self.manifests.write("slice.yaml", &slice(endpoints))?;
        self.wait_for_takers(takers);
        Ok(())
    }

    /// The kernel's verifier has to look at the programs, which takes seconds on a busy machine.
    fn wait_for_agent(&self) {
        let is_up = || self.agent.inspect().is_ok_and(|maps| !maps["agent"].is_null()).then_some(());
        assert!(wait_for(START_TIMEOUT, is_up).is_some(), "the agent does not come up");
    }

    fn wait_for_takers(&mut self, pods: &[usize]) {
        for (name, protocol, _, port) in PORTS {
            let suffix = if protocol == "TCP" { String::new() } else { format!("/{}", protocol.to_lowercase()) };
            let name = service_name(&format!("default/three:{name}{suffix}"), self.version);
            let address = |pod: &usize| SocketAddr::new(self.lab.pod_address_in(self.version, *pod), port);
            let expected = pods.iter().map(address).collect();
            self.agent.wait_until(|maps| takers(maps, &name) == expected);
        }
    }

    /// Asks, and checks that the pod saw the client and its whole message. Returns the pod's name.
    fn check(&self, association: &Association, length: usize) -> Result<String> {
        let message = "m".repeat(length);
        let answer = association.ask(&message)?;
        let [pod, client, echoed] = answer.split(' ').collect::<Vec<_>>()[..] else { panic!("{answer}") };
        assert_eq!((client, echoed), (association.local_address()?.to_string().as_str(), message.as_str()));
        Ok(pod.to_owned())
    }

    fn wrong_packets(&self) -> usize {
        self.servers.iter().map(SctpServer::wrong_packets).sum()
    }
}

fn service(lab: &Lab, version: Version, local_policy: bool) -> String {
    let (vips, ports) = ([lab.vip_in(version, 0)], PORTS.map(|(name, protocol, port, _)| (name, protocol, port)));
    let (namespace, name) = ("default", "three");
    service_yaml(&ServiceSpec { namespace, name, vips: &vips, ports: &ports, local_policy, ..ServiceSpec::default() })
}

fn slice(endpoints: &[EndpointSpec]) -> String {
    let ports = PORTS.map(|(name, protocol, _, port)| (name, protocol, port));
    slice_yaml(&SliceSpec { namespace: "default", service: "three", ports: &ports, endpoints })
}

fn ready(lab: &Lab, version: Version, pod: usize) -> EndpointSpec {
    EndpointSpec::ready(lab.pod_address_in(version, pod))
}

fn serve(lab: &mut Lab, version: Version) -> Result<Vec<SctpServer>> {
    let any: IpAddr = if version == Version::V6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let mut servers = Vec::new();
    for pod in [0, 1] {
        lab.serve_tcp(pod, TCP_TARGET_PORT, Greeting::OnRequest)?;
        lab.serve_udp(pod, UDP_TARGET_PORT)?;
        for port in [SCTP_TARGET_PORT, SAME_PORT] {
            servers.push(SctpServer::start(lab.pod(pod), any, port, &format!("pod-{pod}"))?);
        }
    }
    Ok(servers)
}

fn check_served(version: Version, delivery: Delivery, door: Door) -> Result<()> {
    let stage = Stage::up(version, delivery, door)?;
    for port in [PORT, SAME_PORT] {
        let association = stage.open(port)?;
        let pod = stage.check(&association, 1)?;
        for length in MESSAGES {
            assert_eq!(stage.check(&association, length)?, pod, "{length} bytes");
        }
        let client = association.local_address()?;
        let is_open = || stage.servers.iter().any(|server| server.open().contains(&client));
        assert!(is_open());
        association.shut_down()?;
        assert!(wait_for(ANSWER_TIMEOUT, || (!is_open()).then_some(())).is_some(), "SHUTDOWN COMPLETE is lost");
        stage.open(port)?.abort()?;
    }
    assert_eq!(stage.wrong_packets(), 0);
    check_neighbours(&stage)?;
    let reasons = stage.agent.inspect()?["counters"].clone();
    for reason in [Reason::RepliedHalfOpen, Reason::RepliedAdmitted, Reason::Replied] {
        assert!(reasons[reason.label()].as_u64() > Some(0), "no {reason:?} in {reasons:#}");
    }
    Ok(())
}

/// TCP and UDP of the same address and number go to ports of their own.
fn check_neighbours(stage: &Stage) -> Result<()> {
    let (client, vip) = (stage.lab.client(0), stage.vip(PORT));
    let identity = LineClient::connect(client, vip)?.identity()?;
    assert_eq!(identity.local.port(), TCP_TARGET_PORT);
    assert!(ask(client, vip, "WHOAMI")?.starts_with("pod-"));
    assert!(udp_ask(client, vip, "who", ANSWER_TIMEOUT)?.starts_with("pod-"));
    Ok(())
}

#[test]
fn reaches_pods_and_returns_by_every_door_and_delivery() -> Result<()> {
    for version in Version::ALL {
        for delivery in Delivery::ALL {
            for door in Door::ALL {
                check_served(version, delivery, door).with_context(|| format!("{version:?} {delivery:?} {door:?}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn an_association_stays_with_its_pod_when_the_endpoint_is_no_longer_ready() -> Result<()> {
    for version in Version::ALL {
        let mut stage = Stage::up(version, Delivery::Direct, Door::Tc)?;
        let [pod_0, pod_1] = [0, 1].map(|pod| ready(&stage.lab, version, pod));
        stage.set_endpoints(std::slice::from_ref(&pod_0), &[0])?;
        let (open, aborted) = (stage.open(PORT)?, stage.open(SAME_PORT)?);
        assert_eq!(stage.check(&open, 10)?, "pod-0");
        let unready = EndpointSpec { ready: false, serving: false, ..pod_0 };
        stage.set_endpoints(&[unready, pod_1.clone()], &[1])?;
        assert_eq!([stage.check(&open, 10)?, stage.check(&aborted, 10)?], ["pod-0", "pod-0"]);
        assert_eq!(stage.check(&stage.open(PORT)?, 10)?, "pod-1");

        // The endpoint is deleted, and its pod lives.
        stage.set_endpoints(&[pod_1], &[1])?;
        assert_eq!(stage.check(&open, 200)?, "pod-0");
        stage.agent.kill()?;
        stage.agent.start_again()?;
        stage.wait_for_agent();
        stage.wait_for_takers(&[1]);
        assert_eq!(stage.check(&open, 200)?, "pod-0", "after a restart");
        open.shut_down()?;
        assert_eq!(stage.wrong_packets(), 0);
    }
    Ok(())
}

#[test]
fn an_empty_service_refuses_and_an_empty_node_is_silent() -> Result<()> {
    for version in Version::ALL {
        let mut stage = Stage::up(version, Delivery::Direct, Door::Tc)?;
        let remote = EndpointSpec { node: "other".into(), ..ready(&stage.lab, version, 0) };
        for (endpoints, is_local, is_refused) in [(vec![], false, true), (vec![remote], true, false)] {
            stage.manifests.write("service.yaml", &service(&stage.lab, version, is_local))?;
            stage.set_endpoints(&endpoints, &[])?;
            let expected = if is_refused { "reject" } else { "drop" };
            stage.agent.wait_until(|maps| list(maps, "services").all(|service| service["when_empty"] == expected));
            let port = NEXT_PORT.fetch_add(1, Ordering::SeqCst);
            let timeout = if is_refused { ANSWER_TIMEOUT } else { SILENCE };
            let error = Association::refusal(stage.lab.client(0), port, stage.vip(PORT), timeout)?;
            assert_eq!(error.map(|error| error.kind()), is_refused.then_some(std::io::ErrorKind::ConnectionRefused));
        }
    }
    Ok(())
}
