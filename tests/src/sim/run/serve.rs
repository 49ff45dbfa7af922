//! A connection, packet by packet: what the client sends, where it arrives, what the pod answers, where that arrives.

use super::{Event, Run, Step};
use crate::sim::client::{Kind, Stage};
use crate::sim::clock::{TICKS_PER_MS, TICKS_PER_S};
use crate::sim::design::Design;
use crate::sim::packet::{Held, Pod, Segment, State};

/// Of so many first requests one overtakes the handshake's last packet.
const OVERTAKES_ONE_IN: usize = 200;
/// Of so many connections one ends without a word, and one is followed by another of the same tuple.
const VANISHES_ONE_IN: usize = 20;
const REUSED_ONE_IN: usize = 50;
/// SYNs of a client: the last one is 7 s after the first.
const SYNS_MAX: u8 = 4;
/// How long a request without an acknowledgement stays with the pod, and its cookie counts.
const HALF_OPEN_S: u64 = 15;
const TIME_WAIT_S: u64 = 60;

impl<D: Design> Run<D> {
    pub(super) fn begin(&mut self, at: u32) {
        self.tally.flows += 1;
        if self.connections[at as usize].is_tcp() {
            self.ask(at);
        } else {
            self.connections[at as usize].stage = Stage::Open;
            self.travel(at, Step::Request, 0);
        }
    }

    pub(super) fn serve(&mut self, at: u32, step: Step) {
        match step {
            Step::Begin => {
                self.connections[at as usize].begin(&mut self.random);
                self.begin(at);
            }
            Step::Syn => self.syn(at),
            Step::AskAgain => self.ask(at),
            Step::SynAck(place) => self.syn_ack(at, place),
            Step::Ack => drop(self.acknowledge(at)),
            Step::AckAndRequest => {
                if self.acknowledge(at) {
                    self.request(at);
                }
            }
            Step::Request => self.request(at),
            Step::Speak => self.speak(at),
            Step::Answer => self.answer(at),
            Step::AnswerSeen => {
                if self.reaches_own(at, Segment::Ack) {
                    self.later_speaks(at);
                }
            }
            Step::Fin(is_after_pods) => self.fin(at, is_after_pods),
            Step::OldReset => self.old_reset(at),
            Step::Refused => {
                self.tally.unanswered += 1;
                self.finish(at);
            }
        }
    }

    /// The client sends a SYN, until it gives up.
    fn ask(&mut self, at: u32) {
        let connection = &mut self.connections[at as usize];
        if connection.stage != Stage::Asking {
            return;
        }
        if connection.asked == SYNS_MAX {
            self.tally.unanswered += 1;
            self.finish(at);
            return;
        }
        let pause = TICKS_PER_S << connection.asked;
        connection.asked += 1;
        if !self.random.one_in(self.scenario.lost_one_in) {
            self.travel(at, Step::Syn, 0);
        }
        self.after(at, pause, Step::AskAgain);
    }

    /// At the node, and then with a pod.
    fn syn(&mut self, at: u32) {
        let Some(pod) = self.forward(at, Segment::Syn) else { return };
        if !self.cluster.pod(pod).lives() {
            return;
        }
        let now = self.clock.now();
        match self.connections[at as usize].holders.state(pod, now as u32) {
            State::Open => {
                // A challenge, which a client without that connection resets (RFC 5961 chapter 4).
                if self.reply(at, pod, Segment::Ack).is_some() {
                    let both_ways = 2 * u64::from(self.connections[at as usize].one_way);
                    self.after(at, both_ways, Step::OldReset);
                }
                return;
            }
            State::HalfOpen => {}
            State::Nothing | State::TimeWait | State::Cookie => {
                if !self.cluster.pod(pod).listens {
                    if self.reply(at, pod, Segment::Reset).is_some() {
                        self.travel(at, Step::Refused, 0);
                    }
                    return;
                }
                let state = if self.cluster.pod(pod).sends_cookies() { State::Cookie } else { State::HalfOpen };
                self.hold(at, pod, state, HALF_OPEN_S);
            }
        }
        let place = self.connections[at as usize].holders.of(pod, now as u32);
        if let Some(place) = place
            && self.reply(at, pod, Segment::SynAck) == Some(self.connections[at as usize].vip)
        {
            self.travel(at, Step::SynAck(place as u8), TICKS_PER_S);
        }
    }

