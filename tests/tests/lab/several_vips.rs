//! Several Services on one node: each VIP, port and protocol leads to its own pods.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddrV4};

use anyhow::{Context, Result};
use xlb_tests::lab::{
    Agent, EndpointSpec, Greeting, Lab, LabSpec, Manifests, ServiceSpec, SliceSpec, ask, service_yaml, slice_yaml,
    udp_ask,
};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, SILENCE, pod_number, start_agent, takers};

/// A Service: its name, its VIPs, its ports with those of its pods, its pods.
struct Row {
    name: &'static str,
    vips: &'static [usize],
    ports: &'static [(&'static str, &'static str, u16, u16)],
    pods: &'static [usize],
}

const WEB: &[(&str, &str, u16, u16)] = &[("http", "TCP", 80, 8080), ("https", "TCP", 443, 8443)];
const DNS: &[(&str, &str, u16, u16)] = &[("dns", "UDP", 53, 5353), ("dns-tcp", "TCP", 53, 5354)];

/// Two ingress controllers side by side, one of them at two addresses, and a name server.
const ROWS: [Row; 3] = [
    Row { name: "ingress-a", vips: &[0], ports: WEB, pods: &[0, 1] },
    Row { name: "ingress-b", vips: &[1, 2], ports: WEB, pods: &[2] },
    Row { name: "names", vips: &[0], ports: DNS, pods: &[1, 2] },
];

/// Enough that each of two pods is met: all but one case in 2^39.
const TRIES: usize = 40;

#[test]
fn lead_to_different_pods() -> Result<()> {
    for delivery in Delivery::ALL {
        let mut lab = Lab::new(LabSpec::default())?;
        let manifests = Manifests::new()?;
        for row in &ROWS {
            publish(&lab, &manifests, row)?;
            serve(&mut lab, row)?;
        }
        let mut agent = start_agent(&lab, &manifests, delivery, Door::Tc, &[])?;
        ROWS.iter().for_each(|row| wait_until_served(&lab, &mut agent, row));
        for row in &ROWS {
            check(&lab, row).with_context(|| format!("{} by {delivery:?}", row.name))?;
        }
        // VIP 1 has no name server.
        let unserved = SocketAddrV4::new(lab.vip(1), 53);
        assert!(udp_ask(lab.client(0), unserved, "who", SILENCE).is_err());
    }
    Ok(())
}

fn publish(lab: &Lab, manifests: &Manifests, row: &Row) -> Result<()> {
    let vips: Vec<IpAddr> = row.vips.iter().map(|&vip| lab.vip(vip).into()).collect();
    let ports: Vec<_> = row.ports.iter().map(|&(name, protocol, port, _)| (name, protocol, port)).collect();
    let target_ports: Vec<_> = row.ports.iter().map(|&(name, protocol, _, port)| (name, protocol, port)).collect();
    let endpoints: Vec<_> = row.pods.iter().map(|&pod| EndpointSpec::ready(lab.pod_address(pod))).collect();
    let (namespace, name) = ("default", row.name);
    let service = ServiceSpec { namespace, name, vips: &vips, ports: &ports, ..ServiceSpec::default() };
    let slice = SliceSpec { namespace, service: name, ports: &target_ports, endpoints: &endpoints };
    manifests.write(&format!("{name}.yaml"), &format!("{}---\n{}", service_yaml(&service), slice_yaml(&slice)))
}

fn serve(lab: &mut Lab, row: &Row) -> Result<()> {
    for &pod in row.pods {
        for &(_, protocol, _, port) in row.ports {
            match protocol {
                "TCP" => drop(lab.serve_tcp(pod, port, Greeting::OnRequest)?),
                _ => drop(lab.serve_udp(pod, port)?),
            }
        }
    }
    Ok(())
}

fn wait_until_served(lab: &Lab, agent: &mut Agent, row: &Row) {
    for &(port_name, protocol, _, port) in row.ports {
        let suffix = if protocol == "UDP" { "/udp" } else { "" };
        let name = format!("default/{}:{port_name}{suffix}", row.name);
        let pods = row.pods.iter().map(|&pod| SocketAddrV4::new(lab.pod_address(pod), port).into()).collect();
        agent.wait_until(|maps| takers(maps, &name) == pods);
    }
}

/// Each VIP and port of a Service leads to all of its pods, and to no other.
fn check(lab: &Lab, row: &Row) -> Result<()> {
    for &vip in row.vips {
        for &(_, protocol, port, target_port) in row.ports {
            let to = SocketAddrV4::new(lab.vip(vip), port);
            let mut met = BTreeSet::new();
            for _ in 0..TRIES {
                let answer = match protocol {
                    "TCP" => ask(lab.client(0), to, "WHOAMI")?,
                    _ => udp_ask(lab.client(0), to, "who", ANSWER_TIMEOUT)?,
                };
                let words: Vec<&str> = answer.split(' ').collect();
                met.insert(pod_number(words[0])?);
                let pod = SocketAddrV4::new(lab.pod_address(pod_number(words[0])?), target_port);
                assert!(protocol != "TCP" || words[2] == pod.to_string(), "{answer}");
            }
            assert!(met.iter().eq(row.pods), "{to} leads to {met:?}");
        }
    }
    Ok(())
}
