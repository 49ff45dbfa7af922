//! The agent killed between any two operations, in an update, in a start and in an upgrade (`faults/upgrade.rs`): the next
//! one brings the maps to what is asked for, and meanwhile traffic goes on. And pins that somebody took away
//! (`faults/missing.rs`).
//!
//! Nothing in the agent helps: `strace` kills it as it makes its k-th call. Before each operation of a plan the agent logs it,
//! with one write(2); so these calls part the operations from each other, stores into the mapped slots included. What
//! a start does beside a plan are calls of bpf(2). A few k by chance; with `XLB_FAULTS=all` every one.

#[path = "faults/missing.rs"]
mod missing;
#[path = "faults/upgrade.rs"]
mod upgrade;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use xlb_common::Reason;
use xlb_common::abi::ABI_VERSION;
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::lab::{LabSpec, LineClient, Program, UdpClient, wait_for};
use xlb_userspace::maps::live::LiveMaps;
use xlb_userspace::maps::object::Sizes;
use xlb_userspace::maps::pins::PinDirectory;

use crate::stage::{Held, Stage, TARGET_PORT, service};

/// How many k of each kind, unless all are asked for.
const SAMPLE: usize = 3;
/// What a start and its first round need on a busy machine.
const LONG: Duration = Duration::from_secs(120);
/// How long a datagram's answer may take on a busy machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process takes to end that was killed.
const EXIT: Duration = Duration::from_millis(500);
/// How the agent says what it is about to do.
const LOG: [&str; 2] = ["env", "XLB_LOG=info,xlb_userspace::agent::sync=debug"];
const STRACE: [&str; 4] = ["strace", "-f", "-qq", "-s0"];
/// Calls of bpf(2) that change something.
const CHANGES: [&str; 9] = [
    "BPF_MAP_CREATE,",
    "BPF_MAP_UPDATE_ELEM,",
    "BPF_MAP_DELETE_ELEM,",
    "BPF_MAP_UPDATE_BATCH,",
    "BPF_MAP_DELETE_BATCH,",
    "BPF_OBJ_PIN,",
    "BPF_PROG_LOAD,",
    "BPF_LINK_CREATE,",
    "BPF_LINK_UPDATE,",
];

/// What is asked for in turn: pods behind `default/web`, and whether there is a second Service.
const STATES: [(&[usize], bool); 2] = [(&[0, 1], true), (&[1, 2, 3], false)];

#[test]
fn an_agent_killed_in_an_update_leaves_a_dataplane_that_the_next_one_completes() -> Result<()> {
    let mut faults = Faults::up()?;
    let strace = faults.attach("write", &[])?;
    faults.publish(1)?;
    faults.until_in_state(1)?;
    let calls = strace.end()?;
    let places = places(&calls, |line| line.contains("write(1, ") || line.contains("write(2, "));
    ensure!(places.len() > 50, "only {} lines were logged: {calls}", places.len());
    let mut state = 1;
    for place in faults.chosen(&places) {
        state = 1 - state;
        faults.under_traffic(|faults| {
            let strace = faults.attach("write", &["-e", &kill_at("write", place)])?;
            faults.publish(state)?;
            let is_killed = faults.is_killed(state)?;
            drop(strace);
            if is_killed || faults.is_killed_late()? {
                faults.check_references().with_context(|| format!("killed at its write {place}"))?;
                faults.stage.agent.start_again_by(&LOG)?;
            }
            faults.until_in_state(state).with_context(|| format!("killed at its write {place}"))
        })?;
    }
    Ok(())
}

