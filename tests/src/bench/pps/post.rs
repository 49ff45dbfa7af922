//! A lab with a generator at the router and a counter at the end of the way.

use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType, TestRun as _, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use xlb_common::abi::TCP;
use xlb_common::parse::tcp_flags::{ACK, SYN};
use xlb_common::{Family as _, V4};

use super::Passed;
use super::case::{By, Case, Sink, Traffic};
use crate::bench::path::stay_on_one_cpu;
use crate::bench::ways::{POD, POD_PORT, Site, Way, spec};
use crate::kernel::dataplane::object_path;
use crate::lab::{Course, Lab, LabSpec, Namespace, Version, Watch, course, course_by_uplink, forget_connections};

/// Bytes of a frame.
const FRAME_BYTES: usize = 64;
/// Frames that are handed over together: the most of a NAPI poll, so that no queue overflows.
const BATCH: u32 = 64;
/// What takes so long that a softirq would be told to end, and ksoftirqd to go on where nobody looks at the clock.
const SLOW_BATCH: u32 = 8;
/// What is slow is measured with this part of the packets.
const SLOW_PART: u32 = 10;
const UPLINK: &str = "eth0";
const POD_DEVICE: &str = "eth0";
/// An address from which no packet comes.
const NOBODY: &str = "192.0.2.77";

/// A place to measure one way.
pub struct Post {
    case: Case,
    // Detached before the devices go.
    object: Ebpf,
    watch: Option<Watch>,
    site: Site,
}

/// One run.
pub struct Run {
    /// Nanoseconds for each packet.
    pub ns: f64,
    /// What was sent and what arrived.
    pub passed: Passed,
}

impl Post {
    /// Builds it: everything is there, and nothing is sent.
    pub fn new(case: Case) -> Result<Post> {
        let way = match case.by {
            By::Way(way) => way,
            By::BareXdp | By::BareTc => Way::Routing,
        };
        let site = Site::on(LabSpec { pod_gro: case.needs_pod_gro(), ..spec() }, way);
        let site = site.with_context(|| format!("preparing {}", case.name))?;
        // A veth takes live frames with NAPI only.
        site.lab.node().output("ethtool", &["-K", UPLINK, "gro", "on"])?;
        let mut object = load()?;
        attach_sink(&mut object, &site.lab, case.sink)?;
        attach_bare(&mut object, &site, case.by)?;
        let generator: &mut Xdp = object.program_mut("segments").context("no program segments")?.try_into()?;
        generator.load().context("loading segments")?;
        let watch = case.watched.map(|part| watch(&site.lab, part)).transpose().context("starting xlb watch")?;
        Ok(Post { case, object, watch, site })
    }

    /// Ends what watches, if anybody does, and tells what it said.
    pub fn end(&mut self) -> Result<String> {
        self.watch.as_mut().map_or(Ok(String::new()), Watch::end)
    }

    /// What it measures.
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// Sends packets, or a part of so many where each is slow.
    pub fn run(&mut self, traffic: Traffic, packets: u32) -> Result<Run> {
        let (batch, packets) = match self.case.is_slow(traffic) {
            true => (SLOW_BATCH, (packets / SLOW_PART).max(1)),
            false => (BATCH, packets),
        };
        let before = self.arrived()?;
        self.describe(traffic)?;
        let generator: &Xdp = self.object.program("segments").context("no program segments")?.try_into()?;
        let result = self.site.lab.router().run(|| {
            stay_on_one_cpu()?;
            let mut options =
                TestRunOptions { data_in: Some(&[0; FRAME_BYTES]), repeat: packets, ..TestRunOptions::new() };
            options.attrs = options.attrs.xdp_live_frames(batch);
            generator.test_run(options).context("sending live frames")
        })?;
        forget_connections(self.site.lab.node())?;
        let passed = Passed { sent: packets.into(), arrived: self.arrived()? - before };
        Ok(Run { ns: result.duration.as_nanos() as f64, passed })
    }

