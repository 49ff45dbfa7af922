//! What is not for a VIP passes as if xlb were not there: byte for byte, and for the node's own services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::ops::Range;

use anyhow::{Result, ensure};
use xlb_common::Reason;
use xlb_tests::kernel::frame::{ICMP, Spec};
use xlb_tests::lab::{
    Capture, Frame, Greeting, LabSpec, LineClient, Namespace, PodShape, TcpServer, UdpServer, Version, ask,
    send_frames, udp_ask,
};

use crate::scene::{ANSWER_TIMEOUT, Delivery, Door, PORT, Scene, TARGET_PORT};

/// What the router sends to the node. C: the client, P: a pod, V: the VIP, N: the node, O: a VIP of nobody.
const FROM_ROUTER: [&str; 24] = [
    "udp C:5000 P:8080 data 40",
    "udp C:5001 P:8080 data 40 options",
    "udp C:5002 P:8080 data 40 no-sum",
    "udp C:5003 P:8080 data 64 more",
    "udp C:5003 P:8080 data 64 offset 9",
    "tcp C:5004 P:8080 A ack 1 data 10",
    "tcp C:5005 P:7 S",
    "icmp C:0 P:0",
    "udp C:5006 O:9999 data 40 ttl 3",
    "tcp C:5007 O:9999 S ttl 3",
    "icmp C:0 O:0 ttl 3",
    "udp C:5008 O:80 data 40 option 8307040a000001 ttl 3",
    "udp C:5009 O:9999 data 64 more ttl 3",
    "udp C:5009 O:9999 data 64 offset 9 ttl 3",
    "udp C:5010 V:9999 data 40 vlan 5",
    "udp C:5010 V:80 data 40 type 88b5",
    "udp C:5010 V:80 data 40 version 5",
    "udp C:5011 O:80 data 40 ttl 3",
    "udp C:5012 N:80 data 40",
    "udp C:5012 N:80 data 64 more",
    "tcp C:5013 N:80 S",
    "tcp C:5013 N:8080 A ack 1 options",
    "icmp C:0 N:0",
    "icmp C:0 N:0 ttl 1",
];

/// What a pod sends of its own accord, some of it from the port where it serves.
const FROM_POD: [&str; 8] = [
    "udp P:8080 C:6000 data 40",
    "udp P:6001 C:6001 data 40",
    "udp P:8080 C:6002 data 40 options",
    "udp P:8080 C:6003 data 64 more",
    "udp P:8080 C:6003 data 64 offset 9",
    "tcp P:8080 C:6004 SA ack 5",
    "tcp P:8080 C:6005 A ack 5 data 10",
    "icmp P:0 C:0",
];

/// ICMP errors and redirects are limited in rate, so they differ from run to run (RFC 1812 chapter 4.3.2.8).
const LIMITED_ICMP_TYPES: [u8; 3] = [3, 5, 11];
/// The identification that [`Spec`] gives its packets.
const IDENTIFICATION: [u8; 2] = [0x1c, 0x46];
/// The address that asks for the node's MAC, and has no other business.
const ASKING: [u8; 4] = [192, 0, 2, 3];
const OTHER_VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
const OTHER_VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x99);
/// Two observations in a row have to be equal; ARP disturbs the first.
const OBSERVATIONS_MAX: usize = 10;

const ETHERNET_TYPE: Range<usize> = 12..14;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];

/// Packets of one IP version that are not xlb's, and what of them can be compared.
pub struct Traffic {
    pub version: Version,
    /// Packets in the words of [`Spec::parse`], with letters for addresses.
    pub from_router: &'static [&'static str],
    pub from_pod: &'static [&'static str],
    /// Frames of the router that ask for the node's MAC and the like.
    pub asking: fn(&Scene) -> Result<Vec<Vec<u8>>>,
    /// Whether a frame belongs to this traffic, and comes every time.
    pub is_comparable: fn(&Scene, &[u8]) -> bool,
    /// The frame without what differs from run to run.
    pub without_chance: fn(Vec<u8>) -> Vec<u8>,
    /// Reasons that it meets.
    pub passed: &'static [Reason],
}

const IPV4_TRAFFIC: Traffic = Traffic {
    version: Version::V4,
    from_router: &FROM_ROUTER,
    from_pod: &FROM_POD,
    asking: |scene| {
        let uplink = scene.lab.uplink(0);
        Ok(vec![arp_request(scene.lab.router(), &uplink.router_device, uplink.node_address)?])
    },
    is_comparable: |scene, bytes| is_comparable(bytes, scene.lab.client_address(0).octets()),
    without_chance,
    passed: &[Reason::NotOurs, Reason::IpOptions, Reason::FragmentEarly, Reason::Icmp],
};

