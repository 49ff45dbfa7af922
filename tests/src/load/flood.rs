//! SYNs that nobody will go on with, from random addresses of 100.64.0.0/10, sent by the router: test-run with live frames.
//!
//! The device that receives them must have NAPI, which GRO or native XDP gives to a veth; without it nothing arrives, and
//! nothing complains: compare what was sent with what [`super::kernel::received`] says.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use crate::kernel::dataplane::object_path;
use crate::lab::{Course, Lab, course_by_uplink};

/// Sources of floods. The router has to drop what goes there, as no answer would come back.
const SOURCES: &str = "100.64.0.0/10";
/// Frames that are handed over together: the most of a NAPI poll, so that no queue overflows.
const BATCH: u32 = 64;
/// Between two looks at the clock, and at whether to stop: each test-run begins with the kernel waiting until nobody runs what it
/// is going to patch, some 30 ms, so there are few.
const STEPS_PER_S: u32 = 4;
/// Bytes of a frame, which the program writes.
const FRAME_BYTES: usize = 58;

/// What a flood was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Frames that the kernel was told to send.
    pub packets: u64,
    /// How long it took.
    pub time: Duration,
}

/// A running flood.
pub struct Flood {
    is_stopping: Arc<AtomicBool>,
    thread: JoinHandle<Result<Sent>>,
}

impl Flood {
    /// Lets the lab's first uplink receive floods, and what answers them vanish.
    pub fn prepare(lab: &Lab) -> Result<()> {
        lab.router().ip(&format!("route add blackhole {SOURCES}"))?;
        lab.node().output("ethtool", &["-K", &lab.uplink(0).node_device, "gro", "on"])?;
        Ok(())
    }

    /// Sends SYNs to a VIP, as many a second as the machine can, but not more than these.
    pub fn start(lab: &Lab, vip: SocketAddrV4, packets_per_s: u32) -> Result<Flood> {
        let program = load(lab, vip)?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopping);
        let thread = lab.router().spawn(move || send(&program, packets_per_s, &stop));
        Ok(Flood { is_stopping, thread })
    }

    /// Frames of such a flood, which are not sent.
    pub fn frames(lab: &Lab, vip: SocketAddrV4, count: usize) -> Result<Vec<Vec<u8>>> {
        let object = load(lab, vip)?;
        let program: &Xdp = object.program("flood").context("no program flood")?.try_into()?;
        let next = |_| {
            let mut frame = vec![0; FRAME_BYTES];
            let data_out = Some(&mut frame[..]);
            let options = TestRunOptions { data_in: Some(&[0; FRAME_BYTES]), data_out, ..TestRunOptions::new() };
            program.test_run(options).context("making a frame")?;
            Ok(frame)
        };
        (0..count).map(next).collect()
    }

    /// Ends it.
    pub fn stop(self) -> Result<Sent> {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn load(lab: &Lab, vip: SocketAddrV4) -> Result<Ebpf> {
    let path = object_path("xlb-flood.o");
    let mut object = EbpfLoader::new()
        .load_file(&path)
        .with_context(|| format!("loading {}; `cargo xtask build-ebpf` makes it", path.display()))?;
    let map = object.map_mut("FLOOD").context("no map FLOOD")?;
    Array::<_, Course>::try_from(map)?
        .set(0, course_by_uplink(lab, vip, [0; 2])?, 0)
        .context("describing the flood")?;
    let program: &mut Xdp = object.program_mut("flood").context("no program flood")?.try_into()?;
    program.load().context("loading the program flood")?;
    Ok(object)
}

fn send(object: &Ebpf, packets_per_s: u32, is_stopping: &AtomicBool) -> Result<Sent> {
    let program: &Xdp = object.program("flood").context("no program flood")?.try_into()?;
    let repeat = (packets_per_s / STEPS_PER_S).max(BATCH);
    let (begun, mut packets) = (Instant::now(), 0);
    while !is_stopping.load(Ordering::Relaxed) {
        let mut options = TestRunOptions { data_in: Some(&[0; FRAME_BYTES]), repeat, ..TestRunOptions::new() };
        options.attrs = options.attrs.xdp_live_frames(BATCH);
        program.test_run(options).context("sending live frames")?;
        packets += u64::from(repeat);
        let due = Duration::from_secs_f64(packets as f64 / f64::from(packets_per_s));
        sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(Sent { packets, time: begun.elapsed() })
}
