//! What the agent tells the outside after each round: health, metrics, events.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use tracing::info;

use crate::agent::options::Options;
use crate::agent::report::Report;
use crate::agent::sweeper::{self, Sweeper};
use crate::agent::sync::{Agent, Extent};
use crate::events::{Announcer, Notice, Poster, Subject};
use crate::health::answer::{Moment, not_found, of_agent, read_only};
use crate::health::{HealthPorts, HealthState, NodeState, Verdict, judge, wanted};
use crate::http::{Answer, Respond, Servers, Serving, listen_at};
use crate::maps::pins::PinDirectory;
use crate::maps::wanted::Refused;
use crate::metrics::facts::{Served, by_kind};
use crate::metrics::{Facts, Scraper, model, text};
use crate::page::history::SAMPLE_INTERVAL;
use crate::page::{self, Pages, Pulse};
use crate::plan::desired::Refusal;
use crate::source::{News, Source};

/// How long nothing must have changed before everything is counted.
const COUNT_PAUSE: Duration = Duration::from_millis(100);
/// How old counts may be while changes do not pause: about the interval of a scraper.
const COUNT_DELAY_MAX: Duration = Duration::from_secs(15);

/// Everything that others can ask this agent, and what it tells by itself.
pub struct Outside {
    board: Arc<Board>,
    ports: HealthPorts,
    announcer: Announcer,
    poster: Option<Poster>,
    /// None: nobody can ask for it.
    pages: Option<Arc<Pages>>,
    node_name: String,
    started_wall_ms: i64,
    /// When what led to changes that are not in the maps yet happened.
    triggers_ms: Vec<i64>,
    uncounted: Option<Uncounted>,
    sweeper: Sweeper,
    is_counted: bool,
    is_starting: bool,
    _serving: Vec<Serving>,
    servers: Servers,
}

/// Changes that the numbers of the metrics do not have yet.
#[derive(Clone, Copy)]
struct Uncounted {
    first: Instant,
    last: Instant,
}

/// What the agent's thread writes, and the servers' thread reads.
struct Board {
    started: Instant,
    node_name: String,
    health: Mutex<HealthState>,
    facts: Mutex<Facts>,
}

impl Outside {
    /// Opens the agent's own servers. From here on `/livez` is answered.
    ///
    /// # Errors
    /// When an address cannot be listened at.
    pub fn open(options: &Options, pins: &PinDirectory, source: &Source) -> Result<Self> {
        let node = source.kube().map_or_else(NodeState::without_kubernetes, |_| NodeState::absent());
        let board = Arc::new(Board {
            started: Instant::now(),
            node_name: options.node_name.clone(),
            health: Mutex::new(HealthState::new(node)),
            facts: Mutex::default(),
        });
        let servers = Servers::start()?;
        let (mut serving, mut pages) = (Vec::new(), None);
        if let Some(address) = options.health_address {
            serving.push(serve(&servers, address, "health", "--health-address", health_server(board.clone()))?);
        }
        if let Some(address) = options.metrics_address {
            let scraper = Arc::new(Scraper::new(pins.clone(), options.sizes.counted_services));
            let shown = pages.insert(Arc::new(Pages::new(pins.clone(), scraper.clone()))).clone();
            let respond = metrics_server(board.clone(), scraper, shown.clone(), address);
            serving.push(serve(&servers, address, "metrics and the page", "--metrics-address", respond)?);
            serving.push(servers.repeat(SAMPLE_INTERVAL, move || shown.sample()));
        }
        let judged = board.clone();
        Ok(Self {
            ports: HealthPorts::new(options.health_check_node_ports, Arc::new(move || judged.verdict().is_healthy)),
            board,
            announcer: Announcer::default(),
            poster: source.kube().map(|kube| Poster::start(kube.client().clone(), &options.node_name)),
            pages,
            node_name: options.node_name.clone(),
            started_wall_ms: Timestamp::now().as_millisecond(),
            triggers_ms: Vec::new(),
            uncounted: None,
            sweeper: Sweeper::start(pins.clone(), options.flow_timeouts)?,
            is_counted: false,
            is_starting: true,
            _serving: serving,
            servers,
        })
    }

    /// This agent's programs were refused: whoever replaces versions is to learn of it.
    pub fn refuse(&mut self, refused: &Refused) {
        self.board.health().are_programs_refused = true;
        self.board.facts().refused_program = Some(refused.program.clone());
    }

