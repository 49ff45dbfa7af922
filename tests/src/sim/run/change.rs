//! Pods come and go, the API server tells the agent, and the agent works.

use super::{Event, OPERATIONS_PER_TICK, Run};
use crate::sim::clock::{TICKS_PER_MS, TICKS_PER_S};
use crate::sim::cluster::{Phase, PodState, SERVICES};
use crate::sim::design::Design;
use crate::sim::packet::Pod;
use crate::sim::scenario::Change;

/// How long pods drain where the scenario does not say, at least and at most.
const DRAIN_S: [u64; 2] = [30, 120];

impl<D: Design> Run<D> {
    /// The next change comes after `first` ticks, then as the scenario says.
    pub(super) fn plan_change(&mut self, first: u64) {
        if self.scenario.change != Change::Nothing {
            self.clock.after(first, Event::Change);
        }
    }

    pub(super) fn change(&mut self) {
        self.changes += 1;
        for service in 0..SERVICES.len() {
            match self.scenario.change {
                Change::Nothing => {}
                Change::Replace { drain_s, .. } => self.replace(service, drain_s),
                Change::Swing { .. } if self.changes % 2 == 1 => self.scale(service, self.scenario.pods * 2),
                Change::Swing { .. } => self.scale(service, self.scenario.pods),
                Change::Flap { .. } => self.flap(service),
                Change::Resize { pods, .. } => self.scale(service, pods[self.changes % pods.len()]),
            }
        }
        match self.scenario.change {
            Change::Nothing => {}
            Change::Replace { every, .. }
            | Change::Swing { every }
            | Change::Flap { every }
            | Change::Resize { every, .. } => self.clock.after(every, Event::Change),
        }
    }

    /// One more, and as the agent hears of it, one less.
    fn replace(&mut self, service: usize, drain_s: [u64; 2]) {
        self.start(service);
        let oldest = self.cluster.ready(service).next();
        if let Some(oldest) = oldest {
            self.end(oldest, drain_s, TICKS_PER_S);
        }
    }

    fn scale(&mut self, service: usize, wanted: usize) {
        let ready: Vec<Pod> = self.cluster.ready(service).collect();
        for _ in ready.len()..wanted {
            self.start(service);
        }
        for pod in ready.iter().skip(wanted) {
            self.end(*pod, DRAIN_S, 0);
        }
    }

    fn flap(&mut self, service: usize) {
        let ready: Vec<Pod> = self.cluster.ready(service).collect();
        // A deployment is never as a whole unready here.
        if ready.len() < 3 {
            return;
        }
        let pod = ready[self.random.below(ready.len())];
        self.set(pod, Phase::Unready);
        let pause = TICKS_PER_S * (5 + self.random.below(16) as u64);
        self.clock.after(pause, Event::Set(pod, Phase::Ready));
    }

    fn start(&mut self, service: usize) {
        let pod = self.cluster.add(service, self.scenario.are_hidden);
        self.tell(pod, Phase::Ready);
    }

    fn end(&mut self, pod: Pod, [least, most]: [u64; 2], first: u64) {
        self.cluster.pods[pod as usize].is_ending = true;
        let drain = TICKS_PER_S * (least + self.random.below((most - least) as usize + 1) as u64);
        self.clock.after(first, Event::Set(pod, Phase::Terminating));
        self.clock.after(first + drain, Event::Set(pod, Phase::Gone));
    }

    /// A pod changes, and its node and the API server tell of it.
    pub(super) fn set(&mut self, pod: Pod, phase: Phase) {
        let state = self.cluster.pod(pod);
        // One that is to end is not ready again.
        if !state.lives() || (state.phase == Phase::Terminating && phase == Phase::Ready) {
            return;
        }
        self.cluster.set(pod, phase);
        match phase {
            // Every second server stops to listen when it is told to end.
            Phase::Terminating => self.cluster.pods[pod as usize].listens = self.random.one_in(2),
            Phase::Gone => self.clock.after(TICKS_PER_MS, Event::Round),
            Phase::Ready | Phase::Unready => {}
        }
        self.tell(pod, phase);
    }

    /// Watches take 200 ms, and sometimes seconds. News of one pod comes in order.
    fn tell(&mut self, pod: Pod, phase: Phase) {
        let slow = if self.random.one_in(20) { 3 * TICKS_PER_S } else { 0 };
        let delay = TICKS_PER_MS * (20 + self.random.below(360) as u64) + slow;
        let told_at = &mut self.cluster.pods[pod as usize].told_at;
        *told_at = (self.clock.now() + delay).max(*told_at + 1);
        self.clock.after(*told_at - self.clock.now(), Event::Seen(pod, phase));
    }

    /// The agent plans, unless it is still at work.
    pub(super) fn round(&mut self) {
        if self.is_agent_down {
            return;
        }
        if self.design.left() > 0 {
            self.must_look_again = true;
            return;
        }
        self.must_look_again = false;
        self.cluster.pods.iter_mut().for_each(PodState::looked_at);
        let again = self.design.learn(&self.cluster);
        if let Some(ticks) = again {
            self.clock.after(ticks, Event::Round);
        }
        let left = self.design.left();
        if left == 0 {
            return;
        }
        self.rounds += 1;
        let every = self.scenario.crash_every;
        let dies = every > 0 && self.rounds.is_multiple_of(every);
        self.crash_after = dies.then(|| self.random.below(left + 1));
        self.clock.after(0, Event::Work);
    }

    /// Some operations; packets pass before the next ones.
    pub(super) fn work(&mut self) {
        if self.is_agent_down {
            return;
        }
        let some = OPERATIONS_PER_TICK.min(self.crash_after.unwrap_or(usize::MAX)).min(self.design.left());
        let is_more = self.design.work(some);
        self.tally.operations += some as u64;
        if let Some(left) = &mut self.crash_after {
            *left -= some;
            if *left == 0 {
                self.crash_after = None;
                self.is_agent_down = true;
                self.tally.crashes += 1;
                let pause = TICKS_PER_S * (1 + self.random.below(10) as u64);
                self.clock.after(pause, Event::Restart);
                return;
            }
        }
        if is_more {
            self.clock.after(1, Event::Work);
        } else if self.must_look_again {
            self.clock.after(0, Event::Round);
        }
    }
}
