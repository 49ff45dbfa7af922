//! The program that copies what an uplink's XDP meets: in the uplink's link while somebody watches, in front of the one that
//! serves.
//!
//! An interface takes one XDP program, and a link has one, so the copying program takes the place of the serving one and hands each
//! packet on to it (a tail call). `<bpffs-dir>/v1/watching/IFINDEX/` has what puts it back: both programs, and the map that names the
//! next one, which the kernel empties once nobody holds it. A watcher that was killed leaves the link served and these pins behind;
//! the next one, or the agent, puts the program back.

use std::fs::{self, File, TryLockError};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use aya::maps::MapData;
use aya::maps::perf::{PerfEvent, PerfEventArray, PerfEventArrayBuffer};
use aya::maps::{Map, ProgramArray};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{Xdp, loaded_programs};
use aya::util::online_cpus;
use aya::{Ebpf, EbpfLoader};
use nix::time::{ClockId, clock_gettime};
use tracing::debug;
use xlb_common::watched::{COPIES, NEXT, ONE_IN, PROGRAM, Watched};

use crate::maps::link::{exchange_program, pin_program, remove_pin};
use crate::maps::pins::PinDirectory;

/// Made by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/xlb-watch.o"));

/// Bytes of packets that wait at most, for all CPUs together; what comes then is lost, and counted.
const QUEUE_BYTES: usize = 32 << 20;
/// Pages for a CPU, however many there are: no packet is longer.
const PAGES_MIN: usize = 32;
const PAGE_BYTES: usize = 4096;

/// What is in the pin directory while somebody watches an uplink.
struct Pins {
    directory: PathBuf,
    /// The uplink's link.
    link: PathBuf,
}

impl Pins {
    fn serving(&self) -> PathBuf {
        self.directory.join("serving")
    }

    fn copying(&self) -> PathBuf {
        self.directory.join("copying")
    }

    fn next(&self) -> PathBuf {
        self.directory.join("next")
    }

    /// Held by the one watcher of the uplink; none: there is another one.
    fn lock(&self) -> Result<Option<File>> {
        let shown = self.directory.display();
        let directory = File::open(&self.directory).with_context(|| format!("opening {shown}"))?;
        match directory.try_lock() {
            Ok(()) => Ok(Some(directory)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {shown}")),
        }
    }

    /// The serving program gets its place back, if the copying one still has it: an agent that came has put its own there.
    fn give_back(&self) -> Result<()> {
        if self.copying().exists() && self.link.exists() {
            let put_back = exchange_program(&self.link, &self.copying(), &self.serving())?;
            debug!("{}: {}", self.link.display(), if put_back { "put back" } else { "another program is there" });
        }
        [self.copying(), self.next(), self.serving()].iter().try_for_each(|pin| remove_pin(pin))
    }
}

/// Puts back what watchers that were killed have left.
///
/// # Errors
/// When the kernel refuses.
pub fn give_back_left(pins: &PinDirectory) -> Result<()> {
    for (link, directory) in pins.watched() {
        let left = Pins { directory, link };
        if left.copying().exists()
            && let Some(_lock) = left.lock()?
        {
            left.give_back().with_context(|| format!("ending what a watcher left at {}", left.link.display()))?;
        }
    }
    Ok(())
}

/// Copies of what an uplink's XDP meets, until it is dropped.
pub struct Watching {
    pins: Pins,
    /// The copying program's id.
    program: u32,
    copies: Vec<PerfEventArrayBuffer<MapData>>,
    lost: u64,
    _object: Ebpf,
    _lock: File,
}

impl Watching {
    /// Puts the copying program into the link of the uplink's XDP program. Of `one_in` packets it copies about one, chosen by chance.
    ///
    /// # Errors
    /// When somebody watches already, or the kernel refuses: it takes CAP_SYS_ADMIN to find the program that serves.
    pub fn open(pins: &PinDirectory, program: &str, ifindex: u32, one_in: u32) -> Result<Self> {
        let directory = pins.watching(program, ifindex);
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let pins = Pins { directory, link: pins.links().join(format!("{program}-{ifindex}")) };
        let Some(lock) = pins.lock()? else {
            bail!("another `xlb watch`, `capture` or `explain --next` copies them now")
        };
        pins.give_back()?;
        let mut object = load(one_in)?;
        let copies = open_buffers(&mut object)?;
        let program = put_in_front(&pins, &mut object).inspect_err(|_| {
            // What could not be put there is in nobody's way.
            let _ = pins.give_back();
        })?;
        Ok(Self { pins, program, copies, lost: 0, _object: object, _lock: lock })
    }

