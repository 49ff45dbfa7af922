//! A VIP is more than its Services' ports: it answers ping, and what nobody serves there is passed, dropped or refused, and
//! never circles.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::Ebpf;
use xlb_common::Reason;
use xlb_tests::kernel::headers::Layout;
use xlb_tests::lab::{Capture, EndpointSpec, Lab, LabSpec, Namespace, PodShape, Version, wait_for};

use crate::answers::{answer_apart, take_frames};
use crate::scene::{Delivery, Door, SILENCE, Scene, frame, list, ready};

/// A port that no Service has.
const UNOWNED_PORT: u16 = 9999;
/// Within this time a counter has followed a packet.
const COUNTED: Duration = Duration::from_secs(5);
/// The protocol number of TCP, and its flags.
const TCP: u8 = 6;
const RESET_AND_ACK: u8 = 0x14;

#[test]
fn a_vip_answers_ping_while_a_pod_serves() -> Result<()> {
    for (pods, delivery, door) in [
        (PodShape::Routed, Delivery::Direct, Door::Tc),
        (PodShape::Bridge, Delivery::Stack, Door::Tc),
        (PodShape::Routed, Delivery::Direct, Door::XdpNative),
        (PodShape::Routed, Delivery::Direct, Door::XdpGeneric),
    ] {
        let (mut scene, _object) = start(LabSpec { pods, pod_count: 1, ..LabSpec::default() }, delivery, door, &[])?;
        for version in Version::ALL {
            assert!(is_answered(&scene.lab, scene.lab.vip_in(version, 0), 56)?, "{version:?} by {door:?}");
            assert!(is_answered(&scene.lab, scene.lab.vip_in(version, 0), 1400)?, "{version:?} by {door:?}");
            assert!(!is_answered(&scene.lab, scene.lab.vip_in(version, 9), 56)?, "no VIP, {version:?} by {door:?}");
        }
        scene.counters()?.assert_some(&[Reason::EchoAnswered]);

        leave_nobody(&mut scene)?;
        for version in Version::ALL {
            assert!(!is_answered(&scene.lab, scene.lab.vip_in(version, 0), 56)?, "{version:?} by {door:?}");
        }
        scene.counters()?.assert_some(&[Reason::EchoUnanswered]);

        scene.set_endpoints(&ready(&scene.lab, &[0]), &[0])?;
        for version in Version::ALL {
            assert!(is_answered(&scene.lab, scene.lab.vip_in(version, 0), 56)?, "{version:?} by {door:?}");
        }
    }
    Ok(())
}

#[test]
fn ping_can_be_switched_off() -> Result<()> {
    let (scene, _object) = start(LabSpec::default(), Delivery::Direct, Door::Tc, &["--vip-echo", "off"])?;
    for version in Version::ALL {
        assert!(!is_answered(&scene.lab, scene.lab.vip_in(version, 0), 56)?);
    }
    scene.counters()?.assert_none(&[Reason::EchoAnswered, Reason::EchoUnanswered]);
    Ok(())
}

