//! The thread that sweeps the flow maps. No round of the agent waits for it: what it did and found is on a board.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::util::nr_cpus;
use tracing::debug;
use xlb_common::abi::{EndpointKeyV4, EndpointKeyV6, FlowKeyV6};
use xlb_common::tables::{FlowTable, Proof, now_of};

use crate::ageing::pressure::room;
use crate::ageing::rules::Setting;
use crate::ageing::sweep::{Backends, Gone, HidingPod, Swept, World, backends_by_socket, sweep};
use crate::ageing::{Pressure, Timeouts, Why};
use crate::maps::fill::fill;
use crate::maps::flows::{FlowMap, name_of};
use crate::maps::kernel;
use crate::maps::keys::Keys;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::maps::tables::LiveTables;
use crate::plan::desired::Refusal;

/// How often it is looked whether a map has filled up since its last sweep, or is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the same is looked at for maps with much room: a look costs up to some milliseconds.
const CALM_LOOKS: u32 = 5;

/// What the sweeps did and found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// Entries removed, by map and cause.
    pub removed: BTreeMap<(&'static str, Why), u64>,
    /// Completed sweeps, by map.
    pub sweeps: BTreeMap<&'static str, u64>,
    /// How long the last one was at work, in seconds, by map.
    pub busy_s: BTreeMap<&'static str, f64>,
    /// Maps that are full of what lives, and how full.
    pub crowded: BTreeMap<&'static str, Pressure>,
    /// Pods whose kernels do not know their connections, as the last sweep of each map found.
    pub hiding: BTreeMap<&'static str, BTreeSet<HidingPod>>,
}

impl Board {
    /// Whether the kernel may evict connections that live, or is about to.
    #[must_use]
    pub fn loses_connections(&self) -> bool {
        let of = |map| self.crowded.get(map) == Some(&Pressure::Critical);
        of(name_of::<EndpointKeyV4>(FlowTable::Tcp)) || of(name_of::<EndpointKeyV6>(FlowTable::Tcp))
    }
}

/// The running thread. Dropping it ends it.
pub struct Sweeper {
    board: Arc<Mutex<Board>>,
    timeouts: Arc<Mutex<Timeouts>>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Begins to sweep the maps of this pin directory, as soon as they are there. The thread is of the caller's network
    /// namespace, by which those of pods are numbered.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(pins: PinDirectory, timeouts: Timeouts) -> Result<Self> {
        let board = Arc::new(Mutex::new(Board::default()));
        let (stop, stopped) = sync_channel(0);
        let cpus = nr_cpus().map_err(|(_, error)| error).context("counting the CPUs")? as u64;
        let asked = Arc::new(Mutex::new(timeouts));
        let (told, timeouts_asked) = (board.clone(), asked.clone());
        let mut work = Work { pins, timeouts, timeouts_asked, board: told, stopped, watched: watched(cpus), looks: 0 };
        let thread = thread::Builder::new().name("xlb-sweeper".into()).spawn(move || work.run());
        let thread = thread.context("starting the thread that sweeps flows")?;
        Ok(Self { board, timeouts: asked, stop: Some(stop), thread: Some(thread) })
    }

    /// From the next sweep on, which begins at once, flows are over after other times.
    pub fn set_timeouts(&self, timeouts: Timeouts) {
        *self.timeouts.lock().unwrap_or_else(PoisonError::into_inner) = timeouts;
    }

    /// What the sweeps did and found. The thread waits with what it has to tell while this is held.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// What is wrong with maps that are crowded.
#[must_use]
pub fn refusals(board: &Board) -> Vec<Refusal> {
    let crowded = board.crowded.iter().filter(|(_, pressure)| **pressure != Pressure::Calm);
    let refusal = |(map, pressure): (&&'static str, &Pressure)| {
        let percent = pressure.percent();
        let when_full = "when it is full, a flow that lives is forgotten for each new one";
        Refusal {
            object: format!("flows {map}"),
            why: format!("{percent} % of it are flows that live; {when_full}: raise --max-flows"),
        }
    };
    crowded.map(refusal).collect()
}

/// A map that is swept.
struct Watched {
    cpus: u64,
    is_v4: bool,
    table: FlowTable,
    pressure: Pressure,
    due: Option<Instant>,
    ask_from: u32,
    gone: Gone,
}

impl Watched {
    fn pressure_of(&self, entries: u64, capacity: u64) -> Pressure {
        Pressure::of(entries, room(capacity, self.cpus))
    }

    fn name(&self) -> &'static str {
        if self.is_v4 { name_of::<EndpointKeyV4>(self.table) } else { name_of::<EndpointKeyV6>(self.table) }
    }
}

/// All that are, TCP's first: there the kernel's own choice is the worst.
fn watched(cpus: u64) -> Vec<Watched> {
    let tables = [FlowTable::Tcp, FlowTable::Udp, FlowTable::UdpPending, FlowTable::Sctp];
    let of = |table| {
        [true, false].map(|is_v4| Watched {
            cpus,
            is_v4,
            table,
            pressure: Pressure::Calm,
            due: None,
            ask_from: 0,
            gone: Gone::default(),
        })
    };
    tables.into_iter().flat_map(of).collect()
}

struct Work {
    pins: PinDirectory,
    timeouts: Timeouts,
    timeouts_asked: Arc<Mutex<Timeouts>>,
    board: Arc<Mutex<Board>>,
    stopped: Receiver<()>,
    watched: Vec<Watched>,
    looks: u32,
}