#[test]
fn an_agent_killed_in_its_start_leaves_a_dataplane_that_the_next_one_completes() -> Result<()> {
    let mut faults = Faults::up()?;
    faults.stage.agent.kill()?;
    faults.publish(1)?;
    let file = faults.file();
    let output = file.display().to_string();
    let watch = ["-e", "trace=bpf"];
    faults.stage.agent.start_again_by(&[&STRACE[..], &watch, &["-o", &output]].concat())?;
    faults.until_in_state(1)?;
    faults.stop()?;
    let calls = fs::read_to_string(&file)?;
    let made = calls.matches("(BPF_MAP_CREATE,").count();
    ensure!(
        made < Sizes::default().maps().len(),
        "{made} maps: the self-test that the agent before passed was repeated"
    );
    let places = places(&calls, |line| CHANGES.iter().any(|change| line.contains(change)));
    ensure!(places.len() > 50, "only {} of {} calls change something", places.len(), calls.lines().count());
    let mut state = 1;
    for place in faults.chosen(&places) {
        state = 1 - state;
        faults.under_traffic(|faults| {
            faults.publish(state)?;
            let deadly = kill_at("bpf", place);
            faults.stage.agent.start_again_by(&[&STRACE[..], &watch, &["-e", &deadly, "-o", "/dev/null"]].concat())?;
            if faults.is_killed(state)? {
                faults.check_references().with_context(|| format!("killed at its call {place} of bpf(2)"))?;
                faults.stage.agent.start_again()?;
            }
            faults.until_in_state(state).with_context(|| format!("killed at its call {place} of bpf(2)"))?;
            faults.stop()
        })?;
    }
    Ok(())
}

/// A stage whose agent dies, and connections that must not notice.
struct Faults {
    stage: Stage,
    held: Vec<Held>,
    told: Vec<Told>,
    random: Random,
    /// What an agent that nobody killed makes of each state.
    seen: BTreeMap<usize, Value>,
    files: usize,
}

impl Faults {
    /// In the first state, which was reached from the other one: who has left a Service lingers in it.
    fn up() -> Result<Faults> {
        let random = Random::new(seed());
        let mut stage = Stage::with(LabSpec { pod_count: 4, ..LabSpec::default() }, &["--keep-dataplane"])?;
        for pod in stage.lab.pods() {
            stage.lab.serve_udp(pod, TARGET_PORT)?;
        }
        let dns = service(&stage.lab, "dns", 0, &[0, 1, 2, 3]).replace("protocol: TCP", "protocol: UDP");
        stage.manifests.write("dns.yaml", &dns)?;
        stage.until(|maps| maps["services"].as_array().is_some_and(|services| services.len() == 2));
        let (held, told, seen) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut faults = Faults { stage, held, told, random, seen, files: 0 };
        for state in [1, 0, 1, 0] {
            faults.publish(state)?;
            let maps = faults.stage.until(|maps| is_reached(maps, state));
            faults.seen.insert(state, essence(&maps));
        }
        faults.held = (0..8).map(|_| faults.stage.hold(0)).collect::<Result<_>>()?;
        faults.told = (0..8).map(|_| Told::new(&faults.stage)).collect::<Result<_>>()?;
        faults.stage.agent.stop()?;
        faults.stage.agent.start_again_by(&LOG)?;
        faults.until_in_state(0)?;
        Ok(faults)
    }

    fn publish(&self, state: usize) -> Result<()> {
        let Stage { lab, manifests, .. } = &self.stage;
        let (pods, has_other) = STATES[state];
        let other = if has_other { service(lab, "other", 1, &[3]) } else { String::new() };
        // One file: the agent reads both Services in one round.
        manifests.write("web.yaml", &format!("{}---\n{other}", service(lab, "web", 0, pods)))
    }

    /// Waits until a running agent has done all that is asked for, and the maps are as one leaves them that was never killed.
    fn until_in_state(&mut self, state: usize) -> Result<()> {
        let expected = &self.seen[&state];
        let found = wait_for(LONG, || self.stage.agent.inspect().ok().filter(|maps| is_done(maps, expected)));
        let now = || self.stage.agent.inspect().map(|maps| essence(&maps)).unwrap_or_default();
        found.map(drop).with_context(|| format!("{:#}\nis not\n{expected:#}\n{}", now(), self.stage.agent.log()))
    }

    /// Whether the agent died before it had done all.
    fn is_killed(&mut self, state: usize) -> Result<bool> {
        let expected = &self.seen[&state];
        let agent = &mut self.stage.agent;
        let ended = wait_for(LONG, || match agent.has_ended() {
            true => Some(true),
            false => agent.inspect().ok().filter(|maps| is_done(maps, expected)).map(|_| false),
        });
        let is_killed = ended.context("it neither died nor did what is asked for")?;
        if is_killed {
            self.stage.agent.wait()?;
        }
        println!("killed: {is_killed}");
        Ok(is_killed)
    }

