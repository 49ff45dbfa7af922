//! Hearing packets, and handing on what the path says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::event::Event;
use super::filter::Filter;
use super::judge::{Place, judge, pod_links};
use crate::cli::inspection::interface;
use crate::maps::attach::FrontDoor;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::maps::tables::LiveTables;
use crate::maps::watching::{Arrived, Watching};
use crate::model::called::no_such;
use crate::plan::Observed;

/// Links of pods that are listened to at once.
const LINKS_MAX: usize = 512;
/// Packets that are judged before somebody looks at signals and time again.
const TURN_PACKETS: usize = 256;
/// How often is looked for packets while there are none: the kernel does not tell of each, since that costs it much.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
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
    let watching = Watching::new(wanted.one_in)?;
    let (places, unheard) = (BTreeMap::new(), BTreeSet::new());
    let mut ears = Ears { pins, wanted, watching, places, unheard, observed: maps.observed()?, has_lost: false, warn };
    ears.check_service()?;
    ears.open_uplinks();
    ensure!(!ears.places.is_empty(), "there is no uplink to listen at: start xlb run, or name its --bpffs-dir");
    ears.open_pods();
    ears.tell();
    let (began, mut news_at) = (Instant::now(), Instant::now() + NEWS_INTERVAL);
    let mut pause = LOOK_INTERVAL;
    loop {
        let left = wanted.duration.map(|duration| duration.saturating_sub(began.elapsed()));
        if left == Some(Duration::ZERO) {
            return ears.end(End::TimeIsOver);
        }
        if is_signalled(&signals, left.unwrap_or(pause).min(pause))? {
            return ears.end(End::Interrupted);
        }
        let turn = ears.turn();
        pause = if turn.is_empty() { LOOK_INTERVAL } else { Duration::ZERO };
        for (arrived, place) in turn {
            let event = judge(arrived, &place, &tables, &ears.observed);
            if let Some(event) = event.filter(|event| wanted.filter.takes(event))
                && take(&event, &ears.observed)? == Next::Enough
            {
                return ears.end(End::Enough);
            }
        }
        if Instant::now() >= news_at {
            let began = Instant::now();
            ears.open_uplinks();
            ears.tell_lost()?;
            if maps.config()?.generation != ears.observed.generation {
                ears.observed = maps.observed()?;
                ears.open_pods();
            }
            news_at = Instant::now() + NEWS_INTERVAL.max(began.elapsed() * NEWS_RESTS);
        }
    }
}

/// Where is listened, and what was known when that began.
struct Ears<'a, W> {
    pins: &'a PinDirectory,
    wanted: &'a Wanted,
    watching: Watching,
    places: BTreeMap<u32, Place>,
    /// Uplinks that cannot be listened at, which was told.
    unheard: BTreeSet<u32>,
    observed: Observed,
    /// Whether packets were lost, which was told.
    has_lost: bool,
    warn: W,
}

