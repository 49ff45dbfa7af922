//! What happened, in rows.

use std::time::Duration;

use super::{Outcome, Wave};
use crate::bench::report::{Report, Row};
use crate::load::kernel::{HANDSHAKES, IN_VAIN, RESETS_SENT, RETRANSMITTED};
use crate::load::newcomers::Attempts;
use crate::load::talk::Violation;

impl Outcome {
    /// The rows.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut rows = self.violation_rows();
        rows.extend(self.load_rows());
        rows.extend(newcomer_rows("calm", &self.before));
        rows.extend(newcomer_rows("trouble", &self.during));
        rows.extend(
            self.reasons.iter().map(|(reason, &count)| figure(&format!("xlb: {reason}"), "count", count as f64)),
        );
        Report { rows }
    }

    fn violation_rows(&self) -> Vec<Row> {
        let kinds = [
            ("answered by another pod", Violation::Moved),
            ("answered with another secret", Violation::Foreign),
            ("reset", Violation::Reset),
            ("closed by nobody", Violation::Closed),
            ("hung", Violation::Hung),
            ("open at the client only", Violation::Unanswered),
            ("reset before any answer", Violation::Refused),
        ];
        let row = |(name, kind)| figure(&format!("connections {name}"), "count", self.of(kind) as f64);
        kinds.into_iter().map(row).collect()
    }

    fn load_rows(&self) -> Vec<Row> {
        let (before, after) = &self.counters;
        let tcp = &self.connections;
        let [again, handshakes, resets] =
            [RETRANSMITTED, HANDSHAKES, RESETS_SENT].map(|name| after.grown(before, name));
        vec![
            figure("connections opened in all", "count", tcp.opened as f64),
            figure("connections that pods closed at their end", "count", tcp.ended as f64),
            figure("attempts of theirs that did not open", "count", tcp.failed as f64),
            figure("messages answered", "count", tcp.answered as f64),
            figure("first opening of all", "ms", ms(self.opening)),
            figure("pods replaced", "count", self.done.replaced as f64),
            figure("agents killed", "count", self.done.kills as f64),
            figure("flood: packets sent per second", "1/s", self.flood.per_s(self.flood.sent.packets)),
            figure("flood: packets arrived per second", "1/s", self.flood.per_s(self.flood.arrived)),
            figure("flood: packets sent", "count", self.flood.sent.packets as f64),
            figure("routed flood: packets sent per second", "1/s", self.routed.per_s(self.routed.sent.packets)),
            figure("routed flood: packets arrived per second", "1/s", self.routed.per_s(self.routed.arrived)),
            figure("SYNs, and answers to them, sent again", "count", handshakes as f64),
            figure("other TCP segments sent again", "count", again.saturating_sub(handshakes) as f64),
            figure("other TCP segments sent again in vain", "count", after.grown(before, IN_VAIN) as f64),
            figure("resets sent by clients", "count", self.resets_of_clients as f64),
            figure("resets sent by pods", "count", (resets - self.resets_of_clients.min(resets)) as f64),
            figure("SYN cookies sent", "count", after.grown(before, "TcpExt.SyncookiesSent") as f64),
            figure("SYN cookies taken", "count", after.grown(before, "TcpExt.SyncookiesRecv") as f64),
        ]
    }
}

impl Wave {
    fn per_s(&self, packets: u64) -> f64 {
        packets as f64 / self.sent.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

fn newcomer_rows(part: &str, attempts: &Attempts) -> Vec<Row> {
    let mut times = attempts.times.clone();
    times.sort();
    let at = |percent: usize| {
        ms(times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default())
    };
    let tried = times.len() as u64 + attempts.failed + attempts.incidents.len() as u64;
    vec![
        figure(&format!("{part}: short connections tried"), "count", tried as f64),
        figure(&format!("{part}: got through"), "count", times.len() as f64),
        figure(&format!("{part}: until the answer, p50"), "ms", at(50)),
        figure(&format!("{part}: until the answer, p99"), "ms", at(99)),
        figure(&format!("{part}: until the answer, most"), "ms", at(100)),
    ]
}

fn figure(name: &str, unit: &'static str, value: f64) -> Row {
    Row { name: name.to_owned(), unit, rounds: vec![value], baseline: None }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