    fn describe(&mut self, traffic: Traffic) -> Result<()> {
        let is_new = traffic == Traffic::NewFlows;
        let more = [if is_new { SYN } else { ACK }, is_new.into()];
        let course = course_by_uplink(&self.site.lab, v4(self.target())?, more)?;
        let map = self.object.map_mut("TRAFFIC").context("no map TRAFFIC")?;
        Array::<_, Course>::try_from(map)?.set(0, course, 0).context("describing the traffic")
    }

    /// Bare forwarders know the VIP, too.
    fn target(&self) -> SocketAddr {
        match self.case.by {
            By::Way(_) => self.site.target(Version::V4),
            By::BareXdp | By::BareTc => vip(&self.site.lab),
        }
    }

    fn arrived(&self) -> Result<u64> {
        let map = self.object.map("ARRIVED").context("no map ARRIVED")?;
        let counts = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0).context("reading what arrived")?;
        Ok(counts.iter().sum())
    }
}

fn load() -> Result<Ebpf> {
    let path = object_path("xlb-pps.o");
    EbpfLoader::new()
        .load_file(&path)
        .with_context(|| format!("loading {}; `cargo xtask build-ebpf` makes it", path.display()))
}

/// Copies this part of all packets, and shows none.
fn watch(lab: &Lab, part: &str) -> Result<Watch> {
    Watch::start(lab, &["watch", "--sample", part, "--client", NOBODY])
}

fn attach_sink(object: &mut Ebpf, lab: &Lab, sink: Sink) -> Result<()> {
    match sink {
        Sink::Uplink => attach_xdp(object, "count_xdp", lab.node(), UPLINK),
        Sink::PodByXdp => attach_xdp(object, "count_xdp", lab.pod(POD), POD_DEVICE),
        Sink::Pod => attach_tc(object, "count_tc", lab.pod(POD), POD_DEVICE),
    }
}

fn attach_bare(object: &mut Ebpf, site: &Site, by: By) -> Result<()> {
    let node = site.lab.node();
    match by {
        By::Way(_) => return Ok(()),
        By::BareXdp => attach_xdp(object, "bare_xdp", node, UPLINK)?,
        By::BareTc => attach_tc(object, "bare_tc", node, UPLINK)?,
    }
    lead_to_pod(object, &site.lab)
}

fn attach_xdp(object: &mut Ebpf, name: &str, place: &Namespace, device: &str) -> Result<()> {
    let program: &mut Xdp = object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    let attached = place.run(|| program.attach(device, XdpMode::Driver).map(|_| ()));
    attached.with_context(|| format!("attaching {name} to {device} in {}", place.name()))
}

fn attach_tc(object: &mut Ebpf, name: &str, place: &Namespace, device: &str) -> Result<()> {
    let program: &mut SchedClassifier =
        object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    let attached = place.run(|| program.attach(device, TcAttachType::Ingress).map(|_| ()));
    attached.with_context(|| format!("attaching {name} to {device} in {}", place.name()))
}

/// What a bare forwarder has to know.
fn lead_to_pod(object: &mut Ebpf, lab: &Lab) -> Result<()> {
    let host_end = lab.pod_host_end(POD);
    let pod = SocketAddrV4::new(lab.pod_address(POD), POD_PORT);
    let course = course((lab.node(), &host_end), (lab.pod(POD), POD_DEVICE), pod, [0; 2])?;
    let vip = v4(vip(lab))?;
    let key = V4::endpoint_key(vip.ip().octets(), vip.port().to_be_bytes(), TCP);
    let map = object.map_mut("TARGETS").context("no map TARGETS")?;
    let mut targets: HashMap<_, [u8; 8], Course> = map.try_into()?;
    let key: [u8; 8] = bytemuck::cast(key);
    targets.insert(key, course, 0).context("describing the pod")
}

fn vip(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.vip_in(Version::V4, 0), 80)
}

fn v4(address: SocketAddr) -> Result<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => bail!("{address} is no IPv4 address"),
    }
}
