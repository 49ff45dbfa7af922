//! One TCP connection of a client: a secret for the pod that accepts it, then questions, each answered by that pod with
//! that secret.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connections::Habits;
use super::event_loop::Stop;
use super::wire::{ANSWER_BYTES, Answer, GOODBYE, Question};

/// What went wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Violation {
    /// A pod answered that did not accept it.
    Moved,
    /// The answer has another connection's secret, or is none to its question.
    Foreign,
    /// It was reset after a pod had answered.
    Reset,
    /// It was reset before: no pod need have accepted it.
    Refused,
    /// It was closed, and no pod said so.
    Closed,
    /// A pod had answered, and then no answer came.
    Hung,
    /// The client's kernel called it open, and no pod ever answered.
    Unanswered,
}

/// A violation, for whoever looks for its cause.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Incident {
    /// What.
    pub violation: Violation,
    /// The client's end.
    pub client: SocketAddr,
    /// The pod that accepted the connection, as far as it has said so.
    pub pod: Option<u64>,
    /// When.
    pub at: SystemTime,
    /// How old it was.
    pub age: Duration,
    /// Questions that were answered before.
    pub answered: u64,
}

/// Why there is no connection.
pub enum Failure {
    /// The handshake did not come to its end.
    NotOpened,
    /// It did.
    Broke(Incident),
}

/// Why a connection is over.
pub enum End {
    /// The client was asked to stop.
    Stopped,
    /// Its pod closed it, as it may.
    ByPod,
    /// For no good reason.
    Wrong(Violation),
}

/// An open connection.
pub struct Talk {
    stream: TcpStream,
    client: SocketAddr,
    secret: u64,
    pod: Option<u64>,
    next: u64,
    since: Instant,
    /// Until the next question.
    pub rest: Duration,
}

impl Talk {
    /// Opens one, tells the secret, and hears who answers. What does not open within the patience is given up.
    ///
    /// # Errors
    /// When it does not open, or no pod answers.
    pub async fn begin(vip: SocketAddr, patience: Duration) -> Result<Talk, Failure> {
        let opening = timeout(patience, TcpStream::connect(vip)).await;
        let Ok(Ok(stream)) = opening else { return Err(Failure::NotOpened) };
        let Ok(client) = stream.local_addr() else { return Err(Failure::NotOpened) };
        let _ = stream.set_nodelay(true);
        let (pod, next, since, rest) = (None, 0, Instant::now(), Duration::ZERO);
        let mut talk = Talk { stream, client, secret: new_secret(), pod, next, since, rest };
        match talk.ask(patience).await {
            Ok(()) => Ok(talk),
            Err(End::Wrong(Violation::Hung)) => Err(Failure::Broke(talk.incident(Violation::Unanswered))),
            Err(End::Wrong(Violation::Reset)) => Err(Failure::Broke(talk.incident(Violation::Refused))),
            Err(End::Wrong(violation)) => Err(Failure::Broke(talk.incident(violation))),
            Err(End::ByPod | End::Stopped) => Err(Failure::NotOpened),
        }
    }

    /// Asks again and again until it is over.
    pub async fn go_on(&mut self, habits: Habits, stop: &mut Stop) -> End {
        loop {
            let (is_stopping, quiet) = tokio::select! {
                quiet = self.pause() => (false, quiet),
                () = stop.asked() => (true, Ok(())),
            };
            let answered = match quiet {
                Ok(()) => self.ask(habits.patience).await,
                Err(end) => Err(end),
            };
            match answered {
                Ok(()) if is_stopping => return End::Stopped,
                Ok(()) => self.rest = habits.pause,
                Err(end) => return end,
            }
        }
    }

    /// Questions that were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.next
    }

    /// For whoever looks for the cause.
    #[must_use]
    pub fn incident(&self, violation: Violation) -> Incident {
        let Talk { client, pod, next: answered, since, .. } = *self;
        Incident { violation, client, pod, at: SystemTime::now(), age: since.elapsed(), answered }
    }

    /// Nobody speaks unless asked, but a pod that closes.
    async fn pause(&mut self) -> Result<(), End> {
        let mut word = [0; ANSWER_BYTES];
        match timeout(self.rest, self.stream.read(&mut word)).await {
            Err(_) => Ok(()),
            Ok(Ok(0)) => Err(End::Wrong(Violation::Closed)),
            // So few bytes, written at once, are one segment.
            Ok(Ok(_)) => Err(self.check(Answer::of_bytes(word)).err().unwrap_or(End::Wrong(Violation::Foreign))),
            Ok(Err(_)) => Err(End::Wrong(Violation::Reset)),
        }
    }

    async fn ask(&mut self, patience: Duration) -> Result<(), End> {
        let key = if self.next == 0 { self.secret } else { 0 };
        let question = Question { key, number: self.next }.to_bytes();
        let mut answer = [0; ANSWER_BYTES];
        let asked = async {
            self.stream.write_all(&question).await?;
            self.stream.read_exact(&mut answer).await
        };
        let answered = timeout(patience, asked).await.map_err(|_| End::Wrong(Violation::Hung))?;
        answered.map_err(|error| End::Wrong(violation_of(&error)))?;
        self.check(Answer::of_bytes(answer))?;
        self.next += 1;
        Ok(())
    }

    fn check(&mut self, answer: Answer) -> Result<(), End> {
        if *self.pod.get_or_insert(answer.pod) != answer.pod {
            return Err(End::Wrong(Violation::Moved));
        }
        if answer.number == GOODBYE {
            return Err(End::ByPod);
        }
        if (answer.key, answer.number) != (self.secret, self.next) {
            return Err(End::Wrong(Violation::Foreign));
        }
        Ok(())
    }
}

fn violation_of(error: &Error) -> Violation {
    match error.kind() {
        ErrorKind::UnexpectedEof => Violation::Closed,
        _ => Violation::Reset,
    }
}

/// A number that no other connection has.
fn new_secret() -> u64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(NUMBER.fetch_add(1, Ordering::Relaxed))
}
