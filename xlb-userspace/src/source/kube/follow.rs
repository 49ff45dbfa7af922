//! How one kind is followed: what to ask the server next, and what its answers change. No server, no clock, no chance.
//!
//! A list, then watches that each begin where the one before ended. Between two watches the server's version is asked
//! for: a watch from a version that the server has not reached yet, as after its database was restored from a backup,
//! is silent and no error.
//!
//! kube's own `watcher` is not used: it puts no limit on the time that a list or the beginning of a watch takes, does
//! not fall back from streaming lists, and keeps the versions of bookmarks to itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::item::{Item, Resource};
use super::talk::{Answer, Failure, News, Obstacle, Request, Verb};
use crate::model::ObjectName;

/// The pause after the first failure; each further one doubles it.
const PAUSE_MIN_MS: u64 = 100;
/// The longest pause.
const PAUSE_MAX_MS: u64 = 3000;
/// A watch that lasted this long worked, even if nothing happened meanwhile.
const WATCH_WORKED_S: u64 = 1;
/// Watches after which everything is listed again: about an hour, as a watch lasts about 50 s. A restored database that has
/// grown to the same version again before the check cannot be told otherwise.
const WATCHES_PER_LIST: u32 = 72;
/// Failures in a row after which they are told: one is what a server that is restarted causes.
const FAILURES_UNTOLD: u32 = 1;

/// Follows one kind.
#[derive(Debug)]
pub struct Follower {
    resource: Resource,
    phase: Phase,
    /// Whether the server is thought to know streaming lists.
    streams_lists: bool,
    /// The objects told of and not taken back.
    known: BTreeSet<ObjectName>,
    /// The newest version that the server told of.
    newest: Option<u64>,
    /// Since the last list, those that ended as they should.
    watches: u32,
    /// In a row.
    failures: u32,
    /// Whether the last request failed.
    has_just_failed: bool,
    obstacles: BTreeMap<Obstacle, String>,
}

#[derive(Debug)]
enum Phase {
    /// What was listed is told only when the list is complete: before, objects that moved would be missing.
    Listing { items: BTreeMap<ObjectName, Item>, token: Option<String> },
    /// Between two watches.
    Checking { since: String },
    /// A watch is open, or about to be.
    Following { since: String },
}

impl Phase {
    fn start() -> Self {
        Self::Listing { items: BTreeMap::new(), token: None }
    }
}

impl Follower {
    /// Knows nothing yet.
    pub fn new(resource: Resource) -> Self {
        Self {
            resource,
            phase: Phase::start(),
            streams_lists: true,
            known: BTreeSet::new(),
            newest: None,
            watches: 0,
            failures: 0,
            has_just_failed: false,
            obstacles: BTreeMap::new(),
        }
    }

    /// What to ask next. A watch that is open goes on until it ends or fails.
    pub fn next_request(&self) -> Request {
        match &self.phase {
            Phase::Listing { .. } if self.streams_lists => Request::WatchAll,
            Phase::Listing { token, .. } => Request::List(token.clone()),
            Phase::Checking { .. } => Request::Version,
            Phase::Following { since } => Request::Watch(since.clone()),
        }
    }

    /// How long to wait before asking; `chance` is between 0 and 1.
    pub fn pause(&self, chance: f64) -> Duration {
        if !self.has_just_failed {
            return Duration::ZERO;
        }
        let doublings = self.failures.saturating_sub(1);
        let longest_ms = PAUSE_MIN_MS.saturating_mul(1 << doublings.min(16)).min(PAUSE_MAX_MS);
        Duration::from_millis(longest_ms).mul_f64(0.5 + 0.5 * chance)
    }

    /// Whether what the server tells now is still part of a list.
    pub fn is_listing(&self) -> bool {
        matches!(self.phase, Phase::Listing { .. })
    }