    /// Whether it had done all, and came to its place before strace let it go.
    fn is_killed_late(&mut self) -> Result<bool> {
        let agent = &mut self.stage.agent;
        let is_killed = wait_for(EXIT, || agent.has_ended().then_some(())).is_some();
        if is_killed {
            agent.wait()?;
        }
        Ok(is_killed)
    }

    /// Stops an agent that strace may have started: what strace is told, it does not pass on.
    fn stop(&mut self) -> Result<()> {
        self.end_by(Signal::SIGTERM)
    }

    /// Kills it in the same way.
    fn kill(&mut self) -> Result<()> {
        self.end_by(Signal::SIGKILL)
    }

    fn end_by(&mut self, signal: Signal) -> Result<()> {
        let maps = self.stage.agent.inspect()?;
        let pid = maps["agent"]["pid"].as_u64().context("no agent has reported")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal).context("ending the agent")?;
        self.stage.agent.wait().map(drop)
    }

    /// Some of the places, or all.
    fn chosen<T: Copy + Debug>(&mut self, places: &[T]) -> Vec<T> {
        if env::var("XLB_FAULTS").is_ok_and(|which| which == "all") {
            return places.to_vec();
        }
        let chosen: Vec<T> = (0..SAMPLE).map(|_| self.random.pick(places)).collect();
        println!("{chosen:?} of {} places up to {:?}", places.len(), places.last());
        chosen
    }

    /// A file that the next strace may write.
    fn file(&mut self) -> PathBuf {
        self.files += 1;
        self.stage.agent.directory().join(format!("trace{}", self.files))
    }

    /// Lets strace look at these calls of the running agent.
    fn attach(&mut self, call: &str, more: &[&str]) -> Result<Strace> {
        let (output, log) = (self.file(), self.file());
        let pid = self.stage.agent.process().context("no agent runs")?.to_string();
        let (trace, to) = (format!("trace={call}"), output.display().to_string());
        let mut command = self.stage.lab.node().command(STRACE[0]);
        command.args(&STRACE[1..]).args(["-p", &pid, "-o", &to, "-e", &trace]).args(more);
        let program = Program::start(command, &log)?;
        let traced = wait_for(LONG, || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            (!status.contains("TracerPid:\t0\n")).then_some(())
        });
        traced.with_context(|| format!("strace does not trace: {}", program.log()))?;
        Ok(Strace { program, output })
    }

    /// Does something while clients speak and come, and then looks after those that were silent.
    fn under_traffic(&mut self, act: impl FnOnce(&mut Faults) -> Result<()>) -> Result<()> {
        let is_over = AtomicBool::new(false);
        let client = (self.stage.lab.client(0).clone(), self.stage.vip(0));
        let mut talking = [self.stage.hold(0)?, self.stage.hold(0)?];
        let telling = Told::new(&self.stage)?;
        thread::scope(|scope| {
            let talk = scope.spawn(|| -> Result<usize> {
                let mut words = 0;
                while !is_over.load(Ordering::SeqCst) {
                    talking.iter_mut().try_for_each(Held::answers)?;
                    telling.answers()?;
                    let mut new = LineClient::connect(&client.0, client.1)?;
                    let identity = new.identity()?;
                    ensure!(identity.peer == new.local_address()?, "the pod sees {}", identity.peer);
                    words += 1;
                }
                Ok(words)
            });
            let outcome = act(self);
            is_over.store(true, Ordering::SeqCst);
            let words = talk.join().expect("the client does not panic").context("a client while the agent died")?;
            ensure!(words > 0, "no client spoke");
            outcome
        })?;
        self.check_flows()?;
        let maps = self.stage.agent.inspect()?;
        ensure!(maps["counters"][Reason::StaleReference.label()].is_null(), "{:#}", maps["counters"]);
        Ok(())
    }

    /// Flows that were silent go on with their pods.
    fn check_flows(&mut self) -> Result<()> {
        self.held.iter_mut().try_for_each(Held::answers)?;
        self.told.iter().try_for_each(Told::answers)
    }

    /// Whatever a dead agent left, each reference leads to a live backend, and no packet has met another. In the midst of an
    /// upgrade the older version's maps are whole, or this one's.
    fn check_references(&self) -> Result<()> {
        let pins = PinDirectory::new(self.stage.lab.pin_directory());
        let whole = LiveMaps::open(&pins.of_version(ABI_VERSION - 1)).or_else(|_| LiveMaps::open(&pins))?;
        let stale = whole.counters()?.into_iter().find(|(reason, _)| *reason == Reason::StaleReference);
        ensure!(stale.is_none_or(|(_, packets)| packets == 0), "packets met a dangling reference: {stale:?}");
        let observed = whole.observed()?;
        for service in observed.services.values() {
            for word in observed.words(service).unwrap_or_default() {
                for owner in word.current().into_iter().chain(word.previous()) {
                    let member = observed.members.get(&(service.members_base + u32::from(owner)));
                    let member = member.with_context(|| format!("{} has no member {owner}", service.name))?;
                    let backend = observed.backends.get(&member.id()).filter(|backend| backend.is_in_use());
                    let is_live = backend.is_some_and(|backend| backend.generation == member.generation);
                    ensure!(is_live, "a slot of {} names backend {} that is gone", service.name, member.id());
                }
            }
        }
        Ok(())
    }
}

