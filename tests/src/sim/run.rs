//! One run: a design, a scenario, a seed. The same three give the same tally on every machine.

use super::client::Connection;
use super::clock::{Clock, TICKS_PER_MS, TICKS_PER_S};
use super::cluster::{Cluster, Phase, SERVICES};
use super::design::Design;
use super::packet::{Holders, Packet, Pod, Segment};
use super::scenario::Scenario;
use super::tally::Tally;
use crate::kernel::random::Random;

#[path = "run/serve.rs"]
mod serve;
#[path = "run/judge.rs"]
mod judge;
#[path = "run/change.rs"]
mod change;

/// Clients come during so many seconds.
const ARRIVALS_S: u64 = 180;
/// Then those that are left have so much time until the end.
const END_S: u64 = 240;
/// When floods are on.
const FLOOD_S: std::ops::Range<u64> = 30..90;
/// Map operations that the agent does in a tick of 100 us.
const OPERATIONS_PER_TICK: usize = 20;

/// What happens to a connection.
#[derive(Clone, Copy)]
enum Step {
    /// A client begins anew with an old tuple.
    Begin,
    /// The client's SYN is at the node.
    Syn,
    /// The client waited long enough for an answer.
    AskAgain,
    /// The SYN-ACK of a pod, by its place among the holders, is at the client.
    SynAck(u8),
    /// The handshake's last packet is at the node.
    Ack,
    /// The same with the first request right behind it.
    AckAndRequest,
    /// A request, or a datagram, is at the node.
    Request,
    /// The pod speaks.
    Speak,
    /// A pod's data is at the client.
    Answer,
    /// The client's acknowledgement of what the pod said of itself is at the node.
    AnswerSeen,
    /// The client's FIN is at the node; whether the pod's came before.
    Fin(bool),
    /// A reset for a connection of before is at the node.
    OldReset,
    /// The pod's reset is at the client.
    Refused,
}

#[derive(Clone, Copy)]
enum Event {
    /// Of a connection; only if it is still at that step.
    Of(u32, u16, Step),
    Arrive,
    Flood,
    Second,
    Change,
    Set(Pod, Phase),
    Seen(Pod, Phase),
    Round,
    Work,
    Restart,
}

/// All that a run has.
pub struct Run<D> {
    design: D,
    scenario: Scenario,
    random: Random,
    clock: Clock<Event>,
    cluster: Cluster,
    connections: Vec<Connection>,
    free: Vec<u32>,
    flows: u64,
    tally: Tally,
    explains: usize,
    /// Rounds of the agent so far, and changes of the cluster.
    rounds: usize,
    changes: usize,
    is_agent_down: bool,
    must_look_again: bool,
    crash_after: Option<usize>,
}

/// Runs it, with so many flows. `explains` violations are told in sentences.
pub fn run<D: Design>(design: D, scenario: Scenario, seed: u64, flows: u64, explains: usize) -> Tally {
    let mut run = Run {
        design,
        scenario,
        random: Random::new(seed),
        clock: Clock::new(),
        cluster: Cluster::new(scenario.reuses_addresses),
        connections: Vec::new(),
        free: Vec::new(),
        flows,
        tally: Tally::default(),
        explains,
        rounds: 0,
        changes: 0,
        is_agent_down: false,
        must_look_again: false,
        crash_after: None,
    };
    run.prepare();
    while let Some(event) = run.clock.next(END_S * TICKS_PER_S) {
        run.design.at(run.clock.now());
        run.handle(event);
    }
    run.tally
}

