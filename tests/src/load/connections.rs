//! Long-lived TCP connections of a client: each tells the pod that accepts it a secret, and asks again and again.
//!
//! A connection is a *seat*: when its pod closes it, as a pod does whose time is over, the seat opens the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::event_loop::{self, Stop};
use super::talk::{End, Failure, Incident, Talk, Violation};
use super::worker::{self, Worker};
use crate::lab::{Namespace, allow_open_files};

/// Connections that one client opens at a time: a burst of its own is not what is asked about.
const OPENING_MAX: usize = 64;
/// Between two attempts of one seat.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Of a pause, at whose ends the seats begin in turn.
const PARTS: usize = 1_009;

/// How connections behave.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Between a connection's answer and its next question.
    pub pause: Duration,
    /// A connection that waits longer for an answer hangs.
    pub patience: Duration,
}

/// What became of the connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Connections that were opened, and whose first question was answered.
    pub opened: u64,
    /// Attempts that came to nothing.
    pub failed: u64,
    /// Answers.
    pub answered: u64,
    /// Connections that their pods closed, as they may.
    pub ended: u64,
    /// What went wrong.
    pub incidents: Vec<Incident>,
}

impl Tally {
    /// How often it went wrong so.
    #[must_use]
    pub fn of(&self, violation: Violation) -> usize {
        self.incidents.iter().filter(|incident| incident.violation == violation).count()
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Tally) -> Tally {
        self.incidents.extend(other.incidents);
        Tally {
            opened: self.opened + other.opened,
            failed: self.failed + other.failed,
            answered: self.answered + other.answered,
            ended: self.ended + other.ended,
            incidents: self.incidents,
        }
    }
}

/// The seats of one client, until they are stopped.
pub struct Connections(Worker);

impl Connections {
    /// Begins to open them.
    pub fn start(client: &Namespace, vip: SocketAddr, seats: usize, habits: Habits) -> Result<Connections> {
        let (pause, patience) = (habits.pause.as_millis().to_string(), habits.patience.as_millis().to_string());
        let (vip, seats) = (vip.to_string(), seats.to_string());
        let options = [("--vip", vip), ("--seats", seats), ("--pause-ms", pause), ("--patience-ms", patience)];
        let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        Ok(Connections(Worker::start(client, &["client".to_owned()].into_iter().chain(options).collect::<Vec<_>>())?))
    }

    /// How many are open, each with an answer of its pod.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.open()
    }

    /// Lets each of all have its last answer, closes them and says what became of them.
    pub fn stop(mut all: Vec<Connections>) -> Result<Tally> {
        all.iter_mut().for_each(|connections| connections.0.ask_to_end());
        all.into_iter().try_fold(Tally::default(), |sum, connections| {
            let last = connections.0.finish()?;
            Ok(sum.and(serde_json::from_str(&last).with_context(|| format!("reading {last:?}"))?))
        })
    }
}

/// In a worker: keeps the seats until its input ends, and says what became of them.
pub fn work(vip: SocketAddr, seats: usize, habits: Habits) -> Result<()> {
    allow_open_files()?;
    event_loop::run(async {
        let (opening, open) = (Arc::new(Semaphore::new(OPENING_MAX)), Arc::new(AtomicUsize::new(0)));
        let (stop, mut commands) = (Stop::channel(), worker::commands());
        tokio::spawn(worker::tell_of(Arc::clone(&open)));
        let mut running = JoinSet::new();
        for number in 0..seats {
            let (opening, open) = (Arc::clone(&opening), Arc::clone(&open));
            running.spawn(Seat { vip, habits, number, opening, open, tally: Tally::default() }.run(stop.1.clone()));
        }
        commands.wait_for(Option::is_none).await?;
        stop.0.send_replace(true);
        let tally = running.join_all().await.into_iter().fold(Tally::default(), Tally::and);
        worker::say(&serde_json::to_string(&tally)?);
        Ok(())
    })
}

struct Seat {
    vip: SocketAddr,
    habits: Habits,
    number: usize,
    opening: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    tally: Tally,
}

impl Seat {
    async fn run(mut self, mut stop: Stop) -> Tally {
        while !stop.is_asked() {
            let Some(mut talk) = self.open(&mut stop).await else { continue };
            self.open.fetch_add(1, Ordering::Relaxed);
            let end = talk.go_on(self.habits, &mut stop).await;
            self.open.fetch_sub(1, Ordering::Relaxed);
            self.tally.answered += talk.answered();
            match end {
                End::Stopped => break,
                End::ByPod => self.tally.ended += 1,
                End::Wrong(violation) => self.tally.incidents.push(talk.incident(violation)),
            }
        }
        self.tally
    }

    /// A connection whose pod has answered, unless the attempt failed or the seat was stopped.
    async fn open(&mut self, stop: &mut Stop) -> Option<Talk> {
        let attempt = async {
            let _turn = self.opening.acquire().await;
            Talk::begin(self.vip, self.habits.patience).await
        };
        let talk = tokio::select! {
            talk = attempt => talk,
            () = stop.asked() => return None,
        };
        match talk {
            Ok(mut talk) => {
                self.tally.opened += 1;
                // Not all speak at the same moment: each begins with its own part of a pause.
                talk.rest = self.habits.pause.mul_f64((self.number % PARTS) as f64 / PARTS as f64);
                return Some(talk);
            }
            Err(Failure::NotOpened) => self.tally.failed += 1,
            Err(Failure::Broke(incident)) => self.tally.incidents.push(incident),
        }
        sleep(RETRY_INTERVAL).await;
        None
    }
}