    /// At the client, which takes the first one.
    fn syn_ack(&mut self, at: u32, place: u8) {
        let connection = &mut self.connections[at as usize];
        if connection.stage != Stage::Asking {
            return;
        }
        connection.stage = Stage::Open;
        connection.own = connection.holders.0[usize::from(place)].pod;
        connection.step = connection.step.wrapping_add(1);
        let kind = connection.kind;
        match kind {
            Kind::Http if self.random.one_in(OVERTAKES_ONE_IN) => {
                self.travel(at, Step::Request, 0);
            }
            Kind::Http => self.travel(at, Step::AckAndRequest, 0),
            _ => self.travel(at, Step::Ack, 0),
        }
    }

    /// The handshake's end, at the node. Whether the pod has the connection.
    fn acknowledge(&mut self, at: u32) -> bool {
        if !self.reaches_own(at, Segment::Ack) || !self.accept(at) {
            return false;
        }
        let connection = self.connections[at as usize];
        let pause = connection.pause(&mut self.random);
        match connection.kind {
            Kind::ServerFirst => self.after(at, TICKS_PER_MS, Step::Speak),
            Kind::Push => self.after(at, pause, Step::Speak),
            Kind::Idle | Kind::Silent => self.travel_after(at, pause, Step::Request),
            Kind::Http | Kind::Datagrams | Kind::OneWay => {}
        }
        true
    }

    /// The pod's kernel has the connection now, and tells of it. Not if it has forgotten the request: then it resets.
    fn accept(&mut self, at: u32) -> bool {
        let connection = self.connections[at as usize];
        if connection.is_accepted {
            return true;
        }
        if connection.holders.of(connection.own, self.clock.now() as u32).is_none() {
            self.tally.unanswered += 1;
            self.finish(at);
            return false;
        }
        self.hold(at, connection.own, State::Open, u64::from(u32::MAX) / TICKS_PER_S - END_MARGIN_S);
        self.connections[at as usize].is_accepted = true;
        self.tally.accepted += 1;
        let pod = self.cluster.pod(connection.own);
        if !pod.is_hidden {
            self.design.accepted(connection.client, pod.socket());
        }
        true
    }

    /// What the client says, at the node; and the pod's answer.
    fn request(&mut self, at: u32) {
        let connection = self.connections[at as usize];
        if connection.is_tcp() {
            if self.reaches_own(at, Segment::Data) && self.accept(at) {
                self.speak(at);
            }
            return;
        }
        if !self.reaches_own(at, Segment::Datagram) {
            return;
        }
        if connection.kind == Kind::OneWay {
            self.note_accepted(at);
            self.next_exchange(at, TICKS_PER_S);
        } else {
            self.speak(at);
        }
    }

    /// The pod says something, for the first time or again.
    fn speak(&mut self, at: u32) {
        let own = self.connections[at as usize].own;
        if !self.cluster.pod(own).lives() {
            self.end_with_pod(at);
            return;
        }
        let is_tcp = self.connections[at as usize].is_tcp();
        if !self.answers(at, if is_tcp { Segment::Data } else { Segment::Datagram }) {
            return;
        }
        self.note_accepted(at);
        self.travel(at, Step::Answer, 2 * TICKS_PER_S / 10);
    }

    fn note_accepted(&mut self, at: u32) {
        let connection = &mut self.connections[at as usize];
        if !connection.is_accepted {
            connection.is_accepted = true;
            self.tally.accepted += 1;
        }
    }

    /// At the client: the exchange is done.
    fn answer(&mut self, at: u32) {
        let connection = &mut self.connections[at as usize];
        connection.lost = 0;
        if connection.kind == Kind::Push && connection.exchanges > 1 {
            connection.exchanges -= 1;
            self.travel(at, Step::AnswerSeen, 0);
            return;
        }
        let pause = self.connections[at as usize].pause(&mut self.random);
        self.next_exchange(at, pause);
    }

