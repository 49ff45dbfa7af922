//! The lab itself: what tests rely on holds without xlb.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;
use xlb_tests::lab::{
    Capture, Greeting, Lab, LabSpec, LineClient, PodShape, UdpClient, UdpServer, send_frame, udp_ask,
    udp_ask_unconnected, wait_for,
};

const PORT: u16 = 8080;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn a_pod_sees_the_clients_own_address() -> Result<()> {
    for pods in PodShape::ALL {
        for uplinks in [1, 2] {
            let mut lab = Lab::new(LabSpec { pods, uplinks, clients: 2, ..LabSpec::default() })?;
            lab.route_pods_from_router()?;
            for pod in lab.pods() {
                lab.serve_tcp(pod, PORT, Greeting::OnAccept)?;
                lab.serve_udp(pod, PORT)?;
                for client in 0..2 {
                    check_tcp(&lab, client, pod)?;
                    check_udp(&lab, client, pod)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn bulk_data_arrives_whole_in_both_directions() -> Result<()> {
    for tx_offload in [false, true] {
        let mut lab = Lab::new(LabSpec { pod_count: 1, tx_offload, pod_gro: true, ..LabSpec::default() })?;
        lab.route_pods_from_router()?;
        lab.serve_tcp(0, PORT, Greeting::OnRequest)?;
        let mut client = LineClient::connect(lab.client(0), pod_socket(&lab, 0))?;
        client.download(20_000_000)?;
        client.upload(20_000_000)?;
        assert_eq!(client.identity()?.server, "pod-0");
    }
    Ok(())
}

#[test]
fn pods_come_and_go_while_others_serve() -> Result<()> {
    for pods in PodShape::ALL {
        let mut lab = Lab::new(LabSpec { pods, pod_count: 2, ..LabSpec::default() })?;
        lab.route_pods_from_router()?;
        let servers = [lab.serve_tcp(0, PORT, Greeting::OnRequest)?, lab.serve_tcp(1, PORT, Greeting::OnRequest)?];
        let mut doomed = LineClient::connect(lab.client(0), pod_socket(&lab, 0))?;
        let mut lasting = LineClient::connect(lab.client(0), pod_socket(&lab, 1))?;
        assert_eq!(doomed.ask("before")?, "pod-0 before");
        assert_eq!(lasting.ask("before")?, "pod-1 before");
        assert_eq!(servers[0].open_connections(), 1);

        lab.remove_pod(0)?;
        assert!(doomed.ask("after").is_err());
        assert_eq!(servers[0].open_connections(), 0);
        assert_eq!(lasting.ask("after")?, "pod-1 after");

        let added = lab.add_pod()?;
        assert_eq!(added, 2);
        lab.serve_tcp(added, PORT, Greeting::OnAccept)?;
        check_tcp(&lab, 0, added)?;
        lab.add_pod_again(0)?;
        lab.serve_tcp(0, PORT, Greeting::OnAccept)?;
        check_tcp(&lab, 0, 0)?;
        assert_eq!(lab.pods().collect::<Vec<_>>(), [0, 1, 2]);
    }
    Ok(())
}

#[test]
fn two_labs_share_nothing() -> Result<()> {
    let mut labs = [Lab::new(LabSpec::default())?, Lab::new(LabSpec::default())?];
    assert_ne!(labs[0].id(), labs[1].id());
    assert_ne!(labs[0].pod_network(), labs[1].pod_network());
    assert_ne!(labs[0].pin_directory(), labs[1].pin_directory());
    for lab in &mut labs {
        lab.route_pods_from_router()?;
        lab.serve_tcp(0, PORT, Greeting::OnAccept)?;
        check_tcp(lab, 0, 0)?;
    }
    Ok(())
}

#[test]
fn a_lab_leaves_nothing_behind() -> Result<()> {
    let mut lab = Lab::new(LabSpec { pods: PodShape::Bridge, uplinks: 2, clients: 2, ..LabSpec::default() })?;
    lab.serve_tcp(0, PORT, Greeting::OnAccept)?;
    let mut child = lab.pod(1).command("sleep").arg("1000").spawn()?;
    let prefix = prefix_of(&lab);
    assert_eq!(namespaces(&prefix), 2 + 2 + 3);

    drop(lab);
    assert_eq!(namespaces(&prefix), 0);
    assert!(!child.wait()?.success());
    Ok(())
}

#[test]
fn a_panic_cleans_up_as_well() -> Result<()> {
    let lab = Lab::new(LabSpec::default())?;
    let prefix = prefix_of(&lab);
    let result = catch_unwind(AssertUnwindSafe(move || {
        assert_eq!(namespaces(&prefix_of(&lab)), 2 + 1 + 3);
        lab.client(0).run(|| panic!("this panic is part of the test"));
    }));
    assert!(result.is_err());
    assert_eq!(namespaces(&prefix), 0);
    Ok(())
}

/// Set for the second start of this binary, which is to be killed.
const IS_VICTIM: &str = "XLB_LAB_IS_VICTIM";

/// This test's binary is started a second time, to be killed with its lab up and a program running in it.
#[test]
fn a_killed_run_is_swept_by_the_next() -> Result<()> {
    if std::env::var_os(IS_VICTIM).is_some() {
        return hold_a_lab_until_killed();
    }
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "a_killed_run_is_swept_by_the_next"])
        .env(IS_VICTIM, "1")
        .stdout(Stdio::null())
        .spawn()?;
    let prefix = format!("xlb{}-", victim.id());
    let is_up = wait_for(Duration::from_secs(5), || (namespaces(&prefix) == 2 + 1 + 3).then_some(()));
    let sleeper = wait_for(Duration::from_secs(5), || sleepers(victim.id()).first().copied());
    victim.kill()?;
    victim.wait()?;
    assert!(is_up.is_some() && sleeper.is_some());

    let lab = Lab::new(LabSpec::default())?;
    assert_eq!(namespaces(&prefix), 0);
    assert!(namespaces(&prefix_of(&lab)) > 0);
    let has_ended = wait_for(Duration::from_secs(2), || sleepers_named(sleeper).is_none().then_some(()));
    assert!(has_ended.is_some());
    Ok(())
}

fn hold_a_lab_until_killed() -> Result<()> {
    let lab = Lab::new(LabSpec::default())?;
    lab.node().command("sleep").arg("60").spawn()?.wait()?;
    Ok(())
}

/// A server on the wildcard address answers from the address of the route, not from the VIP it was asked at.
#[test]
fn a_connected_udp_socket_hears_only_whom_it_asked() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let (vip, port) = (SocketAddrV4::new(lab.vip(0), PORT), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT));
    lab.node().ip(&format!("address add {}/32 dev lo", lab.vip(0)))?;
    let server = UdpServer::start(lab.node(), port, "node")?;

    let (answer, source) = udp_ask_unconnected(lab.client(0), vip, "who", ANSWER_TIMEOUT)?;
    assert_eq!(answer, format!("node {} who", server.peers()[0]));
    assert_eq!(source, SocketAddrV4::new(lab.uplink(0).node_address, PORT).into());
    assert!(udp_ask(lab.client(0), vip, "who", Duration::from_millis(200)).is_err());
    assert_eq!(server.peers().len(), 2);
    Ok(())
}

#[test]
fn the_nodes_rules_masquerade_and_drop() -> Result<()> {
    for pods in PodShape::ALL {
        let mut lab = Lab::new(LabSpec { pods, kube_proxy_rules: true, ..LabSpec::default() })?;
        lab.route_pods_from_router()?;
        lab.serve_tcp(0, PORT, Greeting::OnAccept)?;
        check_tcp(&lab, 0, 0)?;
        assert_eq!((lab.masqueraded()?, lab.dropped_as_invalid()?), (0, 0));

        let pod = UdpClient::connect(lab.pod(1), SocketAddrV4::new(lab.client_address(0), PORT))?;
        pod.send(b"out")?;
        assert_eq!(lab.masqueraded()?, 1);
    }
    Ok(())
}

#[test]
fn sums_are_finished_when_offload_is_off() -> Result<()> {
    for tx_offload in [false, true] {
        let mut lab = Lab::new(LabSpec { pod_count: 1, tx_offload, ..LabSpec::default() })?;
        lab.route_pods_from_router()?;
        lab.serve_udp(0, PORT)?;
        let capture = Capture::start(lab.node(), "eth0")?;
        udp_ask(lab.client(0), pod_socket(&lab, 0), "a payload that is summed", ANSWER_TIMEOUT)?;
        let frames = capture.stop()?;
        let is_right = |is_outgoing| {
            let udp = |bytes: &&[u8]| bytes[12..14] == [0x08, 0x00] && bytes[23] == 17;
            let frames = frames.iter().filter(|frame| frame.is_outgoing == is_outgoing);
            let mut sums = frames.map(|frame| &frame.bytes[..]).filter(udp).map(is_udp_sum_right);
            sums.next().expect("a datagram in each direction")
        };
        assert_eq!(is_right(false), !tx_offload);
    }
    Ok(())
}

#[test]
fn a_sent_frame_arrives_byte_for_byte() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let mut frame = [0xff; 6].to_vec();
    frame.extend(lab.router().link_address("uplink0")?);
    frame.extend([0x88, 0xb5]);
    frame.extend(0..=255);
    let capture = Capture::start(lab.node(), "eth0")?;
    send_frame(lab.router(), "uplink0", &frame)?;
    let frames = capture.stop()?;
    let arrived = frames.iter().filter(|seen| !seen.is_outgoing && seen.bytes == frame).count();
    assert_eq!(arrived, 1);
    Ok(())
}

