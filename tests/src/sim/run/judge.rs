//! Whether a packet came where it belongs; if not, how the connection broke, and why.

use super::{Run, Step};
use crate::sim::client::{Kind, Stage};
use crate::sim::clock::TICKS_PER_S;
use crate::sim::cluster::PodState;
use crate::sim::design::{Cause, Design};
use crate::sim::packet::{Holders, Packet, Pod, Segment, Socket};
use crate::sim::tally::Violation;

/// Replies lost in a row after which the client gives up: half a minute.
const LOST_MAX: u8 = 7;

impl<D: Design> Run<D> {
    /// To which pod a packet of the client goes.
    pub(super) fn forward(&mut self, at: u32, segment: Segment) -> Option<Pod> {
        let connection = &self.connections[at as usize];
        let packet = Packet::of_client(connection.client, connection.vip, segment, connection.own);
        self.tally.packets += 1;
        self.design.forward(&packet, &self.holders(at))
    }

    /// From which VIP a pod's packet comes to the client.
    pub(super) fn reply(&mut self, at: u32, pod: Pod, segment: Segment) -> Option<Socket> {
        let connection = &self.connections[at as usize];
        let packet = Packet::of_pod((pod, self.cluster.pod(pod).socket()), connection.client, segment);
        self.tally.packets += 1;
        self.design.back(&packet, connection.vip, &self.holders(at))
    }

    /// What the pods' kernels have of a connection's tuple.
    fn holders(&self, at: u32) -> Holders {
        self.connections[at as usize].holders.of_living(|pod| self.cluster.pod(pod).lives())
    }

    /// Whether a packet of the client reaches the pod that has the connection. A UDP flow may have another pod when its own
    /// one no longer serves.
    pub(super) fn reaches_own(&mut self, at: u32, segment: Segment) -> bool {
        let got = self.forward(at, segment);
        let connection = &mut self.connections[at as usize];
        let own = connection.own;
        let is_udp = segment == Segment::Datagram;
        let has_left = |pod: &PodState| !pod.serves() || pod.departures != connection.departures;
        if is_udp && (!connection.is_accepted || has_left(self.cluster.pod(own))) {
            let taken = got.filter(|&pod| self.cluster.pod(pod).lives());
            connection.own = taken.unwrap_or(Pod::MAX);
            connection.departures = taken.map_or(0, |pod| self.cluster.pod(pod).departures);
            if taken.is_none() {
                self.tally.unanswered += 1;
                self.finish(at);
            }
            return taken.is_some();
        }
        if !self.cluster.pod(own).lives() {
            self.end_with_pod(at);
            return false;
        }
        if got == Some(own) {
            return true;
        }
        let packet = Packet::of_client(connection.client, connection.vip, segment, connection.own);
        let cause = self.design.cause(&packet, own, &self.cluster, &self.holders(at));
        self.violate(at, Violation::Moved, cause, segment, got);
        false
    }

    /// Whether what the pod says reaches the client. If not, it is said again, with a request of the client's before it
    /// where the client waits for an answer.
    pub(super) fn answers(&mut self, at: u32, segment: Segment) -> bool {
        if self.restored(at, segment) {
            return true;
        }
        let connection = &mut self.connections[at as usize];
        if connection.stage == Stage::Idle {
            return false;
        }
        connection.was_late = true;
        connection.lost += 1;
        let lost = connection.lost;
        if lost == LOST_MAX {
            self.violate(at, Violation::Hung, Cause::ReplyUnknown, segment, None);
            return false;
        }
        let is_asked = !matches!(connection.kind, Kind::Push | Kind::ServerFirst);
        let again = (TICKS_PER_S / 5) << lost;
        self.after(at, again, if is_asked { Step::Request } else { Step::Speak });
        false
    }

    /// The same for a last word, which nobody waits for.
    pub(super) fn answers_once(&mut self, at: u32, segment: Segment) -> bool {
        let is_restored = self.restored(at, segment);
        let connection = &mut self.connections[at as usize];
        let is_over = connection.stage == Stage::Idle;
        connection.was_late |= !is_restored && !is_over;
        !is_over
    }

    fn restored(&mut self, at: u32, segment: Segment) -> bool {
        let connection = &self.connections[at as usize];
        let (own, vip) = (connection.own, connection.vip);
        match self.reply(at, own, segment) {
            None => false,
            Some(source) if source == vip => true,
            Some(_) => {
                self.violate(at, Violation::Misdelivered, Cause::Other, segment, None);
                false
            }
        }
    }

    /// The connection ended with the pod that had it.
    pub(super) fn end_with_pod(&mut self, at: u32) {
        self.tally.ended_with_pod += 1;
        self.finish(at);
    }

    /// A reply that was lost, in a connection that went on.
    pub(super) fn note_late(&mut self, at: u32) {
        if std::mem::take(&mut self.connections[at as usize].was_late) {
            self.count(at, Violation::Late, Cause::ReplyUnknown, Segment::Data, None);
        }
    }

    fn violate(&mut self, at: u32, violation: Violation, cause: Cause, segment: Segment, got: Option<Pod>) {
        self.connections[at as usize].was_late = false;
        self.count(at, violation, cause, segment, got);
        self.finish(at);
    }

    fn count(&mut self, at: u32, violation: Violation, cause: Cause, segment: Segment, got: Option<Pod>) {
        *self.tally.violations.entry(violation).or_default() += 1;
        *self.tally.causes.entry(cause).or_default() += 1;
        if self.tally.examples.len() >= self.explains {
            return;
        }
        let connection = &self.connections[at as usize];
        let (seconds, own) =
            (self.clock.now() as f64 / TICKS_PER_S as f64, self.cluster.pods.get(connection.own as usize));
        let went = got.map_or("no pod".to_owned(), |pod| format!("pod {pod}, {:?}", self.cluster.pod(pod).phase));
        self.tally.examples.push(format!(
            "{seconds:.4} s: {violation:?}, {}: {segment:?} of a {:?} connection {:?} to {:?} of pod {}, {:?}, accepted {}; it went to {went}; {}",
            cause.name(),
            connection.kind,
            connection.client,
            connection.vip,
            connection.own,
            own.map(|pod| (pod.phase, pod.known)),
            connection.is_accepted,
            self.design.say(),
        ));
    }
}