    /// Takes in an answer.
    pub fn take(&mut self, answer: Answer) -> Vec<News> {
        self.has_just_failed = false;
        match answer {
            Answer::Page(page, version, next) => self.page(page, &version, next),
            Answer::Version(version) => self.check(&version),
            Answer::Opened => self.overcome(&[Obstacle::Denied(Verb::Watch), Obstacle::Failing]),
            Answer::Applied(item) => self.applied(item),
            Answer::Deleted(item) => self.deleted(item),
            Answer::Bookmark(version) => {
                self.reach(&version);
                Vec::new()
            }
            Answer::AllTold(version) if self.is_listing() => self.all_told(&version),
            Answer::AllTold(version) => {
                self.reach(&version);
                Vec::new()
            }
            Answer::Ended(lived) => self.ended(lived),
            Answer::Failed(failure, lived) => self.failed(failure, lived),
        }
    }

    fn page(&mut self, page: Vec<Item>, version: &str, next: Option<String>) -> Vec<News> {
        let mut news = self.overcome(&[Obstacle::Denied(Verb::List)]);
        let Phase::Listing { items, token } = &mut self.phase else { return news };
        items.extend(page.into_iter().map(|item| (item.name.clone(), item)));
        *token = next;
        if token.is_none() {
            news.extend(self.all_told(version));
        }
        news
    }

    /// What is there comes before what vanished, so that nothing is missing in between.
    fn all_told(&mut self, version: &str) -> Vec<News> {
        let following = Phase::Following { since: version.into() };
        let Phase::Listing { items, .. } = std::mem::replace(&mut self.phase, following) else { return Vec::new() };
        self.newest = number(version);
        self.watches = 0;
        let ours = || items.values().filter(|item| item.content.is_some());
        let before = std::mem::replace(&mut self.known, ours().map(|item| item.name.clone()).collect());
        let gone: Vec<News> = before.difference(&self.known).cloned().map(News::Gone).collect();
        let put = items.into_values().filter(|item| item.content.is_some()).map(|item| News::Put(Box::new(item)));
        put.chain(gone).chain([News::Listed]).collect()
    }

    fn check(&mut self, version: &str) -> Vec<News> {
        let mut news = self.overcome(&[Obstacle::Denied(Verb::List)]);
        let Phase::Checking { since } = &mut self.phase else { return news };
        let since = std::mem::take(since);
        match (self.newest, number(version)) {
            (Some(from), Some(to)) if to < from => {
                self.phase = Phase::start();
                news.push(News::WentBack { from, to });
            }
            (_, to) => {
                self.newest = self.newest.max(to);
                self.phase = Phase::Following { since };
            }
        }
        news
    }

    fn applied(&mut self, item: Item) -> Vec<News> {
        if let Phase::Listing { items, .. } = &mut self.phase {
            items.insert(item.name.clone(), item);
            return Vec::new();
        }
        self.reach(&item.version);
        if item.content.is_none() {
            return self.gone(item.name);
        }
        self.known.insert(item.name.clone());
        vec![News::Put(Box::new(item))]
    }

    fn deleted(&mut self, item: Item) -> Vec<News> {
        if let Phase::Listing { items, .. } = &mut self.phase {
            items.remove(&item.name);
            return Vec::new();
        }
        self.reach(&item.version);
        self.gone(item.name)
    }

    fn gone(&mut self, name: ObjectName) -> Vec<News> {
        if self.known.remove(&name) { vec![News::Gone(name)] } else { Vec::new() }
    }

    /// The server told of everything up to this version.
    fn reach(&mut self, version: &str) {
        if let Phase::Following { since } = &mut self.phase {
            *since = version.into();
            self.newest = self.newest.max(number(version));
            self.failures = 0;
        }
    }

    /// A watch that ends as soon as it begins has not worked, however politely it ends.
    fn ended(&mut self, lived: Duration) -> Vec<News> {
        if self.is_listing() {
            return self.failed(Failure::NotUnderstood("the watch ended before everything was told".into()), lived);
        }
        if lived.as_secs() < WATCH_WORKED_S {
            self.count_failure(lived);
        } else {
            self.watches += 1;
        }
        match self.watches < WATCHES_PER_LIST {
            true => self.check_again(),
            false => self.phase = Phase::start(),
        }
        Vec::new()
    }

