//! What the kernel counts in a namespace: /proc/net/snmp and /proc/net/netstat, by name.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

use crate::lab::Namespace;

/// TCP's segments that were sent again, for whatever reason.
pub const RETRANSMITTED: &str = "Tcp.RetransSegs";
/// Those of them that are SYNs, or answers to SYNs.
pub const HANDSHAKES: &str = "TcpExt.TCPSynRetrans";
/// Segments of which the receiver said (by DSACK) that it had them already: these were sent again in vain, as their
/// answer was late and not lost.
pub const IN_VAIN: &str = "TcpExt.TCPDSACKRecv";
/// Resets that were sent.
pub const RESETS_SENT: &str = "Tcp.OutRsts";
/// Datagrams that found no room at their socket.
pub const NO_ROOM: &str = "Udp.RcvbufErrors";

/// Counters by the name of their group and their own.
#[derive(Clone, Debug, Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Those of a namespace.
    pub fn of(namespace: &Namespace) -> Result<Counters> {
        // /proc/net would be the namespace of the process's first thread.
        let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let text = namespace.run(|| Ok::<_, std::io::Error>(read("snmp")? + &read("netstat")?));
        let text = text.with_context(|| format!("reading the counters of {}", namespace.name()))?;
        Ok(Counters::parse(&text))
    }

    /// The sum over several namespaces.
    pub fn of_all<'a>(namespaces: impl IntoIterator<Item = &'a Namespace>) -> Result<Counters> {
        namespaces.into_iter().try_fold(Counters::default(), |sum, namespace| Ok(sum.plus(Counters::of(namespace)?)))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// How much one of them has grown since then.
    #[must_use]
    pub fn grown(&self, since: &Counters, name: &str) -> u64 {
        self.get(name).saturating_sub(since.get(name))
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: Counters) -> Counters {
        for (name, value) in other.0 {
            *self.0.entry(name).or_default() += value;
        }
        self
    }

    /// Each group is a line of names and a line of values.
    fn parse(text: &str) -> Counters {
        let lines: Vec<&str> = text.lines().collect();
        let mut counters = BTreeMap::new();
        for pair in lines.chunks_exact(2) {
            let (Some((group, names)), Some((_, values))) = (pair[0].split_once(": "), pair[1].split_once(": ")) else {
                continue;
            };
            for (name, value) in names.split(' ').zip(values.split(' ')) {
                // Some are -1: no limit.
                counters.insert(format!("{group}.{name}"), value.parse().unwrap_or_default());
            }
        }
        Counters(counters)
    }
}

/// Packets that a device has received.
pub fn received(namespace: &Namespace, device: &str) -> Result<u64> {
    let text = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.with_context(|| format!("no device {device} in {}", namespace.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_group_and_name() {
        let counters = Counters::parse("Tcp: MaxConn RetransSegs\nTcp: -1 7\nUdp: RcvbufErrors\nUdp: 3\n");
        assert_eq!((counters.get(RETRANSMITTED), counters.get(NO_ROOM), counters.get(RESETS_SENT)), (7, 3, 0));
    }
}