impl<W: FnMut(String)> Ears<'_, W> {
    /// A service that nobody has ever heard of is a mistake; one that goes while we listen is not.
    fn check_service(&self) -> Result<()> {
        let filter = &self.wanted.filter;
        let Some(name) = &filter.service else { return Ok(()) };
        let known: Vec<&str> = self.observed.services.values().map(|service| service.name.as_str()).collect();
        ensure!(known.iter().any(|known| filter.takes_service(known)), "{}", no_such(name, &known));
        Ok(())
    }

    /// Listens at those that are new, and before XDP again where an agent that came has put its own program.
    fn open_uplinks(&mut self) {
        let watching = &self.watching;
        let is_heard = |ifindex: u32, door| door == FrontDoor::Tc || watching.is_before_xdp(door, ifindex);
        self.places.retain(|ifindex, place| place.door.is_none_or(|door| is_heard(*ifindex, door)));
        for (ifindex, door) in self.pins.doors() {
            if !self.places.contains_key(&ifindex) {
                let link = interface(ifindex);
                match self.open_uplink(&link, ifindex, door) {
                    Ok(door) => drop(self.places.insert(ifindex, Place { link, ifindex, door: Some(door) })),
                    // It may be gone, and its pin is still there.
                    Err(error) if self.unheard.insert(ifindex) => {
                        (self.warn)(format!("packets at {link} are not seen: {error:#}"));
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// Answers the door before which packets are heard.
    fn open_uplink(&mut self, link: &str, ifindex: u32, door: FrontDoor) -> Result<FrontDoor> {
        if door != FrontDoor::Tc {
            match self.watching.listen_before_xdp(self.pins, door, ifindex) {
                Ok(()) => return Ok(door),
                Err(error) => (self.warn)(format!(
                    "{link} is served by {door}: packets from clients are not seen there, but those that it leaves to tc, and replies \
                     are: {error:#}"
                )),
            }
        }
        self.watching.listen(link, ifindex)?;
        Ok(FrontDoor::Tc)
    }

    /// Listens at those that are new, and leaves those that lead to no backend any more.
    fn open_pods(&mut self) {
        let links = pod_links(&self.observed, |name| self.wanted.filter.takes_service(name));
        let is_over =
            |(ifindex, place): (&u32, &Place)| (place.door.is_none() && !links.contains(ifindex)).then_some(*ifindex);
        for ifindex in self.places.iter().filter_map(is_over).collect::<Vec<_>>() {
            self.watching.leave(ifindex);
            self.places.remove(&ifindex);
        }
        let new: Vec<u32> = links.into_iter().filter(|ifindex| !self.places.contains_key(ifindex)).collect();
        let room = LINKS_MAX.saturating_sub(self.places.len());
        if new.len() > room {
            let more = new.len() - room;
            (self.warn)(format!("replies of {more} links of pods are not seen: name a --service"));
        }
        for ifindex in new.into_iter().take(room) {
            let link = interface(ifindex);
            match self.watching.listen(&link, ifindex) {
                Ok(()) => drop(self.places.insert(ifindex, Place { link, ifindex, door: None })),
                Err(error) => (self.warn)(format!("replies by {link} are not seen: {error:#}")),
            }
        }
    }

    /// From here on no packet is missed.
    fn tell(&mut self) {
        let uplinks = self.places.values().filter(|place| place.door.is_some()).map(|place| place.link.as_str());
        let uplinks = uplinks.collect::<Vec<_>>().join(", ");
        let pods = self.places.values().filter(|place| place.door.is_none()).count();
        (self.warn)(format!("listening at {uplinks}, and at {pods} links of pods"));
    }

    /// The first time: who does not see a packet may think that it did not come.
    fn tell_lost(&mut self) -> Result<()> {
        if !self.has_lost && self.watching.lost()? > 0 {
            self.has_lost = true;
            (self.warn)(
                "packets come faster than they are looked at, and some are missing: say --sample 1/10, or more".into(),
            );
        }
        Ok(())
    }

    /// What waits, in the order in which it came, whatever CPU it came by.
    fn turn(&mut self) -> Vec<(Arrived, Place)> {
        let arrived = self.watching.receive(TURN_PACKETS).into_iter();
        let placed = |arrived: Arrived| {
            let place = self.places.get(&arrived.ifindex)?.clone();
            Some((arrived, place))
        };
        arrived.filter_map(placed).collect()
    }

    fn end(self, why: End) -> Result<Ended> {
        Ok(Ended { why, lost: self.watching.lost()? })
    }
}

/// Waits for a signal, and no longer than told.
fn is_signalled(signals: &SignalFd, at_most: Duration) -> Result<bool> {
    let milliseconds = u16::try_from(at_most.as_millis()).unwrap_or(u16::MAX);
    match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::from(milliseconds)) {
        // It was stopped, and goes on.
        Err(Errno::EINTR) => Ok(false),
        signalled => Ok(signalled.context("waiting for packets")? > 0),
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