    /// Shows to whoever looks what this report says of things that are not done.
    pub fn show(&self, report: &Report) {
        if let Some(pages) = &self.pages {
            pages.tell(&report.refusals, &report.waiting, &report.uplinks);
        }
    }

    /// Goes on with these options, as far as that goes without a restart.
    pub fn take_over(&mut self, options: &Options) {
        self.ports.choose(options.health_check_node_ports);
        self.sweeper.set_timeouts(options.flow_timeouts);
    }

    /// The configuration was read again, and taken or refused.
    pub fn count_reload(&self, is_taken: bool) {
        let mut facts = self.board.facts();
        *if is_taken { &mut facts.reloads.0 } else { &mut facts.reloads.1 } += 1;
    }

    /// Tells Kubernetes of something about this node.
    pub fn post(&self, notice: Notice) {
        if let Some(poster) = &self.poster {
            poster.post(notice, None);
        }
    }

    /// A round begins with this news. Until it completes, it counts as waiting: also one that hangs is seen.
    pub fn begin(&mut self, news: &News, is_synced: bool) {
        let mut health = self.board.health();
        health.node = news.node.clone();
        if is_synced {
            health.queue(self.board.now_ms());
        }
        drop(health);
        self.triggers_ms.extend(&news.triggers_ms);
        if !news.events.is_empty() {
            self.board.facts().last_queued_s = wall_s();
        }
    }

    /// What could not be opened for Services, and which flow maps are crowded.
    pub fn refusals(&self) -> Vec<Refusal> {
        let crowded = sweeper::refusals(&self.swept());
        [self.ports.refusals(), &crowded].concat()
    }

    /// What sweeps did and found, to be read at once.
    pub fn swept(&self) -> MutexGuard<'_, sweeper::Board> {
        self.sweeper.board()
    }

    /// A round failed; what was queued goes on waiting.
    pub fn failed(&self) {
        self.board.facts().sync_failures += 1;
    }

    /// When everything is to be counted anew: that looks through all Services, and so waits until changes pause, but not
    /// longer than metrics may be old. None: all is counted.
    pub fn count_at(&self) -> Option<Instant> {
        self.uncounted.map(|Uncounted { first, last }| (last + COUNT_PAUSE).min(first + COUNT_DELAY_MAX))
    }

    /// A round completed: health, then health ports, then the rest (semantics 14.4).
    pub fn complete(&mut self, agent: &mut Agent, source: &Source, extent: &Extent, is_tick: bool, took: Duration) {
        self.board.health().complete(self.board.now_ms(), agent.families());
        if is_tick || self.has_health_port(agent, extent) {
            let before = self.refusals();
            let (ports, conflicts) = wanted(&agent.model, &agent.options.policy, &self.node_name);
            self.ports.follow(ports, conflicts, &self.servers);
            agent.replace_refusals(&before, self.refusals());
        }
        if !extent.is_nothing() {
            let now = Instant::now();
            self.uncounted =
                Some(Uncounted { last: now, ..self.uncounted.unwrap_or(Uncounted { first: now, last: now }) });
            self.board.facts().sync_duration.observe(took.as_secs_f64());
        }
        if !self.is_counted || self.count_at().is_some_and(|at| at <= Instant::now()) {
            (self.uncounted, self.is_counted) = (None, true);
            self.count(agent);
        }
        self.tell_facts(agent, source);
        self.show(&agent.report);
        self.announce(agent, source);
    }

    /// Whether what a round was about has a health port, or had one.
    fn has_health_port(&self, agent: &Agent, extent: &Extent) -> bool {
        let Extent::Part(names) = extent else { return true };
        let has_one = |name| agent.model.service(name).is_some_and(|service| service.health_check_node_port.is_some());
        names.iter().any(has_one) || self.ports.are_of_any(names)
    }

    fn count(&mut self, agent: &Agent) {
        let asked = model::count(&agent.model, &agent.options.policy, &self.node_name);
        let mut served = Served::of(&agent.observed, agent.maps.limits());
        served.fills.extend(agent.maps.places());
        let mut facts = self.board.facts();
        (facts.asked, facts.served) = (asked, served);
        drop(facts);
        if let Some(pages) = &self.pages {
            pages.change(&agent.observed);
        }
    }

    fn tell_facts(&mut self, agent: &Agent, source: &Source) {
        let mut facts = self.board.facts();
        facts.last_sync_s = wall_s();
        facts.missed = agent.missed;
        let now_ms = Timestamp::now().as_millisecond();
        for triggered_ms in self.triggers_ms.drain(..).filter(|ms| (self.started_wall_ms..=now_ms).contains(ms)) {
            facts.programming.observe((now_ms - triggered_ms) as f64 / 1000.0);
        }
        facts.refusals = by_kind(agent.refusals());
        facts.swept = self.swept().clone();
        facts.health_ports = self.ports.open_ports();
        facts.watches = source.kube().map(|kube| kube.tally().counts().to_vec()).unwrap_or_default();
        facts.events = self.poster.as_ref().map(Poster::counts).unwrap_or_default();
    }

    /// Tells Kubernetes of what is new.
    fn announce(&mut self, agent: &Agent, source: &Source) {
        let (Some(poster), Some(kube)) = (&self.poster, source.kube()) else { return };
        let starting = std::mem::take(&mut self.is_starting).then(|| Notice::starting(&self.node_name));
        let programs = agent.refused_programs();
        let programs = programs.iter().map(|refusal| Notice::refused(&self.node_name, refusal));
        let refused =
            agent.refusals().iter().filter_map(|refusal| Notice::of(refusal, &self.node_name)).chain(programs);
        for notice in self.announcer.due(starting.into_iter().chain(refused), self.board.now_ms()) {
            let uid = match &notice.subject {
                Subject::Service(name) => kube.service_uid(name).map(String::from),
                Subject::Node(_) => None,
            };
            poster.post(notice, uid);
        }
    }
}