    /// Whether packets still come by here: an agent that starts puts its own program there.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        serving(&self.pins.link).is_ok_and(|id| id == self.program)
    }

    /// What to wait for.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.copies.iter().map(AsFd::as_fd)
    }

    /// Takes packets that wait, at most so many of each CPU, with when they came.
    pub fn receive(&mut self, at_most: usize, mut take: impl FnMut(SystemTime, Vec<u8>)) {
        let (now, boot) = (SystemTime::now(), monotonic());
        let at = |ns: u64| now.checked_sub(boot.saturating_sub(Duration::from_nanos(ns))).unwrap_or(now);
        let lost = &mut self.lost;
        for buffer in &mut self.copies {
            let _ = buffer.try_fold(1, |count, event| {
                match event {
                    PerfEvent::Lost { count } => *lost += count,
                    PerfEvent::Sample { head, tail } => match Watched::of_record(&[head, tail].concat()) {
                        // Of half a packet the path would say that it is malformed.
                        Some((watched, _)) if watched.copied < watched.length => *lost += 1,
                        Some((watched, packet)) => take(at(watched.at_ns), packet.to_vec()),
                        None => {}
                    },
                }
                if count < at_most { ControlFlow::Continue(count + 1) } else { ControlFlow::Break(()) }
            });
        }
    }

    /// How many packets came faster than they were taken, or were too long to be copied.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Err(error) = self.pins.give_back() {
            debug!("the agent will put it back: {error:#}");
        }
    }
}

fn load(one_in: u32) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.override_global(ONE_IN, &one_in, true);
    loader.load(OBJECT).context("making the maps that packets are copied through")
}

fn open_buffers(object: &mut Ebpf) -> Result<Vec<PerfEventArrayBuffer<MapData>>> {
    let map = object.take_map(COPIES).with_context(|| format!("the object has no map {COPIES}"))?;
    let mut copies = PerfEventArray::try_from(map)?;
    let cpus = online_cpus()
        .map_err(|(what, error)| anyhow::Error::new(error).context(format!("asking for the CPUs: {what}")))?;
    let pages = (QUEUE_BYTES / PAGE_BYTES / cpus.len().max(1)).max(PAGES_MIN);
    // The kernel takes powers of two.
    let pages = 1 << pages.ilog2();
    let open = |cpu: u32| copies.open(cpu, Some(pages)).with_context(|| format!("opening the buffer of CPU {cpu}"));
    cpus.into_iter().map(open).collect()
}

/// Answers the copying program's id.
fn put_in_front(pins: &Pins, object: &mut Ebpf) -> Result<u32> {
    let id = serving(&pins.link)?;
    let info = loaded_programs().flatten().find(|info| info.id() == id);
    let info = info.with_context(|| format!("opening the program {id} that serves, which takes CAP_SYS_ADMIN"))?;
    let serving = info.fd().context("opening the program that serves")?;
    pin_program(serving.as_fd(), &pins.serving())?;

    let map = object.map_mut(NEXT).with_context(|| format!("the object has no map {NEXT}"))?;
    let Map::ProgramArray(data) = &*map else { bail!("{NEXT} is no array of programs") };
    data.pin(pins.next()).context("pinning what names the next program")?;
    ProgramArray::try_from(map)?.set(0, &serving, 0).context("naming the program that serves as the next one")?;

    let program: &mut Xdp = object.program_mut(PROGRAM).context("the object has no program")?.try_into()?;
    program.load().context("loading the program that copies")?;
    program.pin(pins.copying()).context("pinning the program that copies")?;
    let was_there = exchange_program(&pins.link, &pins.serving(), &pins.copying())?;
    anyhow::ensure!(was_there, "an agent put another program there at the same time: try again");
    Ok(program.info()?.id())
}

/// The id of a link's program.
fn serving(link: &Path) -> Result<u32> {
    let shown = link.display();
    let link = FdLink::from(PinnedLink::from_pin(link).with_context(|| format!("opening the link {shown}"))?);
    Ok(link.info().with_context(|| format!("asking the link {shown}"))?.program_id())
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