    fn failed(&mut self, failure: Failure, lived: Duration) -> Vec<News> {
        self.count_failure(lived);
        let request = self.next_request();
        if request == Request::WatchAll && matches!(failure, Failure::NotUnderstood(_) | Failure::Silent) {
            // A server from before streaming lists refuses them, or ignores the wish and never says that all was told.
            self.streams_lists = false;
        }
        self.try_differently(&request, &failure);
        let Some(sentence) = self.sentence(&failure, request.verb()) else { return Vec::new() };
        match failure {
            Failure::Denied(_) | Failure::Unauthenticated(_) => self.meet(Obstacle::Denied(request.verb()), sentence),
            _ => self.meet(Obstacle::Failing, sentence),
        }
    }

    /// Failures before one that came after a while are forgotten.
    fn count_failure(&mut self, lived: Duration) {
        let before = if lived.as_secs() < WATCH_WORKED_S { self.failures } else { 0 };
        self.failures = before.saturating_add(1);
        self.has_just_failed = true;
    }

    /// A list begins anew, as its token may be spoilt. A watch is preceded by a check, and a check that is not allowed
    /// must not keep the watch from going on.
    fn try_differently(&mut self, request: &Request, failure: &Failure) {
        match (request, failure) {
            (Request::WatchAll | Request::List(_), _) | (_, Failure::Expired | Failure::NotUnderstood(_)) => {
                self.phase = Phase::start();
            }
            (Request::Watch(_), _) => self.check_again(),
            (Request::Version, Failure::Denied(_)) => self.skip_check(),
            (Request::Version, _) => {}
        }
    }

    fn check_again(&mut self) {
        if let Phase::Following { since } = &mut self.phase {
            self.phase = Phase::Checking { since: std::mem::take(since) };
        }
    }

    fn skip_check(&mut self) {
        if let Phase::Checking { since } = &mut self.phase {
            self.phase = Phase::Following { since: std::mem::take(since) };
        }
    }

    /// Each obstacle is told once, until it is overcome or is another.
    fn meet(&mut self, obstacle: Obstacle, sentence: String) -> Vec<News> {
        let is_told = match obstacle {
            Obstacle::Denied(_) => self.obstacles.get(&obstacle) == Some(&sentence),
            Obstacle::Failing => self.failures <= FAILURES_UNTOLD || self.obstacles.contains_key(&obstacle),
        };
        if is_told {
            return Vec::new();
        }
        self.obstacles.insert(obstacle, sentence.clone());
        vec![News::Trouble(obstacle, sentence)]
    }

    fn overcome(&mut self, obstacles: &[Obstacle]) -> Vec<News> {
        let over = obstacles.iter().filter(|obstacle| self.obstacles.remove(obstacle).is_some());
        over.copied().map(News::Over).collect()
    }

    fn sentence(&self, failure: &Failure, verb: Verb) -> Option<String> {
        let (verb, plural, group) = (verb.name(), self.resource.plural(), self.resource.group());
        let why = match failure {
            Failure::Expired => return None,
            Failure::Denied(why) => {
                return Some(format!(
                    "the API server does not allow it; the agent's ClusterRole needs the verb {verb} on {plural} \
                     (apiGroup {group:?}): {why}"
                ));
            }
            Failure::Unauthenticated(why) => {
                return Some(format!(
                    "the API server does not accept the agent's credentials to {verb} {plural}: {why}"
                ));
            }
            Failure::Silent => "the API server does not answer",
            Failure::NotUnderstood(why) | Failure::Other(why) => why,
        };
        Some(format!("cannot be followed: {why}; what was told before stays"))
    }
}

/// Versions of one kind on one server can be compared as numbers (KEP-5504); other servers are not checked.
fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
