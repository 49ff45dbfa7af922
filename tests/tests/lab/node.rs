//! Nodes that are not as usual: two uplinks, one that does not forward, and one that is a pod itself.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use serde_json::Value;
use xlb_tests::lab::{
    Capture, EndpointSpec, Frame, Greeting, Lab, LabSpec, LineClient, PodShape, TcpServer, UdpClient, UdpServer,
    Version,
};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, PORT, Scene, TARGET_PORT, service_name, takers, web_slice};

const TRIES: usize = 20;
const BULK_BYTES: u64 = 1_000_000;

/// The default route leads over eth0. Replies must not take it: a router may filter by source there.
#[test]
fn replies_leave_by_the_uplink_by_which_the_client_came() -> Result<()> {
    for pods in PodShape::ALL {
        let lab = Lab::new(LabSpec { pods, uplinks: 2, ..LabSpec::default() })?;
        route_vips_over(&lab, 1)?;
        let scene = Scene::on(lab, Delivery::Direct, Door::Tc, &[])?;
        let captures = [0, 1].map(|uplink| Capture::start(scene.lab.node(), &scene.lab.uplink(uplink).node_device));
        for _ in 0..TRIES {
            scene.check_connection(0)?;
            scene.check_datagram(0)?;
        }
        let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
        open.download(BULK_BYTES)?;

        let [first, second] = captures.map(|capture| capture?.stop());
        assert_eq!(packets_of_vip(&scene, &first?), (0, 0));
        let (requests, replies) = packets_of_vip(&scene, &second?);
        assert!(requests > TRIES && replies > TRIES, "{requests} requests, {replies} replies");
        // The router changes its mind; the connection goes on.
        route_vips_over(&scene.lab, 0)?;
        scene.check_identity(&mut open)?;
        scene.check_connection(0)?;
    }
    Ok(())
}

#[test]
fn direct_delivery_needs_no_forwarding() -> Result<()> {
    for pods in PodShape::ALL {
        let lab = Lab::new(LabSpec { pods, ..LabSpec::default() })?;
        lab.node().sysctl(&[("net.ipv4.ip_forward", "0")])?;
        let scene = Scene::on(lab, Delivery::Direct, Door::Tc, &[])?;
        for _ in 0..TRIES {
            scene.check_connection(0)?;
            scene.check_datagram(0)?;
        }
    }
    Ok(())
}

/// A pod on the host's network has the node's address: what it answers, the node itself sends.
#[test]
fn a_pod_on_the_hosts_network_is_served() -> Result<()> {
    for door in [Door::Tc, Door::XdpGeneric, Door::XdpNative] {
        let spec = LabSpec { dual_stack: true, pod_count: 1, ..LabSpec::default() };
        let mut scene = Scene::new(spec, Delivery::Stack, door)?;
        let uplink = scene.lab.uplink(0);
        let addresses: [IpAddr; 2] = [uplink.node_address.into(), uplink.node_address_v6.into()];
        let sockets = addresses.map(|address| SocketAddr::new(address, TARGET_PORT));
        let serve_tcp = |socket| TcpServer::start(scene.lab.node(), socket, "node", Greeting::OnRequest);
        let _tcp = sockets.map(serve_tcp).into_iter().collect::<Result<Vec<_>>>()?;
        let serve_udp = |socket| UdpServer::start(scene.lab.node(), socket, "node");
        let _udp = sockets.map(serve_udp).into_iter().collect::<Result<Vec<_>>>()?;
        scene.manifests.write("slice.yaml", &web_slice(&addresses.map(EndpointSpec::ready)))?;
        for (version, socket) in Version::ALL.into_iter().zip(sockets) {
            let services = ["default/web:http", "default/web:udp/udp"].map(|name| service_name(name, version));
            let serves = |maps: &Value, name: &String| takers(maps, name) == [socket].into();
            scene.agent.wait_until(|maps| services.iter().all(|name| serves(maps, name)));
            let vip = SocketAddr::new(scene.lab.vip_in(version, 0), PORT);
            for _ in 0..TRIES {
                let mut connection = LineClient::connect(scene.lab.client(0), vip)?;
                let (identity, client) = (connection.identity()?, connection.local_address()?);
                assert_eq!((&*identity.server, identity.peer, identity.local), ("node", client, socket));
                connection.download(BULK_BYTES)?;
                let asking = UdpClient::connect(scene.lab.client(0), vip)?;
                let expected = format!("node {} hello", asking.local_address()?);
                assert_eq!(asking.ask("hello", ANSWER_TIMEOUT)?, expected);
            }
        }
    }
    Ok(())
}

fn route_vips_over(lab: &Lab, uplink: usize) -> Result<()> {
    lab.router().ip(&format!("route replace 203.0.113.0/24 via {}", lab.uplink(uplink).node_address))
}

/// IPv4 packets to the VIP that came in, and from the VIP that went out.
fn packets_of_vip(scene: &Scene, frames: &[Frame]) -> (usize, usize) {
    let vip = scene.lab.vip(0).octets();
    let count = |is_outgoing, address: std::ops::Range<usize>| {
        let ipv4 = frames.iter().filter(|frame| frame.is_outgoing == is_outgoing && frame.bytes[12..14] == [8, 0]);
        ipv4.filter(|frame| frame.bytes[address.clone()] == vip).count()
    };
    (count(false, 30..34), count(true, 26..30))
}