#[test]
fn other_traffic_passes_byte_for_byte_by_tc() -> Result<()> {
    check_bytes(&IPV4_TRAFFIC, Door::Tc)
}

#[test]
fn other_traffic_passes_byte_for_byte_by_generic_xdp() -> Result<()> {
    check_bytes(&IPV4_TRAFFIC, Door::XdpGeneric)
}

#[test]
fn other_traffic_passes_byte_for_byte_by_native_xdp() -> Result<()> {
    check_bytes(&IPV4_TRAFFIC, Door::XdpNative)
}

#[test]
fn services_of_the_node_and_its_probes_go_on() -> Result<()> {
    for door in [Door::Tc, Door::XdpNative] {
        for delivery in Delivery::ALL {
            let scene = Scene::new(LabSpec { pod_gro: true, ..LabSpec::default() }, delivery, door)?;
            check_node_services(&scene)?;
        }
    }
    Ok(())
}

/// With an agent and without one, the same frames pass.
pub fn check_bytes(traffic: &Traffic, door: Door) -> Result<()> {
    for (pods, delivery) in [(PodShape::Routed, Delivery::Direct), (PodShape::Bridge, Delivery::Stack)] {
        let spec = LabSpec { pods, dual_stack: traffic.version == Version::V6, pod_gro: true, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        route_pods(&scene)?;
        let with_xlb = observe(&scene, traffic)?;
        let counters = scene.counters()?;
        counters.assert_some(traffic.passed);
        counters.assert_none(&[Reason::SoleBackend, Reason::SlotOwner, Reason::UnprovenOwner, Reason::Replied]);

        scene.agent.stop()?;
        let without_xlb = observe(&scene, traffic)?;
        let is_enough = |frames: &Vec<Vec<u8>>| frames.len() >= traffic.from_pod.len();
        ensure!(without_xlb.iter().all(is_enough), "too little comes through");
        for (with, without) in with_xlb.iter().zip(&without_xlb) {
            assert_eq!(differing(with, without), Vec::<String>::new(), "frames with xlb only");
            assert_eq!(differing(without, with), Vec::<String>::new(), "frames without xlb only");
        }
    }
    Ok(())
}

/// What passes the node's uplink, a pod's device and the client's device, once that is always the same.
fn observe(scene: &Scene, traffic: &Traffic) -> Result<[Vec<Vec<u8>>; 3]> {
    let mut last = observe_once(scene, traffic)?;
    for _ in 0..OBSERVATIONS_MAX {
        let observation = observe_once(scene, traffic)?;
        if observation == last {
            return Ok(observation);
        }
        last = observation;
    }
    anyhow::bail!("no two of {OBSERVATIONS_MAX} observations are equal")
}

fn observe_once(scene: &Scene, traffic: &Traffic) -> Result<[Vec<Vec<u8>>; 3]> {
    let (lab, uplink) = (&scene.lab, scene.lab.uplink(0));
    let devices = [(lab.node(), &*uplink.node_device), (lab.pod(0), "eth0"), (lab.client(0), "eth0")];
    let captures = devices.map(|(namespace, device)| Capture::start(namespace, device));
    send_all(scene, traffic)?;
    let [node, pod, client] = captures.map(|capture| capture?.stop());
    let comparable = |frames: Vec<Frame>| {
        let frames = frames.into_iter().map(|frame| frame.bytes);
        let frames = frames.filter(|bytes| (traffic.is_comparable)(scene, bytes));
        let mut frames: Vec<Vec<u8>> = frames.map(traffic.without_chance).collect();
        frames.sort();
        frames
    };
    Ok([comparable(node?), comparable(pod?), comparable(client?)])
}

fn send_all(scene: &Scene, traffic: &Traffic) -> Result<()> {
    let (lab, uplink) = (&scene.lab, scene.lab.uplink(0));
    let outside: Result<Vec<_>> =
        traffic.from_router.iter().map(|text| Ok(scene.frame(&named(scene, text))?.build())).collect();
    let outside = [outside?, (traffic.asking)(scene)?].concat();
    send_frames(lab.router(), &uplink.router_device, &outside)?;

    let gateway = match lab.spec().pods {
        PodShape::Routed => lab.pod_host_end(0),
        PodShape::Bridge => "cni0".to_owned(),
    };
    let (from, to) = (lab.pod(0).link_address("eth0")?, lab.node().link_address(&gateway)?);
    let inside = traffic.from_pod.iter();
    let inside = inside.map(|text| Ok(Spec { from, to, ..Spec::parse(&named(scene, text))? }.build()));
    send_frames(lab.pod(0), "eth0", &inside.collect::<Result<Vec<_>>>()?)
}

/// The router knows the way to the pods.
fn route_pods(scene: &Scene) -> Result<()> {
    let lab = &scene.lab;
    if scene.version == Version::V4 {
        return lab.route_pods_from_router();
    }
    let node = lab.uplink(0).node_address_v6;
    let routes = lab.pods().map(|pod| format!("route add {}/128 via {node}", scene.pod_address(pod)));
    lab.router().ip(&routes.collect::<Vec<_>>().join("\n"))
}

/// The text with addresses in place of letters.
fn named(scene: &Scene, text: &str) -> String {
    let (lab, version, uplink) = (&scene.lab, scene.version, scene.lab.uplink(0));
    let (node, other): (IpAddr, IpAddr) = match version {
        Version::V4 => (uplink.node_address.into(), OTHER_VIP.into()),
        Version::V6 => (uplink.node_address_v6.into(), OTHER_VIP_V6.into()),
    };
    let names = [(" C:", lab.client_address_in(version, 0)), (" P:", scene.pod_address(0)), (" V:", scene.vip().ip())];
    let names = names.into_iter().chain([(" N:", node), (" O:", other)]);
    names.fold(text.to_owned(), |text, (name, address)| {
        let host = if address.is_ipv4() { address.to_string() } else { format!("[{address}]") };
        text.replace(name, &format!(" {host}:"))
    })
}

fn arp_request(from: &Namespace, device: &str, wanted: Ipv4Addr) -> Result<Vec<u8>> {
    let mac = from.link_address(device)?;
    let request = [0, 1, 8, 0, 6, 4, 0, 1];
    Ok([&[0xff; 6][..], &mac, &ARP, &request, &mac, &ASKING, &[0; 6], &wanted.octets()].concat())
}

/// Packets from and to the client, and the answer to [`arp_request`].
fn is_comparable(bytes: &[u8], client: [u8; 4]) -> bool {
    let ends: &[Range<usize>] = match bytes.get(ETHERNET_TYPE) {
        Some(kind) if kind == IPV4 && is_limited(bytes) => return false,
        Some(kind) if kind == ARP => return bytes[28..32] == ASKING || bytes[38..42] == ASKING,
        _ => &[26..30, 30..34],
    };
    ends.iter().any(|end| bytes.get(end.clone()).is_some_and(|address| address == client))
}

fn is_limited(bytes: &[u8]) -> bool {
    bytes[23] == ICMP && LIMITED_ICMP_TYPES.contains(&bytes[34])
}

/// Kernels give the packets that they make an identification by chance.
fn without_chance(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes[ETHERNET_TYPE] == IPV4 && bytes[18..20] != IDENTIFICATION {
        bytes[18..20].fill(0);
        bytes[24..26].fill(0);
    }
    bytes
}

fn differing(frames: &[Vec<u8>], from: &[Vec<u8>]) -> Vec<String> {
    frames.iter().filter(|frame| !from.contains(frame)).map(|frame| format!("{frame:02x?}")).collect()
}

/// Connections of and to the node, some to the very ports that services and pods have.
fn check_node_services(scene: &Scene) -> Result<()> {
    let lab = &scene.lab;
    let node_address = lab.uplink(0).node_address;
    let at_node = SocketAddrV4::new(node_address, PORT);
    let _tcp = TcpServer::start(lab.node(), at_node, "node", Greeting::OnRequest)?;
    let _udp = UdpServer::start(lab.node(), at_node, "node")?;
    let at_client = SocketAddrV4::new(lab.client_address(0), TARGET_PORT);
    let _outside = TcpServer::start(lab.client(0), at_client, "outside", Greeting::OnRequest)?;

    assert_eq!(ask(lab.client(0), at_node, "hello")?, "node hello");
    assert!(udp_ask(lab.client(0), at_node, "hello", ANSWER_TIMEOUT)?.starts_with("node "));
    assert_eq!(ask(lab.pod(0), at_node, "hello")?, "node hello");
    assert_eq!(ask(lab.node(), at_client, "hello")?, "outside hello");
    for pod in lab.pods() {
        let at_pod = SocketAddrV4::new(lab.pod_address(pod), TARGET_PORT);
        // As kubelet probes its pods, and as pods speak among themselves.
        for from in [lab.node(), lab.pod(0)] {
            assert_eq!(LineClient::connect(from, at_pod)?.identity()?.server, format!("pod-{pod}"));
        }
        assert!(udp_ask(lab.node(), at_pod, "hello", ANSWER_TIMEOUT)?.starts_with(&format!("pod-{pod} ")));
    }
    scene.check_connection(0)?;
    scene.check_datagram(0)?;
    Ok(())
}
