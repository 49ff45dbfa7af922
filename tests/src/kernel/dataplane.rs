//! Runs a hook in the kernel: the object loaded, its maps filled, one packet at a time by BPF_PROG_TEST_RUN.
//!
//! A test-run's packet comes in on the loopback device of the caller's namespace. So the thread has a namespace of its
//! own, and its loopback device has the uplink's MAC: the kernel marks frames for other hosts by comparing with it.

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::Array;
use aya::programs::links::CgroupAttachMode;
use aya::programs::{Program, SockOps, TestRun as _, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::sched::{CloneFlags, unshare};
use xlb_common::abi::{Config, FlowKeyV4, FlowKeyV6, NETNS_HOST, ProofQuestion, Settings, UPLINKS_MAX, Uplink};
use xlb_common::memory::MemoryTables;
use xlb_common::{Family as _, Reason, V4};
use xlb_userspace::maps::kernel::root_cgroup;
use xlb_userspace::maps::object::{load_hook, load_once};

use super::flows::{self, FlowKey};
use super::kernel_maps::{FLOW_MAPS_V4, FLOW_MAPS_V6, KernelMaps, fill, replace, set_settings};
use super::outcome::{Hook, Outcome, Verdict};
use super::sample::UPLINK_MAC;

/// Flows that the tests may have at a time: the LRU maps evict none below it.
const FLOWS_MAX: u32 = 8_192;
/// Room for the packet that comes back: test-run takes less than a page of an skb, and several of an XDP frame.
const FRAME_MAX: usize = 16_384;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TC_NEXT: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;

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
        let mut out = vec![0; FRAME_MAX];
        let Some(result) = self.test_run(hook.program(), frame, &mut out)? else { return Ok(None) };
        out.truncate(result.data_size_out as usize);
        let counts = self.maps.counts()?;
        let reason = counted(&self.counts.replace(counts.clone()), &counts)?;
        Ok(Some(Outcome { verdict: verdict(hook, result.return_value)?, reason, frame: out }))
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
        let result = self.test_run("prove", bytemuck::bytes_of(&question), &mut [])?;
        Ok(result.context("the kernel refused a question")?.return_value)
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

    fn test_run(&self, program: &str, frame: &[u8], out: &mut [u8]) -> Result<Option<TestRunResult>> {
        let data_out = if out.is_empty() { None } else { Some(out) };
        let options = TestRunOptions { data_in: Some(frame), data_out, ..TestRunOptions::new() };
        let result = match self.object.program(program) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => bail!("the object has no program {program} of the right type"),
        };
        match result {
            Ok(result) => Ok(Some(result)),
            Err(error) if is_invalid_argument(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("running {program} on {} bytes", frame.len())),
        }
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

fn is_invalid_argument(error: &aya::programs::ProgramError) -> bool {
    matches!(error, aya::programs::ProgramError::SyscallError(error)
        if error.io_error.raw_os_error() == Some(libc::EINVAL))
}

fn verdict(hook: Hook, value: u32) -> Result<Verdict> {
    Ok(match (hook.is_xdp(), value) {
        (true, XDP_PASS) | (false, TC_NEXT) => Verdict::Pass,
        (true, XDP_DROP) | (false, TC_ACT_SHOT) => Verdict::Drop,
        (true, XDP_TX | XDP_REDIRECT) | (false, TC_ACT_REDIRECT) => Verdict::Redirect,
        _ => bail!("{} returned {value}", hook.program()),
    })
}

/// The one reason that a run counted.
fn counted(before: &[u64], after: &[u64]) -> Result<Option<Reason>> {
    let mut reason = None;
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        match after - before {
            0 => {}
            1 if reason.is_none() => reason = Some(Reason::ALL[index]),
            _ => bail!("one packet was counted more than once, at last as {:?}", Reason::ALL[index]),
        }
    }
    Ok(reason)
}