impl<D: Design> Run<D> {
    /// Pods that the agent knows, and what is to come.
    fn prepare(&mut self) {
        for service in 0..SERVICES.len() {
            for _ in 0..self.scenario.pods {
                let pod = self.cluster.add(service, self.scenario.are_hidden);
                self.cluster.pods[pod as usize].known = Some(Phase::Ready);
            }
        }
        self.clock.after(0, Event::Round);
        self.clock.after(TICKS_PER_S, Event::Arrive);
        self.clock.after(TICKS_PER_S, Event::Second);
        if self.scenario.is_flooded() {
            self.clock.after(FLOOD_S.start * TICKS_PER_S, Event::Flood);
        }
        self.plan_change(2 * TICKS_PER_S);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Of(at, step, what) => {
                if self.connections[at as usize].step == step {
                    self.serve(at, what);
                }
            }
            Event::Arrive => self.arrive(),
            Event::Flood => self.flood(),
            Event::Second => {
                let now_s = self.clock.now() / TICKS_PER_S;
                self.cluster.pods.iter_mut().for_each(|pod| pod.expire(now_s));
                self.clock.after(TICKS_PER_S, Event::Second);
            }
            Event::Change => self.change(),
            Event::Set(pod, phase) => self.set(pod, phase),
            Event::Seen(pod, phase) => {
                self.cluster.pods[pod as usize].tell(phase);
                self.clock.after(0, Event::Round);
            }
            Event::Round => self.round(),
            Event::Work => self.work(),
            Event::Restart => {
                self.is_agent_down = false;
                self.design.restart();
                self.clock.after(0, Event::Round);
            }
        }
    }

    /// A client comes, and the time of the next one is drawn.
    fn arrive(&mut self) {
        if self.tally.flows >= self.flows {
            return;
        }
        let connection = Connection::new(&mut self.random);
        let at = match self.free.pop() {
            Some(at) => {
                let step = self.connections[at as usize].step.wrapping_add(1);
                self.connections[at as usize] = Connection { step, ..connection };
                at
            }
            None => {
                self.connections.push(connection);
                self.connections.len() as u32 - 1
            }
        };
        self.begin(at);
        let mean = ARRIVALS_S as f64 * TICKS_PER_S as f64 / self.flows as f64;
        let uniform = (self.random.bits() >> 11) as f64 / (1u64 << 53) as f64;
        // The clock's ticks are longer than the pauses of busy times: what is left over is drawn.
        let pause = -uniform.max(1e-12).ln() * mean;
        let rest = (self.random.bits() >> 11) as f64 / (1u64 << 53) as f64;
        self.clock.after((pause + rest) as u64, Event::Arrive);
    }

    /// A millisecond of packets of nobody.
    fn flood(&mut self) {
        let now = self.clock.now();
        if now >= FLOOD_S.end * TICKS_PER_S {
            return;
        }
        for _ in 0..self.scenario.spoofed_syns_per_s / 1000 {
            self.spoof(Segment::Syn);
        }
        for _ in 0..self.scenario.spoofed_acks_per_s / 1000 {
            self.spoof(Segment::Ack);
        }
        for _ in 0..self.scenario.spoofed_datagrams_per_s / 1000 {
            self.spoof(Segment::Datagram);
        }
        self.clock.after(TICKS_PER_MS, Event::Flood);
    }

    /// A packet whose source never sent it, and the pod's answer to it.
    fn spoof(&mut self, segment: Segment) {
        let bits = self.random.bits();
        let source = ((0x3000_0000 | (bits as u32 & 0x0fff_ffff)).to_be_bytes(), (bits >> 32) as u16);
        let service = &SERVICES[if segment == Segment::Datagram { 2 } else { usize::from(bits >> 63 == 1) }];
        let destination = service.frontend((bits >> 62) as usize & 1);
        let packet = Packet::of_client((source.0, source.1.to_be_bytes()), destination, segment, Pod::MAX);
        self.tally.packets += 1;
        let Some(pod) = self.design.forward(&packet, &Holders::NONE) else { return };
        let now_s = self.clock.now() / TICKS_PER_S;
        let state = &mut self.cluster.pods[pod as usize];
        if !state.lives() {
            return;
        }
        let answer = match segment {
            Segment::Datagram => Segment::Datagram,
            Segment::Syn if state.listens => {
                state.take_spoofed(now_s);
                Segment::SynAck
            }
            _ => Segment::Reset,
        };
        let reply = Packet::of_pod((pod, state.socket()), packet.source, answer);
        self.tally.packets += 1;
        self.design.back(&reply, packet.destination, &Holders::NONE);
    }
}