/// A UDP flow that was there before something happened.
struct Told {
    socket: UdpClient,
    server: String,
}

impl Told {
    fn new(stage: &Stage) -> Result<Told> {
        let socket = UdpClient::connect(stage.lab.client(0), stage.vip(0))?;
        let server = socket.ask("", ANSWER_TIMEOUT)?;
        Ok(Told { socket, server })
    }

    /// The same pod answers as before.
    fn answers(&self) -> Result<()> {
        let server = self.socket.ask("", ANSWER_TIMEOUT);
        let server = server.with_context(|| format!("a datagram to {} or its answer is lost", self.server))?;
        ensure!(server == self.server, "{server} answers datagrams of the flow of {}", self.server);
        Ok(())
    }
}

/// strace that looks at an agent.
struct Strace {
    program: Program,
    output: PathBuf,
}

impl Strace {
    /// What it saw.
    fn end(self) -> Result<String> {
        drop(self.program);
        fs::read_to_string(&self.output).context("reading what strace wrote")
    }
}

fn kill_at(call: &str, place: usize) -> String {
    format!("inject={call}:signal=SIGKILL:when={place}")
}

/// Which of the calls that strace saw, counted from 1, are of a kind.
fn places(calls: &str, is_of_kind: impl Fn(&str) -> bool) -> Vec<usize> {
    let calls = calls.lines().filter(|line| !line.contains("resumed>"));
    (1..).zip(calls).filter(|(_, line)| is_of_kind(line)).map(|(place, _)| place).collect()
}

fn is_done(maps: &Value, expected: &Value) -> bool {
    maps["agent"]["is_running"] == true && essence(maps) == *expected
}

/// Whether the maps hold this state, as far as who takes new connections.
fn is_reached(maps: &Value, state: usize) -> bool {
    let (pods, has_other) = STATES[state];
    let takers = crate::stage::takers(maps, "web").len();
    takers == pods.len() && crate::stage::find(maps, "other").is_some() == has_other
}

/// What the maps say, without what depends on their history: ids, generations, which slots are whose, and how many an owner has
/// beyond its share.
fn essence(maps: &Value) -> Value {
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let services: Vec<Value> = list(maps, "services")
        .iter()
        .map(|service| {
            let count = list(service, "backends").iter().filter(|backend| backend["slots"] != 0).count() as u64;
            let fair = service["slots"].as_u64().unwrap_or(0) / count.max(1);
            let shares = list(service, "backends").into_iter().map(|backend| {
                let is_fair = backend["slots"].as_u64().is_some_and(|slots| slots == fair || slots == fair + 1);
                (backend["address"].to_string(), json!([backend["slots"] != 0, is_fair]))
            });
            let shares: BTreeMap<String, Value> = shares.collect();
            json!({ "name": service["name"], "frontends": service["frontends"], "when_empty": service["when_empty"],
                "slots": service["slots"], "shares": shares })
        })
        .collect();
    let backends: BTreeMap<String, Value> = list(maps, "backends")
        .into_iter()
        .map(|backend| (backend["address"].to_string(), json!([backend["delivery"], backend["interface"]])))
        .collect();
    let services: BTreeMap<String, Value> =
        services.into_iter().map(|service| (service["name"].to_string(), service)).collect();
    json!({ "services": services, "backends": backends, "vips": maps["vips"], "refusals": maps["refusals"] })
}