impl Work {
    fn run(&mut self) {
        while rests(&self.stopped, LOOK_INTERVAL) {
            if self.pins.holds_dataplane()
                && let Err(error) = self.look()
            {
                debug!("sweeping flows: {error:#}");
            }
        }
    }

    /// Sweeps the maps that are due, and those that are fuller than their last sweep left them.
    fn look(&mut self) -> Result<()> {
        self.looks = self.looks.wrapping_add(1);
        let asked = *self.timeouts_asked.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut self.timeouts, asked) != asked {
            self.watched.iter_mut().for_each(|watched| watched.due = None);
        }
        let now = Instant::now();
        let mut due = Vec::new();
        for (index, watched) in self.watched.iter().enumerate() {
            let is_due = watched.due.is_none_or(|at| at <= now);
            let is_looked_at = self.looks.is_multiple_of(CALM_LOOKS) || watched.pressure != Pressure::Calm;
            if is_due || is_looked_at && is_fuller(&self.pins, watched)? {
                due.push(index);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let maps = LiveMaps::open(&self.pins)?;
        let backends = backends_by_socket(maps.backends()?);
        let world =
            Kernel { tables: LiveTables::new(&maps, &self.pins)?, stopped: &self.stopped, is_over: Cell::new(false) };
        for index in due {
            let watched = &mut self.watched[index];
            let map = watched.name();
            let swept = match watched.is_v4 {
                true => sweep_one::<EndpointKeyV4>(&self.pins, watched, &backends, self.timeouts, &world),
                false => sweep_one::<EndpointKeyV6>(&self.pins, watched, &backends, self.timeouts, &world),
            };
            if world.is_over.get() {
                return Ok(());
            }
            tell(&self.board, map, watched.pressure, &swept?);
        }
        Ok(())
    }
}

/// Whether more pressure is on the map than after its last sweep.
fn is_fuller(pins: &PinDirectory, watched: &Watched) -> Result<bool> {
    let fill = fill(pins, watched.name())?;
    Ok(watched.pressure_of(fill.entries, fill.capacity) > watched.pressure)
}

fn sweep_one<K: Keys>(
    pins: &PinDirectory,
    watched: &mut Watched,
    backends: &Backends,
    timeouts: Timeouts,
    world: &impl World,
) -> Result<Swept> {
    let table = watched.table;
    let other = match table {
        FlowTable::Udp => FlowTable::UdpPending,
        FlowTable::UdpPending => FlowTable::Udp,
        _ => table,
    };
    let (mut map, other) = (FlowMap::<K>::open(pins, table)?, FlowMap::<K>::open(pins, other)?);
    let filled = fill(pins, map.name)?;
    let pressure = watched.pressure_of(filled.entries, filled.capacity);
    let setting = Setting { timeouts, pressure, now: now_of(kernel::now_ns()?) };
    let swept = sweep((table, &mut map, &other), (backends, &mut watched.gone), &setting, watched.ask_from, world)?;
    watched.pressure = watched.pressure_of(swept.left(), filled.capacity);
    watched.ask_from = swept.ask_from;
    watched.due = Some(Instant::now() + watched.pressure.pause(&timeouts, swept.busy));
    Ok(swept)
}

fn tell(board: &Mutex<Board>, map: &'static str, pressure: Pressure, swept: &Swept) {
    let removed: u64 = swept.removed.values().sum();
    debug!("swept {map}: {} flows seen, {removed} removed, {} asked for, {:?}", swept.seen, swept.asked, swept.busy);
    let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
    for (&why, count) in &swept.removed {
        *board.removed.entry((map, why)).or_default() += count;
    }
    *board.sweeps.entry(map).or_default() += 1;
    board.busy_s.insert(map, swept.busy.as_secs_f64());
    board.crowded.insert(map, pressure);
    board.hiding.insert(map, swept.hiding.clone());
}

/// Waits. False: the thread is to end.
fn rests(stopped: &Receiver<()>, duration: Duration) -> bool {
    stopped.recv_timeout(duration) == Err(RecvTimeoutError::Timeout)
}

struct Kernel<'a> {
    tables: LiveTables<'a>,
    stopped: &'a Receiver<()>,
    is_over: Cell<bool>,
}

impl World for Kernel<'_> {
    fn ask(&self, netns_id: i32, family: u8, flow: FlowKeyV6) -> Result<Proof> {
        self.tables.ask(netns_id, family, flow)
    }

    fn rest(&self, duration: Duration) -> bool {
        let goes_on = rests(self.stopped, duration);
        self.is_over.set(!goes_on);
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowded_map_is_told_of_with_what_helps() {
        let crowded =
            [("FLOWS_V4", Pressure::High), ("SCTP_FLOWS_V6", Pressure::Critical), ("UDP_FLOWS_V4", Pressure::Calm)];
        let board = Board { crowded: crowded.into(), ..Board::default() };
        let told: Vec<String> =
            refusals(&board).iter().map(|refusal| format!("{}: {}", refusal.object, refusal.why)).collect();
        let when_full = "when it is full, a flow that lives is forgotten for each new one";
        assert_eq!(
            told,
            [
                format!("flows FLOWS_V4: 80 % of it are flows that live; {when_full}: raise --max-flows"),
                format!("flows SCTP_FLOWS_V6: 95 % of it are flows that live; {when_full}: raise --max-flows"),
            ]
        );
    }
}