#[test]
fn a_lab_comes_up_within_a_second() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::new(LabSpec { clients: 2, uplinks: 2, kube_proxy_rules: true, ..LabSpec::default() })?;
    let up = start.elapsed();
    drop(lab);
    println!("up in {up:?}, gone in {:?}", start.elapsed() - up);
    // Other tests run on the same cores: alone it is a tenth of this.
    assert!(up < Duration::from_secs(3), "{up:?}");
    Ok(())
}

fn check_tcp(lab: &Lab, client: usize, pod: usize) -> Result<()> {
    let mut connection = LineClient::connect(lab.client(client), pod_socket(lab, pod))?;
    let identity = connection.greeting()?;
    assert_eq!(identity.server, format!("pod-{pod}"));
    assert_eq!(identity.peer, connection.local_address()?);
    assert_eq!(identity.peer.ip(), lab.client_address(client));
    assert_eq!(identity.local, pod_socket(lab, pod).into());
    assert_eq!(connection.ask("hello")?, format!("pod-{pod} hello"));
    Ok(())
}

fn check_udp(lab: &Lab, client: usize, pod: usize) -> Result<()> {
    let socket = UdpClient::connect(lab.client(client), pod_socket(lab, pod))?;
    let answer = socket.ask("hello", ANSWER_TIMEOUT)?;
    assert_eq!(answer, format!("pod-{pod} {} hello", socket.local_address()?));
    Ok(())
}

