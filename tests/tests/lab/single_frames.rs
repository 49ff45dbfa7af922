//! Single frames from the router: what expires, what is for another host, what only pretends to open a connection.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::Result;
use xlb_common::Reason;
use xlb_tests::kernel::frame::{ICMP, OTHER_MAC, Spec};
use xlb_tests::lab::{Capture, LabSpec, LineClient, send_frames, wait_for};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, Scene, TARGET_PORT, list};

/// ICMP type "time exceeded" (RFC 792).
const TIME_EXCEEDED: u8 = 11;
const SPOOFED: u16 = 2000;

#[test]
fn a_packet_that_expires_here_is_reported_by_the_node() -> Result<()> {
    let doors = Door::ALL.map(|door| (Delivery::Direct, door));
    for (delivery, door) in doors.into_iter().chain([(Delivery::Stack, Door::Tc)]) {
        let scene = Scene::new(LabSpec { pod_gro: true, ..LabSpec::default() }, delivery, door)?;
        let text = format!("udp {}:40000 {} ttl 1 data 32", scene.lab.client_address(0), scene.vip());
        let frame = scene.frame(&text)?;
        let capture = Capture::start(scene.lab.client(0), "eth0")?;
        scene.send(&frame)?;
        scene.counters()?;
        let reports: Vec<Vec<u8>> = capture.stop()?.into_iter().map(|frame| frame.bytes).collect();
        let node = scene.lab.uplink(0).node_address.octets();
        let is_report = |bytes: &&Vec<u8>| {
            bytes[12..14] == [8, 0] && bytes[23] == ICMP && bytes[26..30] == node && bytes[34] == TIME_EXCEEDED
        };
        let report = reports.iter().find(is_report).expect("a report from the node");
        // The report quotes what the client sent (RFC 1812 chapter 4.3.2.3), headers and all.
        assert!(report[42..].starts_with(&frame.build()[14..42]), "{report:02x?}");
        let reason = if delivery == Delivery::Direct { Reason::TtlExpired } else { Reason::ErrorReplied };
        scene.counters()?.assert_some(&[reason]);
        assert!(scene.udp.values().all(|server| server.peers().iter().all(|peer| peer.port() != 40_000)));
    }
    Ok(())
}

#[test]
fn frames_for_other_hosts_are_not_taken() -> Result<()> {
    for door in Door::ALL {
        let scene = Scene::new(LabSpec { pod_gro: true, ..LabSpec::default() }, Delivery::Direct, door)?;
        scene.lab.node().ip("link set eth0 promisc on")?;
        let client = scene.lab.client_address(0);
        let ours = scene.frame(&format!("udp {client}:40000 {} data 32", scene.vip()))?;
        for (port, to) in [(40_001, OTHER_MAC), (40_002, [0xff; 6]), (40_003, ours.to)] {
            scene.send(&Spec { to, source: SocketAddr::from((client, port)), ..ours.clone() })?;
        }
        let peers = || scene.udp.values().flat_map(|server| server.peers()).filter(|peer| peer.ip() == client);
        let arrived = wait_for(ANSWER_TIMEOUT, || peers().any(|peer| peer.port() == 40_003).then_some(()));
        assert!(arrived.is_some(), "the frame for this node is lost");
        assert!(peers().eq([SocketAddrV4::new(client, 40_003).into()]));
    }
    Ok(())
}

#[test]
fn spoofed_syns_are_not_remembered_as_accepted() -> Result<()> {
    for delivery in Delivery::ALL {
        let scene = Scene::new(LabSpec::default(), delivery, Door::Tc)?;
        let mut open = LineClient::connect(scene.lab.client(0), scene.vip())?;
        let pod = scene.check_identity(&mut open)?;
        let captures: Result<Vec<Capture>> =
            scene.lab.pods().map(|pod| Capture::start(scene.lab.pod(pod), "eth0")).collect();
        let captures = captures?;

        let syn = scene.frame(&format!("tcp 100.64.0.0:1024 {} S", scene.vip()))?;
        let source = |number: u16| SocketAddr::from(([100, 64, (number >> 8) as u8, number as u8], 1024));
        let syns: Vec<Vec<u8>> =
            (0..SPOOFED).map(|number| Spec { source: source(number), ..syn.clone() }.build()).collect();
        send_frames(scene.lab.router(), &scene.lab.uplink(0).router_device, &syns)?;
        let served = |count: u64| scene.counters().is_ok_and(|counters| counters.of(Reason::SlotOwner) >= count);
        wait_for(ANSWER_TIMEOUT, || served(SPOOFED.into()).then_some(()));

        let frames: Result<Vec<_>> = captures.into_iter().map(Capture::stop).collect();
        let seen = frames?.iter().flatten().filter(|frame| !frame.is_outgoing && is_spoofed_syn(&frame.bytes)).count();
        assert_eq!(seen, usize::from(SPOOFED), "SYNs that the pods saw");
        let maps = scene.agent.inspect()?;
        let accepted: Vec<&str> = list(&maps, "flows")
            .filter(|flow| flow["protocol"] == "tcp" && flow["state"] == "accepted")
            .filter_map(|flow| flow["client"].as_str())
            .collect();
        assert_eq!(accepted, [open.local_address()?.to_string()]);
        assert_eq!(scene.check_identity(&mut open)?, pod);
        scene.check_connection(0)?;
    }
    Ok(())
}

/// A SYN from 100.64.0.0/16 to the pod's port.
fn is_spoofed_syn(frame: &[u8]) -> bool {
    frame.len() >= 54
        && frame[12..14] == [8, 0]
        && frame[23] == xlb_common::abi::TCP
        && frame[26..28] == [100, 64]
        && frame[36..38] == TARGET_PORT.to_be_bytes()
        && frame[47] == xlb_common::parse::tcp_flags::SYN
}
