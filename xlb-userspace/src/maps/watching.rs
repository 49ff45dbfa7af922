//! The programs that copy packets while somebody watches, before those that serve see them.
//!
//! At tc one of them is the first program of a link, and goes with the process. An interface takes one XDP program, and a link has
//! one, so before XDP the copying program takes the serving one's place, and hands each packet on to it (a tail call).
//! `<bpffs-dir>/v1/watching/` has what that depends on: the copying programs, and the map that names the serving ones, which the
//! kernel empties once nobody holds it. A watcher that was killed leaves uplinks served and these pins behind; the next one, or the
//! agent, puts the serving programs back.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Map, MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_obj::programs::XdpAttachType;
use nix::time::{ClockId, clock_gettime};
use tracing::debug;
use xlb_common::watched::{AT_TC, BEFORE_XDP, COPIES, LOST, NEXT, ONE_IN, Watched};

use crate::maps::attach::FrontDoor;
use crate::maps::link::{exchange_program, remove_pin};
use crate::maps::pins::PinDirectory;

/// Made by `cargo xtask build-ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/xlb-watch.o"));

/// The doors that have a copying program of their own, in the order of [`BEFORE_XDP`].
const XDP_DOORS: [FrontDoor; 2] = [FrontDoor::XdpNative, FrontDoor::XdpGeneric];

/// A packet as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// When it came.
    pub at: SystemTime,
    /// The link that received it.
    pub ifindex: u32,
    /// Whether its frame is addressed to another host.
    pub is_for_other_host: bool,
    /// The VLAN tag that was taken out of it: type and control, as they were on the wire.
    pub tag: Option<[u8; 4]>,
    /// Bytes of it, its MACs among them, without the tag.
    pub length: usize,
    /// Those that were copied: all, but of what GRO made of many packets.
    pub bytes: Vec<u8>,
}

/// Copies of what links receive, until it is dropped.
pub struct Watching {
    object: Ebpf,
    copies: RingBuf<MapData>,
    /// Links at tc.
    links: BTreeMap<u32, SchedClassifierLink>,
    /// Held while it copies before XDP.
    front: Option<Front>,
}

impl Watching {
    /// Listens nowhere yet. Of `one_in` packets it copies about one, chosen by chance.
    ///
    /// # Errors
    /// When the kernel refuses: it takes CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
    pub fn new(one_in: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.override_global(ONE_IN, &one_in, true);
        let mut object = loader.load(OBJECT).context("making the maps that packets are copied through")?;
        let copies = open_copies(&mut object)?;
        classifier(&mut object)?.load().context("loading the program that copies packets")?;
        Ok(Self { object, copies, links: BTreeMap::new(), front: None })
    }

    /// Copies what this link receives, before other programs at tc see it.
    ///
    /// # Errors
    /// When the kernel refuses, for example because the link is gone.
    pub fn listen(&mut self, link: &str, ifindex: u32) -> Result<()> {
        let program = classifier(&mut self.object)?;
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(link, TcAttachType::Ingress, first)?;
        self.links.insert(ifindex, program.take_link(id)?);
        Ok(())
    }

    /// Copies it no more.
    pub fn leave(&mut self, ifindex: u32) {
        self.links.remove(&ifindex);
    }

    /// Copies what an uplink receives, before XDP sees it.
    ///
    /// # Errors
    /// When somebody else does, or the kernel refuses.
    pub fn listen_before_xdp(&mut self, pins: &PinDirectory, door: FrontDoor, ifindex: u32) -> Result<()> {
        if self.front.is_none() {
            self.front = Some(Front::take(pins, &mut self.object)?);
        }
        let Some(front) = &mut self.front else { bail!("nothing is in front of XDP") };
        front.put_before(&mut self.object, door, ifindex)
    }

    /// Whether an uplink's packets still come by before XDP: an agent that starts puts its own program there.
    #[must_use]
    pub fn is_before_xdp(&self, door: FrontDoor, ifindex: u32) -> bool {
        self.front.as_ref().is_some_and(|front| front.is_before(door, ifindex))
    }

    /// Takes packets that wait, at most so many. Nothing tells when there are some: whoever watches has to look.
    pub fn receive(&mut self, at_most: usize) -> Vec<Arrived> {
        let (now, since_boot) = (SystemTime::now(), monotonic());
        let at = |ns: u64| now.checked_sub(since_boot.saturating_sub(Duration::from_nanos(ns))).unwrap_or(now);
        let mut packets = Vec::new();
        while packets.len() < at_most
            && let Some(record) = self.copies.next()
        {
            packets.extend(arrived(&record, at));
        }
        packets
    }

    /// How many packets came faster than they were taken.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn lost(&self) -> Result<u64> {
        let map = self.object.map(LOST).with_context(|| format!("the object has no map {LOST}"))?;
        let lost = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0).context("reading how many packets were lost")?;
        Ok(lost.iter().sum())
    }
}

fn arrived(record: &[u8], at: impl Fn(u64) -> SystemTime) -> Option<Arrived> {
    let (watched, bytes) = Watched::of_record(record)?;
    Some(Arrived {
        at: at(watched.at_ns),
        ifindex: watched.ifindex,
        is_for_other_host: watched.is_for_other_host != 0,
        tag: Some(watched.tag).filter(|tag| *tag != [0; 4]),
        length: watched.length as usize,
        bytes: bytes.to_vec(),
    })
}

