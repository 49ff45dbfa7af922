//! What the kernel of a namespace counts of its packets, as `nstat` shows it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use xlb_tests::lab::Namespace;

/// Packets that arrived with a wrong sum, by the names of /proc/net/snmp and /proc/net/snmp6.
const WRONG_SUMS: [&str; 5] =
    ["TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors", "Udp6InCsumErrors", "Icmp6InCsumErrors"];

/// Every counter of a namespace.
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Reads them.
    pub fn of(namespace: &Namespace) -> Result<Counts> {
        let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        let (both, ipv6) = namespace.run(|| -> Result<_> { Ok((read("snmp")?, read("snmp6")?)) })?;
        let mut counts = of_two_lines(&both);
        counts.extend(ipv6.lines().filter_map(|line| {
            let (name, value) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        }));
        Ok(Counts(counts))
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Result<u64> {
        self.0.get(name).copied().with_context(|| format!("no counter is called {name}"))
    }
}

/// That every packet that arrived here had the right sum.
pub fn check_sums(namespace: &Namespace) -> Result<()> {
    let counts = Counts::of(namespace)?;
    for name in WRONG_SUMS {
        let count = counts.get(name)?;
        ensure!(count == 0, "{name} is {count} in {}", namespace.name());
    }
    Ok(())
}

/// Pairs of lines, the names and the values: `Tcp: InSegs OutSegs` and `Tcp: 5 7`.
fn of_two_lines(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.chunks_exact(2).filter_map(|pair| {
        let (protocol, names) = pair[0].split_once(':')?;
        let (_, values) = pair[1].split_once(':')?;
        Some(names.split_whitespace().zip(values.split_whitespace()).filter_map(move |(name, value)| {
            // Tcp's MaxConn is -1.
            Some((format!("{protocol}{name}"), value.parse().ok()?))
        }))
    });
    pairs.flatten().collect()
}
