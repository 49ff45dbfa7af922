//! A Service without a usable pod on this node.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};

use anyhow::Result;
use xlb_common::Reason;
use xlb_tests::lab::{Agent, EndpointSpec, Greeting, Lab, LabSpec, LineClient, Manifests, TcpServer, udp_ask};

use crate::scene::{Delivery, Door, PORT, SILENCE, start_agent, web, web_slice};

/// Where the node serves what is not xlb's.
const NODE_PORT: u16 = 9000;
/// A pod of another node.
const REMOTE_POD: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 9);

#[test]
fn with_policy_local_the_client_hears_nothing() -> Result<()> {
    for door in Door::ALL {
        let (agent, _manifests, lab) = start(true, door)?;
        let vip = SocketAddrV4::new(lab.vip(0), PORT);
        let refusal = lab.client(0).run(|| TcpStream::connect_timeout(&vip.into(), SILENCE)).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::TimedOut);
        assert!(udp_ask(lab.client(0), vip, "hello", SILENCE).is_err());
        let counters = agent.inspect()?["counters"].clone();
        assert!(counters[Reason::EmptyDropped.label()].as_u64() >= Some(2), "{counters}");
        assert_eq!(counters[Reason::EmptyPassed.label()].as_u64(), None);
    }
    Ok(())
}

#[test]
fn with_policy_cluster_kube_proxy_serves() -> Result<()> {
    for door in Door::ALL {
        let (agent, _manifests, lab) = start(false, door)?;
        let vip = SocketAddrV4::new(lab.vip(0), PORT);
        redirect_to_node(&lab)?;
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, NODE_PORT);
        let _server = TcpServer::start(lab.node(), any, "node", Greeting::OnRequest)?;
        let identity = LineClient::connect(lab.client(0), vip)?.identity()?;
        assert_eq!(identity.server, "node");
        let counters = agent.inspect()?["counters"].clone();
        assert!(counters[Reason::EmptyPassed.label()].as_u64() > Some(0), "{counters}");
        assert_eq!(counters[Reason::EmptyDropped.label()].as_u64(), None);
    }
    Ok(())
}

/// An agent whose only Service has its only endpoint on another node.
fn start(local_policy: bool, door: Door) -> Result<(Agent, Manifests, Lab)> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    let remote = EndpointSpec { node: "another".to_owned(), ..EndpointSpec::ready(REMOTE_POD) };
    manifests.write("all.yaml", &format!("{}---\n{}", web(&lab, local_policy), web_slice(&[remote])))?;
    let mut agent = start_agent(&lab, &manifests, Delivery::Direct, door, &[])?;
    agent.wait_until(|maps| maps["services"].as_array().is_some_and(|services| services.len() == 3));
    Ok((agent, manifests, lab))
}

/// What kube-proxy does, made short: the VIP becomes a server that the node's stack can reach.
fn redirect_to_node(lab: &Lab) -> Result<()> {
    let to = SocketAddrV4::new(lab.uplink(0).node_address, NODE_PORT);
    let rules = format!(
        "add table ip nat; add chain ip nat prerouting {{ type nat hook prerouting priority dstnat; }}; \
         add rule ip nat prerouting ip daddr {} tcp dport {PORT} dnat to {to}",
        lab.vip(0)
    );
    lab.node().output("nft", &[&rules])?;
    Ok(())
}
