//! What became of a packet, as a line for people and an object for programs.

use std::net::SocketAddr;
use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use serde::{Serialize, Serializer};
use xlb_common::Reason;
use xlb_common::reason::Disposition;
use xlb_common::tables::Stage;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From a client, at an uplink.
    In,
    /// From a pod, at its link.
    Out,
}

/// A packet, and what the path says of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When it arrived.
    #[serde(serialize_with = "in_words")]
    pub time: SystemTime,
    /// The link that received it.
    pub link: String,
    /// Which way it goes.
    pub direction: Direction,
    /// `tcp`, `udp`, `sctp`, `icmp`.
    pub protocol: String,
    /// Flags of a TCP segment, as tcpdump writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Its bytes, with the link's header.
    pub length: usize,
    /// What became of it: `forward`, `pass`, `drop` or `reply`.
    pub verdict: &'static str,
    /// Why.
    #[serde(serialize_with = "label")]
    pub reason: Reason,
    /// The Service port, where one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The pod that gets or sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<SocketAddr>,
    /// Its ends after translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub becomes: Option<(SocketAddr, SocketAddr)>,
    /// The packet, as far as it was copied.
    #[serde(skip)]
    pub before: Vec<u8>,
    /// Bytes at its end that were not.
    #[serde(skip)]
    pub missing: usize,
    /// The packet after translation.
    #[serde(skip)]
    pub after: Option<Vec<u8>>,
    /// The path's steps.
    #[serde(skip)]
    pub stages: Vec<Stage>,
}

fn in_words<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&words(*time))
}

fn label<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.label())
}

/// In UTC (RFC 3339), to the microsecond.
fn words(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "unknown".into(), |time| format!("{time:.6}"))
}

/// The word for what becomes of a packet.
#[must_use]
pub const fn verdict(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Forward => "forward",
        Disposition::Pass => "pass",
        Disposition::Drop => "drop",
        Disposition::Reply => "reply",
    }
}

impl Event {
    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let direction = match self.direction {
            Direction::In => "in ",
            Direction::Out => "out",
        };
        let flags = self.flags.as_ref().map_or_else(String::new, |flags| format!(" [{flags}]"));
        let service = self.service.as_ref().map_or_else(String::new, |service| format!(" {service}"));
        let becomes = match (self.direction, self.becomes) {
            (Direction::In, Some((_, destination))) => format!(" -> {destination}"),
            (Direction::Out, Some((source, _))) => format!(" as {source}"),
            _ => String::new(),
        };
        format!(
            "{} {} {direction} {} {} > {}{flags} {}: {}{service}{becomes}",
            words(self.time),
            self.link,
            self.protocol,
            self.source,
            self.destination,
            self.verdict,
            self.reason.label(),
        )
    }

    /// What a packet's comment says in a capture file.
    #[must_use]
    pub fn comment(&self) -> String {
        let service = self.service.as_ref().map_or_else(String::new, |service| format!("; service {service}"));
        let backend = self.backend.map_or_else(String::new, |backend| format!("; backend {backend}"));
        format!("xlb {}: {}{service}{backend}; by {}", self.reason.label(), self.reason.sentence(), self.link)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_event_is_a_line_an_object_and_a_comment() {
        let event = Event {
            time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
            link: "eth0".into(),
            direction: Direction::In,
            protocol: "tcp".into(),
            flags: Some("S".into()),
            source: "198.51.100.10:40000".parse().unwrap(),
            destination: "203.0.113.10:80".parse().unwrap(),
            length: 74,
            verdict: verdict(Reason::SlotOwner.disposition()),
            reason: Reason::SlotOwner,
            service: Some("default/web:http".into()),
            backend: Some("10.1.0.7:8080".parse().unwrap()),
            becomes: Some(("198.51.100.10:40000".parse().unwrap(), "10.1.0.7:8080".parse().unwrap())),
            before: vec![0; 74],
            after: None,
            missing: 0,
            stages: Vec::new(),
        };
        assert_eq!(
            event.line(),
            "2023-11-14T22:13:20.123456Z eth0 in  tcp 198.51.100.10:40000 > 203.0.113.10:80 [S] forward: slot_owner \
             default/web:http -> 10.1.0.7:8080"
        );
        let dropped =
            Event { verdict: "drop", reason: Reason::EmptyDropped, backend: None, becomes: None, ..event.clone() };
        assert!(dropped.line().ends_with("[S] drop: empty_dropped default/web:http"), "{}", dropped.line());
        let object = serde_json::to_value(&event).unwrap();
        for (key, expected) in [
            ("time", "2023-11-14T22:13:20.123456Z"),
            ("direction", "in"),
            ("verdict", "forward"),
            ("reason", "slot_owner"),
            ("backend", "10.1.0.7:8080"),
        ] {
            assert_eq!(object[key], expected, "{object:#}");
        }
        assert!(
            event.comment().starts_with("xlb slot_owner: forwarded to the owner of its slot"),
            "{}",
            event.comment()
        );
        assert!(event.comment().ends_with("; service default/web:http; backend 10.1.0.7:8080; by eth0"));
    }
}
