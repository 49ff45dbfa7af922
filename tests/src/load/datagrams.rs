//! Numbered datagrams, at a steady rate, from several ports of a client.

use std::collections::BTreeSet;
use std::iter::Sum;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::event_loop::{self, Stop};
use super::pod::SOCKET_BUFFER_BYTES;
use super::wire::{ANSWER_BYTES, Answer, Question};
use crate::lab::Namespace;

/// How long the last answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What became of the datagrams of one flow or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Questions that were sent.
    pub sent: u64,
    /// Questions that nobody answered.
    pub lost: u64,
    /// Answers beyond the first.
    pub repeated: u64,
    /// Flows that more than one pod answered.
    pub moved: u64,
    /// Errors that sockets told of, such as a port that nobody listens on.
    pub refused: u64,
}

impl Sum for Count {
    fn sum<I: Iterator<Item = Count>>(counts: I) -> Count {
        counts.fold(Count::default(), |sum, count| Count {
            sent: sum.sent + count.sent,
            lost: sum.lost + count.lost,
            repeated: sum.repeated + count.repeated,
            moved: sum.moved + count.moved,
            refused: sum.refused + count.refused,
        })
    }
}

/// Flows that send until they are stopped.
pub struct Datagrams {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<Count>>,
}

impl Datagrams {
    /// Begins to send one datagram per flow and interval.
    pub fn start(client: &Namespace, vip: SocketAddr, flows: u64, pace: Duration) -> Datagrams {
        let (ask, stop) = Stop::channel();
        let thread = event_loop::spawn(client, move || async move {
            let mut running = JoinSet::new();
            for flow in 0..flows {
                let socket = open(vip).await?;
                running.spawn(Flow::new(flow, socket).run(pace, stop.clone()));
            }
            Ok(running.join_all().await.into_iter().sum())
        });
        Datagrams { stop: ask, thread }
    }

    /// Stops sending, waits for the last answers, and says what became of all.
    pub fn stop(self) -> Result<Count> {
        self.stop.send_replace(true);
        event_loop::join(self.thread)
    }
}

/// A connected socket hears an answer from the VIP only.
async fn open(vip: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("binding udp")?;
    setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
    socket.connect(vip).await.with_context(|| format!("connecting udp to {vip}"))?;
    Ok(socket)
}

struct Flow {
    flow: u64,
    socket: UdpSocket,
    unanswered: BTreeSet<u64>,
    pods: BTreeSet<u64>,
    count: Count,
}

impl Flow {
    fn new(flow: u64, socket: UdpSocket) -> Flow {
        let (unanswered, pods, count) = Default::default();
        Flow { flow, socket, unanswered, pods, count }
    }

    async fn run(mut self, pace: Duration, mut stop: Stop) -> Count {
        let mut due = interval(pace);
        // Datagrams that are late follow at the usual distance, not in a burst.
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = due.tick() => self.ask().await,
                () = self.listen() => {}
                () = stop.asked() => break,
            }
        }
        // The end of the time is no error: what is unanswered then is lost.
        let _ = timeout(LAST_ANSWERS, self.listen_for_all()).await;
        let (lost, moved) = (self.unanswered.len() as u64, u64::from(self.pods.len() > 1));
        Count { lost, moved, ..self.count }
    }

    async fn ask(&mut self) {
        let question = Question { key: self.flow, number: self.count.sent };
        self.unanswered.insert(question.number);
        self.count.sent += 1;
        if self.socket.send(&question.to_bytes()).await.is_err() {
            self.count.refused += 1;
        }
    }

    /// Takes one datagram.
    async fn listen(&mut self) {
        let mut bytes = [0; ANSWER_BYTES];
        match self.socket.recv(&mut bytes).await {
            Ok(ANSWER_BYTES) => self.note(Answer::of_bytes(bytes)),
            Ok(_) | Err(_) => self.count.refused += 1,
        }
    }

    async fn listen_for_all(&mut self) {
        while !self.unanswered.is_empty() {
            self.listen().await;
        }
    }

    fn note(&mut self, answer: Answer) {
        self.pods.insert(answer.pod);
        if answer.key != self.flow || !self.unanswered.remove(&answer.number) {
            self.count.repeated += 1;
        }
    }
}
