//! Hearing packets, and handing on what the path says of them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::ear::Ear;
use super::event::Event;
use super::filter::Filter;
use super::judge::{Place, judge, pod_links};
use crate::cli::inspection::interface;
use crate::maps::attach::FrontDoor;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::maps::tables::LiveTables;
use crate::maps::watching::Watching;
use crate::node::packet_socket::{Arrived, PacketSocket};
use crate::plan::Observed;

/// Links of pods that are listened to at once.
const LINKS_MAX: usize = 512;
/// Packets that one link, or one CPU of it, may hand on before the others have their turn.
const TURN_PACKETS: usize = 64;
/// How often is looked for other services, pods and links.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);
/// Reading them takes a while on a node with many: so many times that long packets have the time for themselves.
const NEWS_RESTS: u32 = 20;

/// What to hear.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which packets.
    pub filter: Filter,
    /// Of so many packets one is looked at, chosen by chance.
    pub one_in: u32,
    /// Ends then.
    pub duration: Option<Duration>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// There may be more.
    More,
    /// That was the last one.
    Enough,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Whoever takes the events has enough.
    Enough,
    /// Its time is over.
    TimeIsOver,
    /// It was interrupted, or asked to terminate.
    Interrupted,
}

/// What it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub why: End,
    /// Packets that came faster than they could be looked at.
    pub lost: u64,
}

/// Hands each packet that is wanted to `take`, with what the maps say, until that has enough, the time is over, or a signal
/// comes. `warn` hears what cannot be seen here.
///
/// # Errors
/// When there is no dataplane, nothing to listen to, or `take` fails.
pub fn follow(
    pins: &PinDirectory,
    wanted: &Wanted,
    warn: impl FnMut(String),
    mut take: impl FnMut(&Event, &Observed) -> Result<Next>,
) -> Result<Ended> {
    let maps = LiveMaps::open(pins)?;
    let tables = LiveTables::new(&maps, pins)?;
    let signals = signals()?;
    let mut ears = Ears { pins, wanted, ears: BTreeMap::new(), observed: maps.observed()?, warn };
    ears.check_service()?;
    ears.open_uplinks()?;
    ensure!(
        !ears.ears.is_empty(),
        "none of xlb's programs is attached to an uplink: start xlb run, or name its --bpffs-dir"
    );
    ears.open_pods();
    ears.tell();
    let (began, mut news_at) = (Instant::now(), Instant::now() + NEWS_INTERVAL);
    loop {
        let left = wanted.duration.map(|duration| duration.saturating_sub(began.elapsed()));
        if left == Some(Duration::ZERO) {
            return Ok(ears.end(End::TimeIsOver));
        }
        if !ears.wait(&signals, left.unwrap_or(NEWS_INTERVAL).min(NEWS_INTERVAL))? {
            return Ok(ears.end(End::Interrupted));
        }
        for (arrived, bytes, place) in ears.turn() {
            let event = judge(bytes, &arrived, &place, &tables, &ears.observed);
            if let Some(event) = event.filter(|event| wanted.filter.takes(event))
                && take(&event, &ears.observed)? == Next::Enough
            {
                return Ok(ears.end(End::Enough));
            }
        }
        if Instant::now() >= news_at {
            let began = Instant::now();
            ears.open_uplinks()?;
            if maps.config()?.generation != ears.observed.generation {
                ears.observed = maps.observed()?;
                ears.open_pods();
            }
            news_at = Instant::now() + NEWS_INTERVAL.max(began.elapsed() * NEWS_RESTS);
        }
    }
}

/// The ears, and what was known when they were opened.
struct Ears<'a, W> {
    pins: &'a PinDirectory,
    wanted: &'a Wanted,
    ears: BTreeMap<u32, (Ear, Place)>,
    observed: Observed,
    warn: W,
}

