//! Long-lived TCP connections of a client: each tells the pod that accepts it a secret, and asks again and again.
//!
//! A connection is a *seat*: when its pod closes it, as a pod does whose time is over, the seat opens the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::event_loop::{self, Stop};
use super::pod::Closing;
use super::talk::{End, Failure, Incident, Talk, Violation};
use crate::lab::Namespace;

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
#[derive(Clone, Debug, Default)]
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
pub struct Connections {
    open: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<Tally>>,
}

impl Connections {
    /// Begins to open them.
    pub fn start(client: &Namespace, vip: SocketAddr, seats: usize, habits: Habits, closing: &Closing) -> Connections {
        let (ask, stop) = Stop::channel();
        let open = Arc::new(AtomicUsize::new(0));
        let (opening, now_open) = (Arc::new(Semaphore::new(OPENING_MAX)), Arc::clone(&open));
        let closing = closing.clone();
        let thread = event_loop::spawn(client, move || async move {
            let mut running = JoinSet::new();
            for number in 0..seats {
                let (opening, open, closing) = (Arc::clone(&opening), Arc::clone(&now_open), closing.clone());
                let seat = Seat { vip, habits, number, opening, open, closing, tally: Tally::default() };
                running.spawn(seat.run(stop.clone()));
            }
            Ok(running.join_all().await.into_iter().fold(Tally::default(), Tally::and))
        });
        Connections { open, stop: ask, thread }
    }

    /// How many are open, each with an answer of its pod.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Lets each have its last answer, closes them and says what became of all.
    pub fn stop(self) -> Result<Tally> {
        self.stop.send_replace(true);
        event_loop::join(self.thread)
    }
}

struct Seat {
    vip: SocketAddr,
    habits: Habits,
    number: usize,
    opening: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    closing: Closing,
    tally: Tally,
}

impl Seat {
    async fn run(mut self, mut stop: Stop) -> Tally {
        while !stop.is_asked() {
            let Some(mut talk) = self.open(&mut stop).await else { continue };
            self.open.fetch_add(1, Ordering::Relaxed);
            let end = talk.go_on(self.habits, &self.closing, &mut stop).await;
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
