//! Runs a hook in the kernel: the object loaded, its maps filled, one packet at a time by BPF_PROG_TEST_RUN.
//!
//! A test-run's packet comes in on the loopback device of the caller's namespace. So the thread has a namespace of its
//! own, and its loopback device has the uplink's MAC: the kernel marks frames for other hosts by comparing with it.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use aya::programs::links::CgroupAttachMode;
use aya::programs::{SockOps, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::sched::{CloneFlags, unshare};
use xlb_common::abi::{Config, FlowKeyV4, FlowKeyV6, NETNS_HOST, ProofQuestion, Settings, UPLINKS_MAX, Uplink};
use xlb_common::memory::MemoryTables;
use xlb_common::{Family as _, V4};
use xlb_userspace::maps::kernel::root_cgroup;
use xlb_userspace::maps::load::{load_hook, load_once};
use xlb_userspace::selftest::kernel;

use super::flows::{self, FlowKey};
use super::kernel_maps::{FLOW_MAPS_V4, FLOW_MAPS_V6, KernelMaps, fill, replace, set_settings};
use super::outcome::{Hook, Outcome};
use super::sample::UPLINK_MAC;

/// Flows that the tests may have at a time: the LRU maps evict none below it.
const FLOWS_MAX: u32 = 8_192;
/// The object in the kernel.
pub struct Dataplane {
    object: Ebpf,
    /// What programs write.
    pub maps: KernelMaps,
    config: Config,
    /// The counters after the last run.
    counts: RefCell<Vec<u64>>,
}

impl Dataplane {
    /// Loads the object in a namespace that this thread enters, with these tables.
    pub fn load(tables: &MemoryTables, config: Config) -> Result<Self> {
        enter_namespace()?;
        let mut object = load_object(&object_path("xlb-ebpf.o"))?;
        for hook in Hook::ALL {
            load_hook(&mut object, hook)?;
        }
        load_once(&mut object, "prove")?;
        fill(&mut object, tables, config)?;
        let mut maps = KernelMaps::take(&mut object)?;
        maps.set_flows(&flows::of(tables))?;
        maps.set_affinity(tables)?;
        let counts = RefCell::new(maps.counts()?);
        Ok(Self { object, maps, config, counts })
    }

    /// Brings the maps from the tables that were written last, `before`, to those of `after`.
    pub fn replace(&mut self, before: &MemoryTables, after: &MemoryTables, config: Config) -> Result<()> {
        replace(&mut self.object, before, after, config)?;
        self.maps.set_flows(&flows::of(after))?;
        self.maps.set_affinity(after)
    }

    /// Tells the programs what the operator chose.
    pub fn set_settings(&mut self, settings: Settings) -> Result<()> {
        set_settings(&mut self.object, settings, self.config)
    }

    /// What `hook` does with `frame`; none if the kernel makes no packet of it.
    pub fn run(&self, hook: Hook, frame: &[u8]) -> Result<Option<Outcome>> {
        let Some((value, frame)) = kernel::run(&self.object, hook.program(), frame)? else { return Ok(None) };
        let counts = self.maps.counts()?;
        let reason = kernel::counted(&self.counts.replace(counts.clone()), &counts)?;
        Ok(Some(Outcome { verdict: kernel::verdict(hook, value)?, reason, frame }))
    }

    /// The answer of the `prove` program, for a socket in the thread's own namespace.
    pub fn prove(&self, flow: FlowKey) -> Result<u32> {
        let (flow, family) = match flow {
            FlowKey::V4(FlowKeyV4 { client, pod, client_port, pod_port }) => {
                (FlowKeyV6 { client: V4::to_stored(client), pod: V4::to_stored(pod), client_port, pod_port }, 4)
            }
            FlowKey::V6(flow) => (flow, 6),
        };
        let question = ProofQuestion { ethernet: [0; 16], flow, netns_id: NETNS_HOST, family };
        let result = kernel::run(&self.object, "prove", bytemuck::bytes_of(&question))?;
        let (value, _) = result.context("the kernel refused a question")?;
        Ok(value)
    }

    /// Lets `frame` arrive in the namespace's stack, as `ingress_xdp` passes it: test-run with live frames.
    pub fn inject(&self, frame: &[u8]) -> Result<()> {
        let mut options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        options.attrs = options.attrs.xdp_live_frames(1);
        self.xdp(Hook::Xdp.program())?.test_run(options).context("sending a live frame")?;
        self.counts.replace(self.maps.counts()?);
        Ok(())
    }

    /// Lets `accepted` hear of this machine's sockets, for as long as the object is loaded.
    pub fn attach_accepted(&mut self) -> Result<()> {
        let root = root_cgroup()?;
        let root = File::open(&root).with_context(|| format!("opening {}", root.display()))?;
        let program: &mut SockOps =
            self.object.program_mut("accepted").context("the object has no program accepted")?.try_into()?;
        program.load().context("loading accepted")?;
        program.attach(root, CgroupAttachMode::Single).context("attaching accepted")?;
        Ok(())
    }

    /// Whether times are hot at an uplink.
    pub fn is_hot(&self, ifindex: u32) -> Result<bool> {
        let map = self.object.map("UPLINKS").context("the object has no map UPLINKS")?;
        let uplinks: Array<_, [u8; 36]> = Array::try_from(map).context("UPLINKS")?;
        let uplink: Uplink = bytemuck::cast(uplinks.get(&(ifindex % UPLINKS_MAX), 0).context("reading UPLINKS")?);
        Ok(uplink.hot != 0)
    }

    fn xdp(&self, name: &str) -> Result<&Xdp> {
        self.object
            .program(name)
            .with_context(|| format!("the object has no program {name}"))?
            .try_into()
            .context(name.to_owned())
    }
}

/// Where `cargo xtask build-ebpf` puts the objects.
#[must_use]
pub fn object_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf").join(name)
}

/// Test-run makes no skb of a frame that ends inside its IPv4 or IPv6 header.
#[must_use]
pub fn is_no_skb(hook: Hook, frame: &[u8]) -> bool {
    let header = if frame[12..14] == [0x86, 0xdd] { 40 } else { 20 };
    !hook.is_xdp() && frame.len() < 14 + header
}

/// A network namespace for this thread alone, with loopback up, and Ethernet's MTU as in ordinary memory.
fn enter_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace; the kernel tests need root")?;
    let mac = UPLINK_MAC.map(|byte| format!("{byte:02x}")).join(":");
    let status = Command::new("ip").args(["link", "set", "lo", "address", &mac, "mtu", "1500", "up"]).status();
    ensure!(status.context("running ip")?.success(), "loopback does not take the uplink's MAC");
    Ok(())
}

fn load_object(path: &Path) -> Result<Ebpf> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("reading {}; `cargo xtask build-ebpf` makes it", path.display()))?;
    let mut loader = EbpfLoader::new();
    for map in FLOW_MAPS_V4.into_iter().chain(FLOW_MAPS_V6) {
        loader.map_max_entries(map, FLOWS_MAX);
    }
    loader.load(&bytes).with_context(|| format!("loading {}", path.display()))
}
