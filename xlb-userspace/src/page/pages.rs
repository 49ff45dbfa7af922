//! Who answers for the page and its state. It reads what the agent told, and maps no more often than metrics do.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::debug;

use super::ask::wanted;
use super::happened::Log;
use super::history::History;
use super::html::{Html, page};
use super::shown::Shown;
use super::state::{Agent, Sources, state};
use crate::agent::report::now_s;
use crate::cli::inspection::interface;
use crate::http::{Answer, Asked};
use crate::maps::fill::Fill;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::maps::spread::{Spread, spread};
use crate::metrics::Scraper;
use crate::plan::Observed;
use crate::plan::desired::Refusal;

/// The page's path.
pub const PAGE_PATH: &str = "/";
/// The state's path.
pub const STATE_PATH: &str = "/api/v1/state";

/// Whoever asks sooner is told the same of flows: looking costs some milliseconds with large maps.
const SPREAD_INTERVAL: Duration = Duration::from_secs(5);

/// For how long after somebody looked the agent tells what it serves after each change; then whoever looks reads the maps once.
const WATCHED_FOR: Duration = Duration::from_secs(60);

/// Answers to whoever looks.
pub struct Pages {
    html: Html,
    pins: PinDirectory,
    scraper: Arc<Scraper>,
    history: Mutex<History>,
    spread: Mutex<(Option<Instant>, Option<Arc<Spread>>)>,
    told: Mutex<Told>,
}

/// What the agent told last.
#[derive(Default)]
struct Told {
    /// None: it has changed since.
    shown: Option<Arc<Shown>>,
    /// When somebody looked last.
    watched: Option<Instant>,
    uplinks: Vec<String>,
    log: Log,
    waiting: Vec<Refusal>,
}

/// What is asked for at the moment of an answer.
pub struct Pulse {
    /// Who answers.
    pub agent: Agent,
    /// How full the maps are that it writes.
    pub fills: Vec<Fill>,
}

impl Pages {
    /// Of the maps of this pin directory, read by this scraper.
    #[must_use]
    pub fn new(pins: PinDirectory, scraper: Arc<Scraper>) -> Self {
        let (history, spread, told) = Default::default();
        Self { html: page(), pins, scraper, history, spread, told }
    }

    /// What the maps hold has changed. While somebody looks, it is told at once: that takes some milliseconds with ten thousand
    /// services, which an agent does not spend where nobody does.
    pub fn change(&self, observed: &Observed) {
        let mut told = locked(&self.told);
        told.shown = None;
        if told.watched.is_some_and(|at| at.elapsed() < WATCHED_FOR) {
            drop(told);
            self.show(Shown::of(observed));
        }
    }

    /// Two may tell at the same time: the newer word counts.
    fn show(&self, shown: Shown) -> Arc<Shown> {
        let mut told = locked(&self.told);
        match &told.shown {
            Some(known) if known.generation > shown.generation => known.clone(),
            _ => told.shown.insert(Arc::new(shown)).clone(),
        }
    }

    /// What is served, as it was told, or as the maps say.
    fn shown(&self) -> Arc<Shown> {
        let mut told = locked(&self.told);
        told.watched = Some(Instant::now());
        if let Some(shown) = &told.shown {
            return shown.clone();
        }
        drop(told);
        let read = LiveMaps::open(&self.pins).and_then(|maps| maps.observed());
        let read = read.inspect_err(|error| debug!("services of the page: {error:#}")).ok();
        read.map_or_else(Arc::default, |observed| self.show(Shown::of(&observed)))
    }

    /// What is refused and what waits now, and the uplinks.
    pub fn tell(&self, refused: &[Refusal], waiting: &[Refusal], uplinks: &[String]) {
        let mut told = locked(&self.told);
        told.log.follow(refused, now_s());
        if told.waiting != waiting {
            told.waiting = waiting.to_vec();
        }
        if told.uplinks != uplinks {
            told.uplinks = uplinks.to_vec();
        }
    }

