//! What real sockets hear of a service without any usable pod, through `ingress_tc` on a veth whose senders leave their
//! sums unfinished, and on one where they do not.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use xlb_common::abi::{Config, Frontend, TCP, UDP, frontend_flags};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::SlotWord;
use xlb_common::{Family as _, V4, V6};
use xlb_tests::kernel::dataplane::object_path;
use xlb_tests::kernel::flows::stored;
use xlb_tests::kernel::headers::Layout;
use xlb_tests::kernel::kernel_maps::{FLOW_MAPS_V4, FLOW_MAPS_V6, fill};
use xlb_tests::kernel::refusal;
use xlb_tests::kernel::sample::NODE;
use xlb_tests::lab::{Capture, Lab, LabSpec};

const PORT: u16 = 80;
/// An answer that comes while connect(2) still holds its socket, as it does on one machine, is only noted (tcp_v4_err);
/// the SYN that is sent again after a second is refused.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Small maps load faster.
const FLOWS_MAX: u32 = 1024;
/// The router's address on its link to the node.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x33);

#[test]
fn a_client_that_finishes_its_sums_is_refused_at_once() -> Result<()> {
    check(LabSpec { tx_offload: false, ..SPEC() }, false)
}

#[test]
fn a_client_that_leaves_its_sums_unfinished_is_refused_at_once() -> Result<()> {
    check(LabSpec { tx_offload: true, ..SPEC() }, false)
}

#[test]
fn a_node_that_finishes_sums_itself_does_not_finish_those_of_refused_packets() -> Result<()> {
    check(LabSpec { tx_offload: true, ..SPEC() }, true)
}

const SPEC: fn() -> LabSpec = || LabSpec { pod_count: 0, clients: 0, ..LabSpec::default() };

/// Each protocol and family from the router's own sockets, one link away from the node.
fn check(spec: LabSpec, node_finishes_sums: bool) -> Result<()> {
    let lab = Lab::new(spec)?;
    prepare_link(&lab)?;
    let uplink = lab.uplink(0);
    if node_finishes_sums {
        lab.node().output("ethtool", &["-K", &uplink.node_device, "tx", "off"])?;
    }
    let vips = [SocketAddr::from((lab.vip(0), PORT)), SocketAddr::from((VIP_V6, PORT))];
    let _object = attach(&lab, &vips)?;
    for vip in vips {
        for (name, call) in [("tcp", connect as fn(SocketAddr) -> std::io::Result<()>), ("udp", send)] {
            let capture = Capture::start(lab.router(), &uplink.router_device)?;
            let begin = Instant::now();
            let found = lab.router().run(|| call(vip)).err().map(|error| error.kind());
            let frames = capture.stop()?;
            let mut frames = frames.into_iter().filter(|frame| concerns(vip, &frame.bytes));
            let refused = frames.by_ref().find(|frame| frame.is_outgoing).context("nothing was sent")?;
            let error = frames.find(|frame| !frame.is_outgoing).context("nothing came back")?;
            let named = refusal::check(&refused.bytes, &error.bytes).with_context(|| format!("{name} to {vip}"))?;
            ensure!(named == vip, "{name} to {vip}: the error names {named}");
            ensure!(found == Some(ErrorKind::ConnectionRefused), "{name} to {vip}: {found:?}");
            ensure!(begin.elapsed() < PATIENCE, "{name} to {vip}: after {:?}", begin.elapsed());
        }
    }
    Ok(())
}

fn connect(vip: SocketAddr) -> std::io::Result<()> {
    TcpStream::connect_timeout(&vip, PATIENCE).map(drop)
}

/// A connected socket hears of the error at its next call.
fn send(vip: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind(if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(vip)?;
    socket.send(b"?")?;
    socket.recv(&mut [0; 1]).map(drop)
}

/// Whether a frame goes to the VIP, or is an error from the node.
fn concerns(vip: SocketAddr, frame: &[u8]) -> bool {
    let Some(layout) = Layout::of(frame) else { return false };
    let [source, destination] = layout.addresses(frame);
    destination == vip.ip() || [NODE.0.into(), IpAddr::from(NODE.1)].contains(&source)
}

/// `ingress_tc` on the uplink, and services of both protocols that nobody serves.
fn attach(lab: &Lab, vips: &[SocketAddr]) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for map in FLOW_MAPS_V4.into_iter().chain(FLOW_MAPS_V6) {
        loader.map_max_entries(map, FLOWS_MAX);
    }
    let mut object = loader.load_file(object_path("xlb-ebpf.o")).context("loading the object")?;
    let device = &lab.uplink(0).node_device;
    let ifindex = lab.node().ifindex(device)?;
    fill(&mut object, &tables(vips, ifindex, lab.node().link_address(device)?), Config::default())?;
    let program: &mut SchedClassifier = object.program_mut("ingress_tc").context("no ingress_tc")?.try_into()?;
    program.load().context("loading ingress_tc")?;
    lab.node().run(|| program.attach(device, TcAttachType::Ingress)).context("attaching ingress_tc")?;
    Ok(object)
}

fn tables(vips: &[SocketAddr], ifindex: u32, mac: [u8; 6]) -> MemoryTables {
    let mut tables = MemoryTables { uplinks: [(ifindex, mac)].into(), ..MemoryTables::default() };
    tables.v4.report_addresses.insert(ifindex, stored(NODE.0.into()));
    tables.v6.report_addresses.insert(ifindex, stored(NODE.1.into()));
    tables.slots.insert(0, SlotWord::EMPTY.0);
    let frontend = Frontend { slots: 1, flags: frontend_flags::REJECT_WHEN_EMPTY, ..Frontend::default() };
    for (vip, protocol) in vips.iter().flat_map(|&vip| [(vip, TCP), (vip, UDP)]) {
        let port = vip.port().to_be_bytes();
        match vip {
            SocketAddr::V4(vip) => {
                tables.v4.frontends.insert(V4::endpoint_key(vip.ip().octets(), port, protocol), frontend);
            }
            SocketAddr::V6(vip) => {
                tables.v6.frontends.insert(V6::endpoint_key(vip.ip().octets(), port, protocol), frontend);
            }
        }
    }
    tables
}

/// A network of either family between router and node, and the way to the VIPs. The router has the address that the
/// node reports from in these tests, and gives it up.
fn prepare_link(lab: &Lab) -> Result<()> {
    let (uplink, enable) = (lab.uplink(0), [("net.ipv6.conf.all.disable_ipv6", "0")]);
    for (namespace, device, address) in
        [(lab.router(), &uplink.router_device, "fd00:2::1"), (lab.node(), &uplink.node_device, "fd00:2::2")]
    {
        namespace.sysctl(&enable)?;
        namespace.ip(&format!("address add {address}/64 dev {device} nodad"))?;
    }
    let (device, old, node) = (&uplink.router_device, uplink.router_address, uplink.node_address);
    lab.router().ip(&format!(
        "address del {old}/29 dev {device}\naddress add {ROUTER}/29 dev {device}\n\
         route add {}/32 via {node}\nroute add {VIP_V6}/128 via fd00:2::2",
        lab.vip(0)
    ))
}