/// The place before XDP, of all uplinks of a pin directory. Dropping it gives it back.
struct Front {
    pins: PinDirectory,
    /// Ids of the copying programs.
    programs: BTreeMap<FrontDoor, u32>,
    _lock: File,
}

impl Front {
    fn take(pins: &PinDirectory, object: &mut Ebpf) -> Result<Self> {
        let directory = pins.watching();
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let Some(lock) = lock(pins)? else {
            bail!("another `xlb watch`, `capture` or `explain --next` copies them now")
        };
        give_back(pins)?;
        let map = object.map(NEXT).with_context(|| format!("the object has no map {NEXT}"))?;
        let Map::ProgramArray(next) = map else { bail!("{NEXT} is no array of programs") };
        next.pin(directory.join(NEXT)).context("pinning what names the next program")?;
        Ok(Self { pins: pins.clone(), programs: BTreeMap::new(), _lock: lock })
    }

    fn put_before(&mut self, object: &mut Ebpf, door: FrontDoor, ifindex: u32) -> Result<()> {
        let (index, name) = copying(door).context("tc is no XDP")?;
        let serving = self.pins.program(door.program());
        let program = Xdp::from_pin(&serving, XdpAttachType::Interface)
            .with_context(|| format!("opening the program that serves, {}", serving.display()))?;
        let map = object.map_mut(NEXT).with_context(|| format!("the object has no map {NEXT}"))?;
        ProgramArray::try_from(map)?.set(index, program.fd()?, 0).context("naming the next program")?;
        if !self.programs.contains_key(&door) {
            let program = object.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
            let program: &mut Xdp = program.try_into()?;
            program.load().with_context(|| format!("loading the program {name}"))?;
            program.pin(pin(&self.pins, name)).with_context(|| format!("pinning the program {name}"))?;
            self.programs.insert(door, program.info()?.id());
        }
        let is_exchanged = exchange_program(&link(&self.pins, door, ifindex), &serving, &pin(&self.pins, name))?;
        ensure!(is_exchanged, "the program there is none of the agent's");
        Ok(())
    }

    fn is_before(&self, door: FrontDoor, ifindex: u32) -> bool {
        let there = || {
            Some(FdLink::from(PinnedLink::from_pin(link(&self.pins, door, ifindex)).ok()?).info().ok()?.program_id())
        };
        self.programs.get(&door).is_some_and(|own| there() == Some(*own))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Err(error) = give_back(&self.pins) {
            debug!("the agent will put the programs back: {error:#}");
        }
    }
}

/// Puts back what a watcher that was killed has left.
///
/// # Errors
/// When the kernel refuses.
pub fn give_back_left(pins: &PinDirectory) -> Result<()> {
    if !pins.watching().join(NEXT).exists() {
        return Ok(());
    }
    match lock(pins)? {
        Some(_lock) => {
            give_back(pins).context("putting back the XDP programs, which somebody who watched has replaced")
        }
        None => Ok(()),
    }
}

/// The serving programs get their places back where a copying one has it: an agent that came has put its own there.
fn give_back(pins: &PinDirectory) -> Result<()> {
    for (ifindex, door) in pins.doors() {
        let Some((_, name)) = copying(door) else { continue };
        if pin(pins, name).exists() {
            let link = link(pins, door, ifindex);
            let is_exchanged = exchange_program(&link, &pin(pins, name), &pins.program(door.program()))?;
            debug!("{}: {}", link.display(), if is_exchanged { "put back" } else { "another program is there" });
        }
    }
    BEFORE_XDP.into_iter().chain([NEXT]).try_for_each(|name| remove_pin(&pin(pins, name)))
}

/// Held by the one who copies before XDP; none: somebody else does.
fn lock(pins: &PinDirectory) -> Result<Option<File>> {
    let directory = pins.watching();
    let opened = File::open(&directory).with_context(|| format!("opening {}", directory.display()))?;
    match opened.try_lock() {
        Ok(()) => Ok(Some(opened)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", directory.display())),
    }
}

/// The copying program of a door, and where the map names the one behind it; none: XDP is not there.
fn copying(door: FrontDoor) -> Option<(u32, &'static str)> {
    let index = XDP_DOORS.iter().position(|known| *known == door)?;
    Some((index as u32, BEFORE_XDP[index]))
}

fn pin(pins: &PinDirectory, name: &str) -> PathBuf {
    pins.watching().join(name)
}

fn link(pins: &PinDirectory, door: FrontDoor, ifindex: u32) -> PathBuf {
    pins.links().join(format!("{}-{ifindex}", door.program()))
}

fn classifier(object: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = object.program_mut(AT_TC).with_context(|| format!("the object has no program {AT_TC}"))?;
    Ok(program.try_into()?)
}

fn open_copies(object: &mut Ebpf) -> Result<RingBuf<MapData>> {
    let map = object.take_map(COPIES).with_context(|| format!("the object has no map {COPIES}"))?;
    Ok(RingBuf::try_from(map)?)
}

fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
