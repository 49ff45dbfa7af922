//! What is done to the pods and to the agent: one pod after the other is replaced, and the agent is killed at any time.

use std::hash::{BuildHasher as _, RandomState};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};

use crate::kernel::random::Random;
use crate::lab::wait_for;
use crate::load::kernel::Counters;
use crate::load::stage::Stage;

/// Between two pods that begin to go.
const ROLL_INTERVAL: Duration = Duration::from_secs(5);
/// An agent lives for any part of this; every second one longer, if it was not in sync by then: without those nothing would
/// ever be done.
const AGENT_LIFE: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A pod whose grace period is over has closed its connections within this time: their clients have to be heard.
const CLOSING: Duration = Duration::from_secs(60);

/// What was done.
#[derive(Default)]
pub struct Done {
    /// Agents that were killed.
    pub kills: usize,
    /// Pods that were replaced, and are gone.
    pub replaced: usize,
    /// What the kernels of pods counted that are gone.
    pub gone: Counters,
    /// Pods that still have connections.
    leaving: Vec<Leaving>,
    ready: Vec<usize>,
    /// What was done when, for whoever looks for a cause.
    pub diary: Vec<(SystemTime, String)>,
}

/// A pod on its way out.
struct Leaving {
    pod: usize,
    until: Instant,
    is_closing: bool,
}

/// What is going to happen, and what has.
pub struct Trouble {
    random: Random,
    grace: Duration,
    next_roll: Instant,
    next_kill: Instant,
    done: Done,
}

impl Trouble {
    /// Everything is still well.
    pub fn new(stage: &Stage, grace: Duration) -> Trouble {
        // When an agent dies hangs on the machine's load as well: a seed would repeat nothing.
        let random = Random::new(RandomState::new().hash_one(grace));
        let now = Instant::now();
        let done = Done { ready: stage.lab.pods().collect(), ..Done::default() };
        Trouble { random, grace, next_roll: now, next_kill: now + AGENT_LIFE, done }
    }

    /// Lets it last so long.
    pub fn last(mut self, stage: &mut Stage, time: Duration) -> Result<Done> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if Instant::now() >= self.next_kill && (self.done.kills % 2 == 1 || stage.is_in_sync()) {
                self.kill(stage)?;
            }
            if Instant::now() >= self.next_roll {
                self.done.roll(stage, self.grace)?;
                self.next_roll = Instant::now() + ROLL_INTERVAL;
            }
            self.done.let_go(stage)?;
            sleep(LOOK_INTERVAL);
        }
        Ok(self.done)
    }

    /// Whatever the agent is doing, it dies, and another begins.
    fn kill(&mut self, stage: &mut Stage) -> Result<()> {
        stage.agent.kill()?;
        stage.agent.start_again()?;
        self.done.kills += 1;
        self.done.note("an agent killed, another started".to_owned());
        self.next_kill = Instant::now() + AGENT_LIFE.mul_f64(self.random.below(1_000) as f64 / 1_000.0);
        Ok(())
    }
}

impl Done {
    /// A new pod takes the place of the oldest, which terminates.
    fn roll(&mut self, stage: &mut Stage, grace: Duration) -> Result<()> {
        let added = stage.add_pod()?;
        let pod = self.ready.remove(0);
        self.ready.push(added);
        self.leaving.push(Leaving { pod, until: Instant::now() + grace, is_closing: false });
        self.note(format!("pod {added} ready, pod {pod} terminating"));
        self.publish(stage)
    }

    fn note(&mut self, what: String) {
        self.diary.push((SystemTime::now(), what));
    }

    fn publish(&self, stage: &Stage) -> Result<()> {
        let leaving: Vec<usize> = self.leaving.iter().map(|leaving| leaving.pod).collect();
        stage.publish(&self.ready, &leaving)
    }

    /// Who had its grace period closes its connections, and who has none left is removed. An agent that is killed may be later
    /// than any grace period: what new connections find at pods that still get them is not asked about.
    fn let_go(&mut self, stage: &mut Stage) -> Result<()> {
        let now = Instant::now();
        for leaving in self.leaving.iter_mut().filter(|leaving| !leaving.is_closing && leaving.until <= now) {
            if stage.takes(leaving.pod)? {
                continue;
            }
            self.diary.push((SystemTime::now(), format!("pod {} closes its connections", leaving.pod)));
            stage.pods.get_mut(&leaving.pod).context("a pod without a server")?.close_connections()?;
            leaving.is_closing = true;
        }
        let is_over = |leaving: &Leaving| leaving.is_closing && stage.pods[&leaving.pod].open_connections() == 0;
        let Some(at) = self.leaving.iter().position(is_over) else { return Ok(()) };
        let pod = self.leaving.remove(at).pod;
        self.note(format!("pod {pod} removed"));
        self.publish(stage)?;
        self.gone = std::mem::take(&mut self.gone).plus(Counters::of(stage.lab.pod(pod))?);
        self.replaced += 1;
        stage.remove_pod(pod)
    }

    /// After the trouble: the last agent lives, the pods that were leaving are gone, and exactly the others are served.
    pub fn settle(&mut self, stage: &mut Stage) -> Result<()> {
        let all_gone = wait_for(CLOSING, || match self.let_go(stage) {
            Ok(()) => self.leaving.is_empty().then_some(Ok(())),
            Err(error) => Some(Err(error)),
        });
        let left: Vec<(usize, usize)> =
            self.leaving.iter().map(|leaving| (leaving.pod, stage.pods[&leaving.pod].open_connections())).collect();
        ensure!(all_gone.transpose()?.is_some(), "pods that have connections after {CLOSING:?}: {left:?}");
        stage.wait_for_takers(&self.ready);
        Ok(())
    }
}