    /// Takes a sample of the counters, if there are maps.
    pub fn sample(&self) {
        if let Some(counters) = self.scraper.counters() {
            locked(&self.history).add(now_s(), &counters);
        }
    }

    /// What is answered to a request; none: the path is none of the page's.
    pub fn answer(&self, asked: &Asked, listening: SocketAddr, pulse: impl FnOnce() -> Pulse) -> Option<Answer> {
        if ![PAGE_PATH, STATE_PATH].contains(&asked.path) {
            return None;
        }
        if !is_for_us(asked.host, listening.ip()) {
            return Some(misdirected(asked.host.unwrap_or_default()));
        }
        Some(if asked.path == PAGE_PATH { self.page() } else { self.state(asked.query, pulse()) })
    }

    fn page(&self) -> Answer {
        let policy = ("Content-Security-Policy", self.html.policy.clone());
        found("text/html; charset=utf-8", vec![policy], self.html.body.clone())
    }

    fn state(&self, query: &str, Pulse { agent, fills }: Pulse) -> Answer {
        let wanted = match wanted(query) {
            Ok(wanted) => wanted,
            Err(why) => return refused(400, why),
        };
        let (maps, spread, steps) = (self.scraper.facts(), self.spread(), locked(&self.history).steps());
        let shown = self.shown();
        let (uplinks, log, waiting) = {
            let told = locked(&self.told);
            (told.uplinks.clone(), told.log.clone(), told.waiting.clone())
        };
        let agent = Agent { uplinks, ..agent };
        let spread = spread.as_deref();
        let (log, waiting, maps) = (&log, &waiting[..], maps.as_ref());
        let sources = Sources { agent, shown: &shown, fills: &fills, maps, spread, steps, log, waiting };
        match serde_json::to_string(&state(&sources, &wanted, interface)) {
            Ok(body) => found("application/json", Vec::new(), body),
            Err(error) => refused(500, format!("the state cannot be written: {error}")),
        }
    }

    fn spread(&self) -> Option<Arc<Spread>> {
        let mut last = locked(&self.spread);
        if last.0.is_none_or(|at| at.elapsed() >= SPREAD_INTERVAL) {
            let looked = spread(&self.pins).inspect_err(|error| debug!("flows of backends: {error:#}")).ok();
            *last = (Some(Instant::now()), looked.map(Arc::new));
        }
        last.1.clone()
    }
}

/// Whether a request that came by loopback was sent there on purpose. A page of a stranger's can make a browser ask the own
/// machine, by a name that leads there; nobody needs a name for that.
fn is_for_us(host: Option<&str>, listening: IpAddr) -> bool {
    let Some(host) = host.filter(|_| listening.is_loopback()) else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn misdirected(host: &str) -> Answer {
    let to = "ask by localhost or by an address, or let the proxy in between say Host: localhost";
    refused(421, format!("this page is served at a loopback address, and not to those who call it {host:?}: {to}"))
}

/// What every answer of the page has. Nothing is kept, and no page of another origin may have it.
fn found(content_type: &'static str, more: Vec<(&'static str, String)>, body: String) -> Answer {
    let headers = [
        ("Content-Type", content_type),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ];
    let headers = headers.map(|(name, value)| (name, value.to_owned())).into_iter().chain(more).collect();
    Answer { status: 200, headers, body }
}

fn refused(status: u16, why: String) -> Answer {
    let headers = vec![("Content-Type", "text/plain; charset=utf-8".into())];
    Answer { status, headers, body: why + "\n" }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_to_loopback_is_not_answered() {
        let (own, public): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [192, 0, 2, 1].into());
        for host in [None, Some("localhost"), Some("LocalHost:10349"), Some("127.0.0.1:10349"), Some("[::1]:80")] {
            assert!(is_for_us(host, own), "{host:?}");
        }
        for host in ["evil.example", "evil.example:10349", "127.0.0.1.evil.example", "localhost.evil.example:80", ""] {
            assert!(!is_for_us(Some(host), own), "{host}");
            assert!(is_for_us(Some(host), public), "whoever opens it to a network may name it");
        }
    }
}
