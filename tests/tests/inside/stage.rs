//! A lab whose pods serve TCP and UDP of both families, and no route to a VIP that would work without the programs.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use xlb_common::abi::{Inside, TCP, UDP};
use xlb_tests::lab::{Cgroup, Lab, LabSpec, Namespace};

use crate::hooks::Hooks;

/// The VIPs' port.
pub const PORT: u16 = 80;
/// The pods'.
pub const TARGET_PORT: u16 = 8080;
/// How long a client waits.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// A datagram's longest text.
const TEXT_MAX: usize = 256;

/// How a client names a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    V4,
    V6,
    /// The IPv4 VIP by its IPv6 name, from an IPv6 socket.
    Mapped,
}

impl Name {
    pub const ALL: [Name; 3] = [Name::V4, Name::V6, Name::Mapped];
}

/// The running lab; fields are dropped in this order.
pub struct Stage {
    pub hooks: Hooks,
    _cgroup: Cgroup,
    pub lab: Lab,
}

impl Stage {
    /// Pods that serve, and programs that know no service.
    pub fn new(pods: usize) -> Result<Stage> {
        let lab = Lab::new(LabSpec { pod_count: pods, clients: 0, ..LabSpec::default() })?;
        enable_ipv6(&lab)?;
        for pod in lab.pods() {
            serve(lab.pod(pod), pod)?;
        }
        let cgroup = Cgroup::enter()?;
        let hooks = Hooks::attach(&cgroup, lab.node())?;
        Ok(Stage { hooks, _cgroup: cgroup, lab })
    }

    /// The same with a service of both protocols and families in front of these pods.
    pub fn serving(pods: usize, endpoints: &[usize], service: Inside) -> Result<Stage> {
        let mut stage = Stage::new(pods)?;
        stage.publish(endpoints, service)?;
        Ok(stage)
    }

    /// Writes the service anew.
    pub fn publish(&mut self, endpoints: &[usize], service: Inside) -> Result<()> {
        for name in [Name::V4, Name::V6] {
            let pods: Vec<_> = endpoints.iter().map(|&pod| self.endpoint(name, pod)).collect();
            for protocol in [TCP, UDP] {
                self.hooks.publish(self.vip(name), protocol, &pods, service)?;
            }
        }
        Ok(())
    }

    /// The VIP by one of its names.
    pub fn vip(&self, name: Name) -> SocketAddr {
        let vip = self.lab.vip(0);
        SocketAddr::new(named(name, vip.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)), PORT)
    }

    /// A pod's own port by a name of that kind.
    pub fn endpoint(&self, name: Name, pod: usize) -> SocketAddr {
        SocketAddr::new(named(name, self.lab.pod_address(pod).into(), pod_address_v6(pod)), TARGET_PORT)
    }

    /// The node and its first two pods: who a client may be.
    pub fn places(&self) -> [&Namespace; 3] {
        [self.lab.node(), self.lab.pod(0), self.lab.pod(1)]
    }
}

/// A line of a pod's server: its number, and whom it sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub pod: usize,
    pub peer: SocketAddr,
}

/// Connects from a namespace.
pub fn connect(from: &Namespace, to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What the server of a connection says.
pub fn greeting(stream: &TcpStream) -> Result<Answer> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("waiting for the pod's line")?;
    answer(&line)
}

/// A UDP socket of the family of the peer that it is for.
pub fn datagrams(from: &Namespace, to: SocketAddr) -> Result<UdpSocket> {
    let socket = from.run(|| UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The next datagram, and from whom it seems to come.
pub fn receive(socket: &UdpSocket) -> Result<(Answer, SocketAddr)> {
    let mut text = [0; TEXT_MAX];
    let (length, sender) = socket.recv_from(&mut text).context("waiting for the pod's datagram")?;
    Ok((answer(std::str::from_utf8(&text[..length])?)?, sender))
}

fn answer(line: &str) -> Result<Answer> {
    let (pod, peer) = line.trim_end().split_once(' ').with_context(|| format!("{line:?} is no answer"))?;
    Ok(Answer { pod: pod.parse()?, peer: peer.parse()? })
}

fn named(name: Name, v4: IpAddr, v6: Ipv6Addr) -> IpAddr {
    match (name, v4) {
        (Name::Mapped, IpAddr::V4(v4)) => v4.to_ipv6_mapped().into(),
        (Name::V6, _) => v6.into(),
        _ => v4,
    }
}

fn pod_address_v6(pod: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x40, 0, pod as u16, 0, 0, 0, 2)
}

/// A /64 on each pod's link.
fn enable_ipv6(lab: &Lab) -> Result<()> {
    let enable = [("net.ipv6.conf.all.disable_ipv6", "0"), ("net.ipv6.conf.all.forwarding", "1")];
    lab.node().sysctl(&enable)?;
    for pod in lab.pods() {
        let (host_end, prefix) = (lab.pod_host_end(pod), format!("fd00:40:0:{pod:x}:"));
        lab.node().ip(&format!("address add {prefix}:1/64 dev {host_end} nodad"))?;
        lab.pod(pod).sysctl(&enable[..1])?;
        lab.pod(pod)
            .ip(&format!("address add {prefix}:2/64 dev eth0 nodad\nroute add default via {prefix}:1 dev eth0"))?;
    }
    Ok(())
}

/// The servers of a pod, for both families, until the test's process ends. They are outside the cgroup, as is every
/// thread that was started before it was entered.
fn serve(pod: &Namespace, number: usize) -> Result<()> {
    let wildcard = SocketAddr::from((Ipv6Addr::UNSPECIFIED, TARGET_PORT));
    let listener = pod.run(|| TcpListener::bind(wildcard)).context("listening")?;
    let socket = pod.run(|| UdpSocket::bind(wildcard)).context("binding udp")?;
    thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = writeln!(stream, "{number} {}", canonical(peer));
        }
    });
    thread::spawn(move || {
        while let Ok((_, peer)) = socket.recv_from(&mut [0; TEXT_MAX]) {
            let _ = socket.send_to(format!("{number} {}", canonical(peer)).as_bytes(), peer);
        }
    });
    Ok(())
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
