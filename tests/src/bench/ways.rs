//! How packets get from a node's uplink to its pod: by routing alone, by kube-proxy's rules, or by xlb. Each in a lab of its own,
//! so that all are there at once and can be measured in turn.

#[path = "ways/services.rs"]
mod services;
#[path = "ways/nftables.rs"]
mod nftables;
#[path = "ways/iptables.rs"]
mod iptables;
#[path = "ways/xlb.rs"]
mod xlb;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use self::services::{Services, VIP_PORT};
use self::xlb::Balancer;
use crate::lab::{Cgroup, Lab, LabSpec, Namespace, Version};

/// Where the pod listens.
pub const POD_PORT: u16 = 8_080;
/// The pod that everything goes to: with one pod, a packet takes the same way past it however it was balanced.
pub const POD: usize = 0;
/// With so many Services the rules of kube-proxy are compared.
pub const SERVICES: u32 = 5_000;
/// More find no room in the maps of an agent.
pub const SERVICES_MAX: u32 = 5_000;

/// A way of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Clients address the pod itself.
    Routing,
    /// kube-proxy's rules in its mode nftables, for so many Services.
    Nftables(u32),
    /// kube-proxy's rules in its mode iptables, for so many Services.
    Iptables(u32),
    /// xlb, with so many Services.
    Xlb(Mode, u32),
}

/// How xlb takes and delivers packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By tc, into the pod's namespace.
    Direct,
    /// By tc, through the host's stack.
    Stack,
    /// By native XDP, into the pod's link.
    DirectByXdp,
}

/// A lab in which packets go this way. The parts end in the order of the fields.
pub struct Site {
    balancer: Option<Balancer>,
    /// The network.
    pub lab: Lab,
    way: Way,
}

impl Way {
    /// The name of its rows.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Way::Routing => "plain routing".to_owned(),
            Way::Nftables(services) => format!("nftables, {}", counted(services)),
            Way::Iptables(services) => format!("iptables, {}", counted(services)),
            Way::Xlb(Mode::Direct, _) => "xlb direct".to_owned(),
            Way::Xlb(Mode::Stack, _) => "xlb stack".to_owned(),
            Way::Xlb(Mode::DirectByXdp, _) => "xlb direct by XDP".to_owned(),
        }
    }

    /// Whether the uplink's XDP program hands frames to the pod's link.
    fn takes_frames(self) -> bool {
        matches!(self, Way::Xlb(Mode::DirectByXdp, _))
    }
}

impl Site {
    /// Builds it. Devices leave sums unfinished, as they do on nodes.
    pub fn new(way: Way, dual_stack: bool) -> Result<Site> {
        Site::on(LabSpec { dual_stack, pod_gro: way.takes_frames(), ..spec() }, way)
            .with_context(|| format!("preparing {}", way.name()))
    }

    /// The same in a lab of this kind.
    pub fn on(spec: LabSpec, way: Way) -> Result<Site> {
        let lab = Lab::new(spec)?;
        for &version in lab.versions() {
            lead_to_pod(&lab, version)?;
        }
        if way.takes_frames() {
            finish_sums(&lab)?;
        }
        let balancer = match way {
            Way::Routing => None,
            Way::Nftables(services) => rules(&lab, services, nftables::load)?,
            Way::Iptables(services) => rules(&lab, services, iptables::load)?,
            Way::Xlb(mode, services) => Some(Balancer::start(&lab, mode, services)?),
        };
        Ok(Site { balancer, lab, way })
    }

    /// Where clients send to.
    #[must_use]
    pub fn target(&self, version: Version) -> SocketAddr {
        match self.way {
            Way::Routing => SocketAddr::new(self.lab.pod_address_in(version, POD), POD_PORT),
            _ => SocketAddr::new(self.lab.vip_in(version, 0), VIP_PORT),
        }
    }

    /// The cgroup to which the pod's sockets have to belong, if xlb is to see them.
    #[must_use]
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.balancer.as_ref().map(Balancer::cgroup)
    }

    /// The way.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }
}

/// One pod, and one client.
#[must_use]
pub fn spec() -> LabSpec {
    LabSpec { pod_count: 1, tx_offload: true, ..LabSpec::default() }
}

/// A number of Services, as rows have it.
#[must_use]
pub fn counted(services: u32) -> String {
    match services {
        1 => "1 service".to_owned(),
        0..1_000 => format!("{services} services"),
        _ => format!("{} {:03} services", services / 1_000, services % 1_000),
    }
}

/// The router does not know pods by itself.
fn lead_to_pod(lab: &Lab, version: Version) -> Result<()> {
    let (pod, uplink) = (lab.pod_address_in(version, POD), lab.uplink(0));
    let (bits, node) = match version {
        Version::V4 => (32, uplink.node_address.to_string()),
        Version::V6 => (128, uplink.node_address_v6.to_string()),
    };
    lab.router().ip(&format!("route add {pod}/{bits} via {node}"))
}

/// A frame says nothing of a sum that is still to be made, nor of segments: the router's device has to do what a NIC does.
fn finish_sums(lab: &Lab) -> Result<()> {
    lab.router().output("ethtool", &["-K", &lab.uplink(0).router_device, "tx", "off"])?;
    Ok(())
}

fn rules(lab: &Lab, services: u32, load: impl Fn(&Lab, &Services) -> Result<()>) -> Result<Option<Balancer>> {
    for &version in lab.versions() {
        load(lab, &Services::new(lab, version, services))?;
    }
    Ok(None)
}

/// Runs a program that reads its rules from the standard input.
fn feed(node: &Namespace, program: &str, arguments: &[&str], rules: &str) -> Result<()> {
    let mut command = node.command(program);
    let mut child = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}; `cargo xtask setup` installs it"))?;
    // One that stopped at a bad line closes the pipe; its complaint says more than EPIPE.
    let _ = child.stdin.take().context("no standard input")?.write_all(rules.as_bytes());
    let output = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    ensure!(output.status.success(), "{program} refused: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