fn pod_socket(lab: &Lab, pod: usize) -> SocketAddrV4 {
    SocketAddrV4::new(lab.pod_address(pod), PORT)
}

fn prefix_of(lab: &Lab) -> String {
    lab.node().name().strip_suffix("node").expect("names end in the role").to_owned()
}

fn namespaces(prefix: &str) -> usize {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names.filter(|name| name.file_name().to_string_lossy().starts_with(prefix)).count()
}

/// The children of a process that run `sleep`.
fn sleepers(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task");
    let tasks = fs::read_dir(path).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    let children = children.iter().flat_map(|list| list.split_whitespace()).filter_map(|child| child.parse().ok());
    children.filter(|child| sleepers_named(Some(*child)).is_some()).collect()
}

fn sleepers_named(process: Option<u32>) -> Option<u32> {
    let name = fs::read_to_string(format!("/proc/{}/comm", process?)).ok()?;
    (name.trim_end() == "sleep").then_some(process?)
}

/// Sums pseudo header and datagram of an Ethernet frame without IP options.
fn is_udp_sum_right(frame: &[u8]) -> bool {
    let length = u16::from_be_bytes([frame[38], frame[39]]);
    let datagram = &frame[34..34 + usize::from(length)];
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
        pairs.sum()
    };
    let mut sum = words(&frame[26..34]) + 17 + u32::from(length) + words(datagram);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}
