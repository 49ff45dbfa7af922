//! Short connections at a steady pace: how many get through, and how long until a pod has answered.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::event_loop::{self, Stop};
use super::talk::{Failure, Incident, Talk};
use crate::lab::Namespace;

/// What became of the attempts.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// How long each took that got through, until its pod's answer.
    pub times: Vec<Duration>,
    /// Attempts that did not open.
    pub failed: u64,
    /// Those that opened, and broke.
    pub incidents: Vec<Incident>,
}

/// A client that comes again and again.
pub struct Newcomers {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<Attempts>>,
}

impl Newcomers {
    /// Begins to open one connection per interval. None waits for another.
    pub fn start(client: &Namespace, vip: SocketAddr, pace: Duration, patience: Duration) -> Newcomers {
        let (ask, mut stop) = Stop::channel();
        let thread = event_loop::spawn(client, move || async move {
            let mut running = JoinSet::new();
            let mut due = interval(pace);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !stop.is_asked() {
                tokio::select! {
                    _ = due.tick() => { running.spawn(attempt(vip, patience)); }
                    () = stop.asked() => {}
                }
            }
            Ok(running.join_all().await.into_iter().fold(Attempts::default(), Attempts::with))
        });
        Newcomers { stop: ask, thread }
    }

    /// Stops, waits for those that are on their way, and says what became of all.
    pub fn stop(self) -> Result<Attempts> {
        self.stop.send_replace(true);
        event_loop::join(self.thread)
    }
}

async fn attempt(vip: SocketAddr, patience: Duration) -> Result<Duration, Failure> {
    let begun = Instant::now();
    Talk::begin(vip, patience).await.map(|_| begun.elapsed())
}

impl Attempts {
    fn with(mut self, attempt: Result<Duration, Failure>) -> Attempts {
        match attempt {
            Ok(time) => self.times.push(time),
            Err(Failure::NotOpened) => self.failed += 1,
            Err(Failure::Broke(incident)) => self.incidents.push(incident),
        }
        self
    }
}