impl<W: FnMut(String)> Ears<'_, W> {
    /// A service that nobody has ever heard of is a mistake; one that goes while we listen is not.
    fn check_service(&self) -> Result<()> {
        let filter = &self.wanted.filter;
        let Some(name) = &filter.service else { return Ok(()) };
        let mut names = self.observed.services.values().map(|service| service.name.as_str());
        if names.clone().any(|name| filter.takes_service(name)) {
            return Ok(());
        }
        let listed: Vec<&str> = names.by_ref().take(10).collect();
        bail!("no Service {name} is served here; there are {}: see `xlb services`", listed.join(", "))
    }

    /// Opens those that are new, and those that an agent which came has taken the ear from.
    fn open_uplinks(&mut self) -> Result<()> {
        self.ears.retain(|_, (ear, _)| ear.is_in_place());
        for (ifindex, door) in self.pins.doors() {
            if !self.ears.contains_key(&ifindex) {
                let link = interface(ifindex);
                let (ear, door) =
                    self.open_uplink(&link, ifindex, door).with_context(|| format!("listening at {link}"))?;
                self.ears.insert(ifindex, (ear, Place { link, ifindex, door: Some(door) }));
            }
        }
        Ok(())
    }

    /// Answers the door before which packets are heard, too.
    fn open_uplink(&mut self, link: &str, ifindex: u32, door: FrontDoor) -> Result<(Ear, FrontDoor)> {
        let one_in = self.wanted.one_in;
        if door != FrontDoor::Tc {
            match Watching::open(self.pins, door.program(), ifindex, one_in) {
                Ok(watching) => return Ok((Ear::Xdp(Box::new(watching)), door)),
                Err(error) => (self.warn)(format!(
                    "{link} is served by {door}: packets from clients are not seen there, but those that it leaves to tc, and replies \
                     are: {error:#}"
                )),
            }
        }
        Ok((Ear::Socket(PacketSocket::open(ifindex, one_in)?), FrontDoor::Tc))
    }

    /// Opens those that are new, and closes those that lead to no backend any more.
    fn open_pods(&mut self) {
        let links = pod_links(&self.observed, |name| self.wanted.filter.takes_service(name));
        self.ears.retain(|ifindex, (_, place)| place.door.is_some() || links.contains(ifindex));
        let new: Vec<u32> = links.into_iter().filter(|ifindex| !self.ears.contains_key(ifindex)).collect();
        let room = LINKS_MAX.saturating_sub(self.ears.len());
        if new.len() > room {
            let more = new.len() - room;
            (self.warn)(format!("replies of {more} links of pods are not seen: name a --service"));
        }
        for ifindex in new.into_iter().take(room) {
            let name = interface(ifindex);
            match PacketSocket::open(ifindex, self.wanted.one_in) {
                Ok(socket) => {
                    self.ears.insert(ifindex, (Ear::Socket(socket), Place { link: name, ifindex, door: None }));
                }
                Err(error) => (self.warn)(format!("replies by {name} are not seen: {error:#}")),
            }
        }
    }

    /// From here on no packet is missed.
    fn tell(&mut self) {
        let uplinks =
            self.ears.values().filter(|(_, place)| place.door.is_some()).map(|(_, place)| place.link.as_str());
        let uplinks = uplinks.collect::<Vec<_>>().join(", ");
        let pods = self.ears.values().filter(|(_, place)| place.door.is_none()).count();
        (self.warn)(format!("listening at {uplinks}, and at {pods} links of pods"));
    }

    /// Waits until a link has something, and no longer than told. False: a signal came.
    fn wait(&self, signals: &SignalFd, at_most: Duration) -> Result<bool> {
        let descriptors = self.ears.values().flat_map(|(ear, _)| ear.descriptors());
        let mut polled: Vec<PollFd> = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        polled.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        // A wait of less than a millisecond is none, and would be asked for again and again.
        let milliseconds = u16::try_from(at_most.as_millis()).unwrap_or(u16::MAX).max(1);
        match poll(&mut polled, PollTimeout::from(milliseconds)) {
            // It was stopped, and goes on.
            Err(Errno::EINTR) => return Ok(true),
            waited => waited.context("waiting for packets")?,
        };
        Ok(!polled.last().is_some_and(|signals| signals.any().unwrap_or(false)))
    }

    /// What waits at all links, in the order in which it came: an answer may wait at another link than its question.
    fn turn(&mut self) -> Vec<(Arrived, Vec<u8>, Place)> {
        let mut packets = Vec::new();
        for (ear, place) in self.ears.values_mut() {
            ear.receive(TURN_PACKETS, |arrived, bytes| packets.push((arrived, bytes, place.clone())));
        }
        packets.sort_by_key(|(arrived, ..)| arrived.at);
        packets
    }

    fn end(self, why: End) -> Ended {
        Ended { why, lost: self.ears.values().map(|(ear, _)| ear.lost()).sum() }
    }
}

/// Those that ask for an end are read from here on, and end nothing by themselves.
fn signals() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    mask.add(Signal::SIGTERM);
    mask.thread_block().context("blocking signals")?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("reading signals")
}