fn serve(servers: &Servers, address: SocketAddr, what: &str, flag: &str, respond: Respond) -> Result<Serving> {
    let listener = listen_at(address).with_context(|| {
        format!("listening at {address} for {what}: give another address with {flag}, or `{flag} off`")
    })?;
    info!("serving {what} at {address}");
    Ok(servers.serve(listener, respond))
}

fn health_server(board: Arc<Board>) -> Respond {
    Arc::new(move |asked| {
        let moment = Moment { now_ms: board.now_ms(), wall: Timestamp::now() };
        let answer = of_agent(asked.path, &board.verdict(), moment);
        let answer = answer.unwrap_or_else(|| not_found("/healthz, /livez and /readyz"));
        board.count_answer(asked.path, answer.status);
        answer
    })
}

fn metrics_server(board: Arc<Board>, scraper: Arc<Scraper>, pages: Arc<Pages>, address: SocketAddr) -> Respond {
    Arc::new(move |asked| match asked.path {
        _ if !asked.only_reads() => read_only(),
        "/metrics" => metrics(&board, &scraper),
        _ => {
            let answer = pages.answer(asked, address, || board.pulse());
            answer.unwrap_or_else(|| not_found("/ for people, /api/v1/state and /metrics"))
        }
    })
}

fn metrics(board: &Board, scraper: &Scraper) -> Answer {
    let maps = scraper.facts();
    let facts = board.facts().clone();
    match text::text(&facts, maps.as_ref()) {
        Ok(body) => Answer { status: 200, headers: vec![("Content-Type", text::CONTENT_TYPE.into())], body },
        Err(error) => Answer { status: 500, headers: Vec::new(), body: error.to_string() },
    }
}

impl Board {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn verdict(&self) -> Verdict {
        judge(&self.health(), self.now_ms())
    }

    fn pulse(&self) -> Pulse {
        let verdict = self.verdict();
        let (last_sync_s, served) = {
            let facts = self.facts();
            (facts.last_sync_s, facts.served.clone())
        };
        let agent = page::state::Agent {
            version: env!("CARGO_PKG_VERSION"),
            node_name: self.node_name.clone(),
            uplinks: Vec::new(),
            now_s: wall_s(),
            in_sync_at_s: last_sync_s,
            is_healthy: verdict.is_healthy,
            is_ready: verdict.is_ready,
            services: served.services,
            frontends: served.frontends,
            backends: served.backends,
        };
        Pulse { agent, fills: served.fills }
    }

    fn health(&self) -> MutexGuard<'_, HealthState> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Paths that somebody makes up are one.
    fn count_answer(&self, path: &str, status: u16) {
        let known = ["/healthz", "/livez", "/readyz"].into_iter().find(|known| *known == path).unwrap_or("other");
        *self.facts().answers.entry((known, status)).or_default() += 1;
    }
}

fn wall_s() -> f64 {
    Timestamp::now().as_millisecond() as f64 / 1000.0
}
