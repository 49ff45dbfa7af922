//! Hearing packets, and handing on what the path says of them.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
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
use crate::node::packet_socket::{Arrived, PacketSocket};
use crate::plan::Observed;

/// Links of pods that are listened to at once.
const LINKS_MAX: usize = 512;
/// Packets that one link may hand on before the others have their turn.
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
    let mut ears = Ears { pins, wanted, sockets: BTreeMap::new(), observed: maps.observed()?, warn };
    ears.check_service()?;
    ears.open_uplinks()?;
    ears.open_pods();
    ears.tell();
    let (began, mut news_at) = (Instant::now(), Instant::now() + NEWS_INTERVAL);
    let mut bytes = Vec::new();
    loop {
        let left = wanted.duration.map(|duration| duration.saturating_sub(began.elapsed()));
        if left == Some(Duration::ZERO) {
            return Ok(ears.end(End::TimeIsOver));
        }
        if !ears.wait(&signals, left.unwrap_or(NEWS_INTERVAL).min(NEWS_INTERVAL))? {
            return Ok(ears.end(End::Interrupted));
        }
        for (arrived, bytes, place) in ears.turn(&mut bytes) {
            let event = judge(bytes, &arrived, &place, &tables, &ears.observed);
            if let Some(event) = event.filter(|event| wanted.filter.takes(event))
                && take(&event, &ears.observed)? == Next::Enough
            {
                return Ok(ears.end(End::Enough));
            }
        }
        if Instant::now() >= news_at {
            let began = Instant::now();
            if maps.config()?.generation != ears.observed.generation {
                ears.observed = maps.observed()?;
                ears.open_pods();
            }
            news_at = Instant::now() + NEWS_INTERVAL.max(began.elapsed() * NEWS_RESTS);
        }
    }
}

/// The sockets, and what was known when they were opened.
struct Ears<'a, W> {
    pins: &'a PinDirectory,
    wanted: &'a Wanted,
    sockets: BTreeMap<u32, (PacketSocket, Place)>,
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

    fn open_uplinks(&mut self) -> Result<()> {
        let doors = self.pins.doors();
        ensure!(
            !doors.is_empty(),
            "none of xlb's programs is attached to an uplink: start xlb run, or name its --bpffs-dir"
        );
        for (ifindex, door) in doors {
            let name = interface(ifindex);
            match door {
                FrontDoor::Tc => {}
                FrontDoor::XdpNative => (self.warn)(format!(
                    "{name} is served by native XDP: packets that it hands to pods are not seen, those that it leaves to tc and \
                     all replies are"
                )),
                FrontDoor::XdpGeneric => (self.warn)(format!(
                    "{name} is served by generic XDP: packets from clients are not seen there, replies are; with --xdp off \
                     all are"
                )),
            }
            let place = Place { link: name.clone(), ifindex, is_uplink: true };
            let socket =
                PacketSocket::open(ifindex, self.wanted.one_in).with_context(|| format!("listening at {name}"))?;
            self.sockets.insert(ifindex, (socket, place));
        }
        Ok(())
    }

    /// Opens those that are new, and closes those that lead to no backend any more.
    fn open_pods(&mut self) {
        let links = pod_links(&self.observed, |name| self.wanted.filter.takes_service(name));
        self.sockets.retain(|ifindex, (_, place)| place.is_uplink || links.contains(ifindex));
        let new: Vec<u32> = links.into_iter().filter(|ifindex| !self.sockets.contains_key(ifindex)).collect();
        let room = LINKS_MAX.saturating_sub(self.sockets.len());
        if new.len() > room {
            let more = new.len() - room;
            (self.warn)(format!("replies of {more} links of pods are not seen: name a --service"));
        }
        for ifindex in new.into_iter().take(room) {
            let name = interface(ifindex);
            match PacketSocket::open(ifindex, self.wanted.one_in) {
                Ok(socket) => {
                    let place = Place { link: name, ifindex, is_uplink: false };
                    self.sockets.insert(ifindex, (socket, place));
                }
                Err(error) => (self.warn)(format!("replies by {name} are not seen: {error:#}")),
            }
        }
    }

    /// From here on no packet is missed.
    fn tell(&mut self) {
        let uplinks = self.sockets.values().filter(|(_, place)| place.is_uplink).map(|(_, place)| place.link.as_str());
        let uplinks = uplinks.collect::<Vec<_>>().join(", ");
        let pods = self.sockets.values().filter(|(_, place)| !place.is_uplink).count();
        (self.warn)(format!("listening at {uplinks}, and at {pods} links of pods"));
    }

    /// Waits until a link has something, and no longer than told. False: a signal came.
    fn wait(&self, signals: &SignalFd, at_most: Duration) -> Result<bool> {
        let mut polled: Vec<PollFd> =
            self.sockets.values().map(|(socket, _)| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
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
    fn turn(&self, buffer: &mut Vec<u8>) -> Vec<(Arrived, Vec<u8>, Place)> {
        let mut packets = Vec::new();
        for (socket, place) in self.sockets.values() {
            for _ in 0..TURN_PACKETS {
                let Ok(Some(arrived)) = socket.receive(buffer) else { break };
                packets.push((arrived, buffer.clone(), place.clone()));
            }
        }
        packets.sort_by_key(|(arrived, ..)| arrived.at);
        packets
    }

    fn end(self, why: End) -> Ended {
        Ended { why, lost: self.sockets.values().map(|(socket, _)| u64::from(socket.lost())).sum() }
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
