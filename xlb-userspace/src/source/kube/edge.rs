//! The requests themselves: what a [`Follower`] wants to ask is asked, each within a limit of time.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, error::Elapsed, sleep, timeout};
use tracing::{debug, warn};

use super::follow::Follower;
use super::item::{Resource, Watched};
use super::talk::{Answer, Failure, News, Request};
use super::tally::Tally;

/// For a page of a list, for the beginning of a watch, and between two objects while a watch tells of everything.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The server ends a watch after this time, and up to half of it more, so that not all agents come back at once.
const WATCH_S: u32 = 40;
/// How much later than that a watch counts as dead.
const WATCH_MARGIN: Duration = Duration::from_secs(5);
/// Objects of one page.
const PAGE_OBJECTS: u32 = 500;
/// Marks the bookmark at the end of a streaming list.
const ALL_TOLD: &str = "k8s.io/initial-events-end";

/// What of one kind to follow, and who hears of it.
pub struct Edge<K> {
    /// The kind.
    pub api: Api<K>,
    /// A label selector.
    pub labels: Option<String>,
    /// A field selector.
    pub fields: Option<String>,
    /// Who hears of it.
    pub listener: Sender<(Resource, Vec<News>)>,
    /// Where its failures and lists are counted.
    pub tally: Arc<Tally>,
}

/// Nobody listens any longer.
struct Unheard;

impl<K: Watched> Edge<K> {
    /// Follows the kind until nobody listens any longer.
    pub async fn follow(self) {
        let mut follower = Follower::new(K::RESOURCE);
        while self.step(&mut follower).await.is_ok() {}
    }

    async fn step(&self, follower: &mut Follower) -> Result<(), Unheard> {
        sleep(follower.pause(chance())).await;
        match follower.next_request() {
            Request::WatchAll => self.watch(follower, self.watch_params().initial_events(), "").await,
            Request::Watch(since) => self.watch(follower, self.watch_params(), &since).await,
            Request::List(token) => {
                let answer = self.list(token).await;
                self.tell(follower, answer).await
            }
            Request::Version => {
                let answer = self.version().await;
                self.tell(follower, answer).await
            }
        }
    }

    async fn list(&self, token: Option<String>) -> Answer {
        let params = ListParams { continue_token: token, ..self.list_params(PAGE_OBJECTS) };
        match timeout(CALL_LIMIT, self.api.list(&params)).await {
            Ok(Ok(list)) => {
                let items = list.items.iter().map(K::item).collect();
                let next = list.metadata.continue_.filter(|token| !token.is_empty());
                Answer::Page(items, list.metadata.resource_version.unwrap_or_default(), next)
            }
            failed => failure(failed, Duration::ZERO),
        }
    }

    async fn version(&self) -> Answer {
        match timeout(CALL_LIMIT, self.api.list_metadata(&self.list_params(1))).await {
            Ok(Ok(list)) => Answer::Version(list.metadata.resource_version.unwrap_or_default()),
            failed => failure(failed, Duration::ZERO),
        }
    }

    async fn watch(&self, follower: &mut Follower, params: WatchParams, since: &str) -> Result<(), Unheard> {
        let stream = match timeout(CALL_LIMIT, self.api.watch(&params, since)).await {
            Ok(Ok(stream)) => stream,
            failed => return self.tell(follower, failure(failed, Duration::ZERO)).await,
        };
        let (mut stream, opened) = (pin!(stream), Instant::now());
        self.tell(follower, Answer::Opened).await?;
        let life = Duration::from_secs(params.timeout.unwrap_or(WATCH_S).into());
        loop {
            let limit = if follower.is_listing() { CALL_LIMIT } else { life + WATCH_MARGIN };
            let answer = match timeout(limit, stream.next()).await {
                Ok(None) => Answer::Ended(opened.elapsed()),
                Ok(Some(Ok(event))) => event_answer(event, opened.elapsed()),
                Ok(Some(Err(kube::Error::SerdeError(error)))) => {
                    // One object in a shape of its own must not hold up the others.
                    warn!("{}: an object cannot be read and is left as it was: {error}", K::RESOURCE.plural());
                    continue;
                }
                Ok(Some(Err(error))) => failure::<()>(Ok(Err(error)), opened.elapsed()),
                Err(elapsed) => failure::<()>(Err(elapsed), opened.elapsed()),
            };
            let is_over = matches!(answer, Answer::Ended(_) | Answer::Failed(..));
            self.tell(follower, answer).await?;
            if is_over {
                return Ok(());
            }
        }
    }

    async fn tell(&self, follower: &mut Follower, answer: Answer) -> Result<(), Unheard> {
        if let Answer::Failed(failure, _) = &answer {
            debug!("{}: {:?} failed: {failure:?}", K::RESOURCE.plural(), follower.next_request());
            self.tally.count_failure(K::RESOURCE);
        }
        let news = follower.take(answer);
        if news.contains(&News::Listed) {
            self.tally.count_list(K::RESOURCE);
        }
        if news.is_empty() {
            return Ok(());
        }
        self.listener.send((K::RESOURCE, news)).await.map_err(|_| Unheard)
    }

    fn list_params(&self, objects: u32) -> ListParams {
        ListParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            limit: Some(objects),
            ..ListParams::default()
        }
    }

    fn watch_params(&self) -> WatchParams {
        let extra_s = chance() * f64::from(WATCH_S / 2);
        WatchParams {
            label_selector: self.labels.clone(),
            field_selector: self.fields.clone(),
            timeout: Some(WATCH_S + extra_s as u32),
            ..WatchParams::default()
        }
    }
}

fn event_answer<K: Watched>(event: WatchEvent<K>, lived: Duration) -> Answer {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => Answer::Applied(object.item()),
        WatchEvent::Deleted(object) => Answer::Deleted(object.item()),
        WatchEvent::Bookmark(mark) if mark.metadata.annotations.contains_key(ALL_TOLD) => {
            Answer::AllTold(mark.metadata.resource_version)
        }
        WatchEvent::Bookmark(mark) => Answer::Bookmark(mark.metadata.resource_version),
        WatchEvent::Error(status) => Answer::Failed(status_failure(&status), lived),
    }
}

fn failure<T>(outcome: Result<kube::Result<T>, Elapsed>, lived: Duration) -> Answer {
    let why = match outcome {
        Err(_) => Failure::Silent,
        Ok(Err(kube::Error::Api(status))) => status_failure(&status),
        Ok(Err(error)) => Failure::Other(sentence(&anyhow::Error::from(error))),
        Ok(Ok(_)) => unreachable!("only failures come here"),
    };
    Answer::Failed(why, lived)
}

/// The error and its causes; some say their cause's sentence themselves already.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.ends_with(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

fn status_failure(status: &Status) -> Failure {
    let why = if status.message.is_empty() { format!("HTTP status {}", status.code) } else { status.message.clone() };
    match status.code {
        410 => Failure::Expired,
        400 | 422 => Failure::NotUnderstood(why),
        401 => Failure::Unauthenticated(why),
        403 => Failure::Denied(why),
        _ => Failure::Other(why),
    }
}

/// A number between 0 and 1, other for each agent and each time.
fn chance() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}