    fn later_speaks(&mut self, at: u32) {
        let pause = self.connections[at as usize].pause(&mut self.random);
        self.after(at, pause, Step::Speak);
    }

    /// Another exchange after a pause, or the end.
    fn next_exchange(&mut self, at: u32, pause: u64) {
        let connection = &mut self.connections[at as usize];
        connection.exchanges = connection.exchanges.saturating_sub(1);
        if connection.exchanges > 0 {
            self.travel_after(at, pause, Step::Request);
        } else if !connection.is_tcp() || self.random.one_in(VANISHES_ONE_IN) {
            self.finish(at);
        } else {
            self.connections[at as usize].stage = Stage::Closing;
            let is_after_pods = self.random.one_in(2);
            self.travel(at, Step::Fin(is_after_pods), 0);
        }
    }

    /// The client's FIN, at the node. If the pod's came before, its socket waits; else the pod says its own last word.
    fn fin(&mut self, at: u32, is_after_pods: bool) {
        if !self.reaches_own(at, Segment::Fin) {
            return;
        }
        let last = if is_after_pods { Segment::Ack } else { Segment::Fin };
        if !self.answers_once(at, last) {
            return;
        }
        let connection = self.connections[at as usize];
        let state = if is_after_pods { State::TimeWait } else { State::Nothing };
        self.hold(at, connection.own, state, TIME_WAIT_S);
        self.tell_closed(at, connection.own);
        self.finish(at);
    }

    /// A reset of what a client without a word left behind, at the node.
    fn old_reset(&mut self, at: u32) {
        if self.connections[at as usize].stage != Stage::Asking {
            return;
        }
        let Some(pod) = self.forward(at, Segment::Reset) else { return };
        if self.connections[at as usize].holders.state(pod, self.clock.now() as u32) == State::Open {
            self.hold(at, pod, State::Nothing, 0);
            self.tell_closed(at, pod);
        }
    }

    fn tell_closed(&mut self, at: u32, pod: Pod) {
        let pod = self.cluster.pod(pod);
        if !pod.is_hidden {
            self.design.closed(self.connections[at as usize].client, pod.socket());
        }
    }

    fn hold(&mut self, at: u32, pod: Pod, state: State, for_s: u64) {
        let (now, of) = (self.clock.now(), self.cluster.pod(pod));
        let until = (now + for_s * TICKS_PER_S) as u32;
        let held = Held { pod, netns_id: of.netns_id, address: of.address, state, until };
        self.connections[at as usize].holders.note(held, now as u32);
    }

    /// The connection is over; its tuple may come again.
    pub(super) fn finish(&mut self, at: u32) {
        self.note_late(at);
        let connection = &mut self.connections[at as usize];
        connection.stage = Stage::Idle;
        connection.step = connection.step.wrapping_add(1);
        if self.random.one_in(REUSED_ONE_IN) && self.tally.flows < self.flows {
            let pause = TICKS_PER_S / 2 + self.random.below(90 * TICKS_PER_S as usize) as u64;
            self.after(at, pause, Step::Begin);
        } else {
            self.free.push(at);
        }
    }

    /// A packet on its way between client and node. One that is lost is sent again `again` later at the soonest.
    pub(super) fn travel(&mut self, at: u32, step: Step, again: u64) {
        let one_way = u64::from(self.connections[at as usize].one_way);
        let lost =
            if self.random.one_in(self.scenario.lost_one_in) { again.max(TICKS_PER_S / 5).max(4 * one_way) } else { 0 };
        let jitter = self.random.below(1 + one_way as usize / 10) as u64;
        self.after(at, one_way + jitter + lost, step);
    }

    fn travel_after(&mut self, at: u32, pause: u64, step: Step) {
        let one_way = u64::from(self.connections[at as usize].one_way);
        self.after(at, pause + one_way, step);
    }

    pub(super) fn after(&mut self, at: u32, ticks: u64, step: Step) {
        let event = Event::Of(at, self.connections[at as usize].step, step);
        self.clock.after(ticks, event);
    }
}

/// A run is much shorter than the ticks that a number has.
const END_MARGIN_S: u64 = 10_000;