/// The router sends VIPs to the node, whose default route leads back to the router.
#[test]
fn what_is_passed_for_a_vip_never_circles() -> Result<()> {
    for door in Door::ALL {
        for delivery in [Delivery::Direct, Delivery::Stack] {
            let (scene, _object) = start(LabSpec::default(), delivery, door, &["--vip-echo", "off"])?;
            for version in Version::ALL {
                let (client, vip) = (scene.lab.client_address_in(version, 0), scene.lab.vip_in(version, 0));
                let ends = |port| format!("{} {}", SocketAddr::new(client, 40_000), SocketAddr::new(vip, port));
                for packet in [
                    format!("udp {} data 40", ends(UNOWNED_PORT)),
                    format!("tcp {} S", ends(UNOWNED_PORT)),
                    format!("icmp {} echo", ends(0)),
                ] {
                    let before = scene.counters()?.of(Reason::VipLooped);
                    let seen = seen_by_router(&scene.lab, &packet)?;
                    assert_eq!(seen, 0, "`{packet}` came back to the router, {door:?}, {delivery:?}");
                    let is_counted = || (scene.counters().ok()?.of(Reason::VipLooped) > before).then_some(());
                    wait_for(COUNTED, is_counted).with_context(|| format!("`{packet}` by {door:?}"))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_port_that_no_service_has_is_dropped_or_refused_if_the_operator_says_so() -> Result<()> {
    for door in Door::ALL {
        for (choice, tcp, reason) in [
            ("drop", ErrorKind::TimedOut, Reason::UnownedDropped),
            ("reject", ErrorKind::ConnectionRefused, Reason::UnownedRejected),
        ] {
            let (mut scene, _object) = start(LabSpec::default(), Delivery::Direct, door, &["--vip-unowned", choice])?;
            for version in Version::ALL {
                scene.version = version;
                let unowned = SocketAddr::new(scene.lab.vip_in(version, 0), UNOWNED_PORT);
                assert_eq!(failure(scene.lab.client(0), unowned), tcp, "{choice}, {version:?}, {door:?}");
                scene.check_connection(0)?;
            }
            let counters = scene.counters()?;
            counters.assert_some(&[reason]);
            counters.assert_none(&[Reason::VipLooped]);
        }
    }
    Ok(())
}

#[test]
fn tcp_is_refused_by_a_reset_of_the_vip_if_the_operator_says_so() -> Result<()> {
    for door in Door::ALL {
        let (mut scene, _object) = start(LabSpec::default(), Delivery::Direct, door, &["--reject-tcp-with", "reset"])?;
        leave_nobody(&mut scene)?;
        for version in Version::ALL {
            scene.version = version;
            let capture = Capture::start(scene.lab.client(0), "eth0")?;
            assert_eq!(failure(scene.lab.client(0), scene.vip()), ErrorKind::ConnectionRefused, "{version:?} {door:?}");
            let frames = capture.stop()?;
            let resets = frames.iter().filter(|frame| !frame.is_outgoing && is_reset_of(&frame.bytes, scene.vip()));
            assert!(resets.count() >= 1, "{version:?} by {door:?}: refused otherwise");
        }
        scene.counters()?.assert_some(&[Reason::EmptyRejected]);
    }
    Ok(())
}

/// A dual-stack scene whose answers are heard.
fn start(spec: LabSpec, delivery: Delivery, door: Door, arguments: &[&str]) -> Result<(Scene, Ebpf)> {
    let lab = Lab::new(LabSpec { dual_stack: true, pod_gro: true, ..spec })?;
    let object = take_frames(&lab)?;
    answer_apart(&lab)?;
    let scene = Scene::on(lab, delivery, door, arguments)?;
    // Whoever is to be answered at once must know its neighbours.
    let uplink = scene.lab.uplink(0);
    for node in [IpAddr::from(uplink.node_address), uplink.node_address_v6.into()] {
        scene.lab.client(0).output("ping", &["-c", "1", "-W", "3", &node.to_string()])?;
    }
    Ok((scene, object))
}

/// Takes the Service's endpoints away, in the whole cluster.
fn leave_nobody(scene: &mut Scene) -> Result<()> {
    let nobody: &[EndpointSpec] = &[];
    scene.set_endpoints(nobody, &[])?;
    scene.agent.wait_until(|maps| {
        list(maps, "services").all(|service| service["when_empty"] == "reject")
            && list(maps, "vips").all(|vip| vip["is_usable"] == false)
    });
    Ok(())
}

/// Whether one of two pings with so many bytes is answered, and whole.
fn is_answered(lab: &Lab, vip: IpAddr, bytes: usize) -> Result<bool> {
    let words = ["-c", "2", "-i", "0.2", "-W", "2", "-s", &bytes.to_string(), &vip.to_string()].map(str::to_owned);
    let output = lab.client(0).run(|| Command::new("ping").args(&words).output()).context("running ping")?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("wrong data"), "{text}");
    Ok(output.status.success())
}

/// How many frames the router gets back of a packet that it sends to the node.
fn seen_by_router(lab: &Lab, packet: &str) -> Result<usize> {
    let (router, device) = (lab.router(), &lab.uplink(0).router_device);
    let sent = frame(lab, packet)?.build();
    let capture = Capture::start(router, device)?;
    xlb_tests::lab::send_frame(router, device, &sent)?;
    // A circle is done 60 times within this time.
    std::thread::sleep(Duration::from_millis(150));
    let is_back = |bytes: &[u8]| {
        Layout::of(bytes).is_some_and(|at| at.addresses(bytes) == Layout::of(&sent).expect("it is IP").addresses(&sent))
    };
    Ok(capture.stop()?.iter().filter(|frame| !frame.is_outgoing && is_back(&frame.bytes)).count())
}

fn failure(from: &Namespace, to: SocketAddr) -> ErrorKind {
    from.run(|| TcpStream::connect_timeout(&to, SILENCE)).expect_err("nobody serves").kind()
}

fn is_reset_of(frame: &[u8], vip: SocketAddr) -> bool {
    Layout::of(frame).is_some_and(|at| {
        frame[at.protocol_at] == TCP
            && at.ends(frame)[0] == vip
            && frame.get(at.transport_at + 13) == Some(&RESET_AND_ACK)
    })
}
