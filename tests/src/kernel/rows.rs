//! Packet rows: a description, a packet at a hook, and all that has to come of it. Each file under `tests/tests/rows`
//! says how its rows are written by its first one:
//!
//! ```text
//! a SYN goes to the only pod
//!   xdp tcp 198.51.100.9:40000 203.0.113.1:80 S
//!   redirect sole_backend
//!   out tcp 198.51.100.9:40000 10.244.1.1:8080 S ttl 63 from host1 to pod1
//!   then pending 198.51.100.9:40000 10.244.1.1:8080 vip 203.0.113.1:80
//! ```
//!
//! A row with IPv4 addresses holds for IPv6 too, with the addresses that [`in_ipv6`] gives, unless
//! it has others, or says `only v4`.
//! `CLIENT~VIP~N` is the client's address with the port that its flow to that VIP gets from the Nth try (`twins.rs`).
//! The packet may be at several hooks (`xdp,tc`). Without `out` it stays as it is, byte for
//! byte; `out icmp …` is compared byte for byte; `out refusal VIP:PORT` is the ICMP error that says that, `out reset VIP:PORT` the TCP reset that does, `out any` is for what cannot be told in words. `given` lines are the
//! flows before (`syn-ack N` and `number N` of one say what the pod's SYN-ACK acknowledged, and what acknowledges it), `settings` says what the operator chose (`echo`, `drop` or `reject` for unowned ports, `reset` for TCP, `cluster-only` for pods' addresses), `then` lines all flows after; without `then` they stay. `before` lines are packets at the same hook before.

use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV4};

use anyhow::{Context as _, Result, bail, ensure};
use xlb_common::Reason;
use xlb_common::abi::{FlowEntry, Settings, flow_flags};
use xlb_common::memory::MemoryTables;
use xlb_common::twin::IDLE_MAX;

use super::describe::{FLOW_TABLES, describe, describe_flows};
use super::flows::{self, FlowKey, Flows};
use super::frame::{Spec, endpoint, frame, mac, number, tag};
use super::host;
use super::outcome::{Hook, Outcome, Verdict};
use super::refusal;
use super::sample::{PORTS, flow_entry, in_ipv6};
use super::twins::resolve;

const FILES: &[&str] = &[
    include_str!("../../tests/rows/to_pods.txt"),
    include_str!("../../tests/rows/vips.txt"),
    include_str!("../../tests/rows/from_pods.txt"),
    include_str!("../../tests/rows/passing_by.txt"),
    include_str!("../../tests/rows/ipv6.txt"),
    include_str!("../../tests/rows/clients.txt"),
    include_str!("../../tests/rows/errors_to_pods.txt"),
    include_str!("../../tests/rows/errors_from_pods.txt"),
    include_str!("../../tests/rows/handover.txt"),
    include_str!("../../tests/rows/strays.txt"),
    include_str!("../../tests/rows/alone.txt"),
    include_str!("../../tests/rows/fragments.txt"),
    include_str!("../../tests/rows/sctp.txt"),
    include_str!("../../tests/rows/shapes.txt"),
    include_str!("../../tests/rows/twins.txt"),
    include_str!("../../tests/rows/ways.txt"),
    include_str!("../../tests/rows/malformed.txt"),
];
/// Rows that hold while clients are followed to other ways, with [`sample::following`](super::sample::following).
const FOLLOWING: &str = include_str!("../../tests/rows/following.txt");
/// Rows that hold while handshakes are many, with [`sample::hot`](super::sample::hot).
const HOT: &str = include_str!("../../tests/rows/hot.txt");

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it shows.
    pub name: String,
    /// Where the packet is.
    pub hooks: Vec<Hook>,
    /// The packet.
    pub frame: Vec<u8>,
    /// The flows before.
    pub given: Flows,
    /// What the operator chose.
    pub settings: Settings,
    /// Packets at the same hook before.
    pub before: Vec<Vec<u8>>,
    /// Why it goes where it goes.
    pub reason: Reason,
    verdict: Verdict,
    out: Option<String>,
    then: Flows,
}

impl Row {
    /// What the row's packet meets, in memory.
    pub fn prepare(&self, tables: &MemoryTables, hook: Hook) {
        flows::set(tables, &self.given);
        tables.settings.set(self.settings);
        for frame in &self.before {
            let _ = host::run(tables, hook, frame);
        }
    }

    /// Fails with both texts if a run came out otherwise.
    pub fn check(&self, outcome: &Outcome, flows: &Flows) -> Result<()> {
        let expected = (self.verdict, Some(self.reason));
        let got = (outcome.verdict, outcome.reason);
        ensure!(got == expected, "came out as {got:?}, not {expected:?}");
        match &self.out {
            None => ensure!(outcome.frame == self.frame, "was changed:\n{}", describe(&outcome.frame)),
            Some(out) if out == "any" => {}
            Some(out) if out.starts_with(REFUSAL) => {
                let of = format!("{REFUSAL}{}", refusal::check(&self.frame, &outcome.frame)?);
                ensure!(&of == out, "became a {of}");
            }
            Some(out) if out.starts_with(RESET) => {
                let of = format!("{RESET}{}", refusal::check_reset(&self.frame, &outcome.frame)?);
                ensure!(&of == out, "became a {of}");
            }
            Some(out) if out.starts_with("icmp ") => {
                let frame = Spec::parse(out)?.build();
                let texts = || format!("{}\nnot\n{}", describe(&outcome.frame), describe(&frame));
                ensure!(outcome.frame == frame, "became\n{}\n{:02x?}\n{frame:02x?}", texts(), outcome.frame);
            }
            Some(out) => ensure!(&describe(&outcome.frame) == out, "became\n{}\nnot\n{out}", describe(&outcome.frame)),
        }
        let flows = without_times(flows);
        let then = without_times(&self.then);
        let texts = (describe_flows(&flows), describe_flows(&then));
        ensure!(flows == then, "left these flows:\n{}instead of these:\n{}", texts.0, texts.1);
        Ok(())
    }
}

/// What a row's `out` says of an ICMP error; behind it stands what cannot be reached.
const REFUSAL: &str = "refusal ";
/// The same of a TCP reset.
const RESET: &str = "reset ";

/// The flows with their times forgotten: two clocks never agree.
#[must_use]
pub fn without_times(flows: &Flows) -> Flows {
    flows.iter().map(|(key, entry)| (*key, FlowEntry { last_seen: 0, ..*entry })).collect()
}

/// The rows of all files.
pub fn all(tables: &MemoryTables) -> Result<Vec<Row>> {
    let files: Vec<Vec<Row>> = FILES.iter().map(|text| read(text, tables)).collect::<Result<_>>()?;
    Ok(files.concat())
}

/// The rows that hold while clients are followed to other ways.
pub fn following(tables: &MemoryTables) -> Result<Vec<Row>> {
    read(FOLLOWING, tables)
}

/// The rows for while handshakes are many.
pub fn hot(tables: &MemoryTables) -> Result<Vec<Row>> {
    read(HOT, tables)
}

/// Checks each row of all files at each of its hooks, and fails with all that failed.
pub fn check_each(tables: &MemoryTables, check: impl FnMut(&Row, Hook) -> Result<()>) -> Result<()> {
    check_rows(all(tables)?, check)
}

/// The same with these rows.
pub fn check_rows(rows: Vec<Row>, mut check: impl FnMut(&Row, Hook) -> Result<()>) -> Result<()> {
    let mut failures = String::new();
    for row in rows {
        for &hook in &row.hooks {
            if let Err(error) = check(&row, hook) {
                let _ = writeln!(failures, "{} ({hook:?}): {error:#}", row.name);
            }
        }
    }
    ensure!(failures.is_empty(), "these rows fail:\n{failures}");
    Ok(())
}

fn read(text: &str, tables: &MemoryTables) -> Result<Vec<Row>> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut rows: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in lines {
        match (line.strip_prefix("  "), rows.last_mut()) {
            (None, _) => rows.push((line, Vec::new())),
            (Some(line), Some((_, lines))) => lines.push(line.trim_start()),
            (Some(_), None) => bail!("`{line}` comes before the first row's name"),
        }
    }
    let rows = rows.iter().flat_map(|(name, lines)| in_each_family(name, lines));
    let read = |name: &str, lines: &[String]| row(name, &with_twins(lines)?, tables);
    rows.map(|(name, lines)| read(&name, &lines).with_context(|| format!("reading the row `{name}`"))).collect()
}

fn with_twins(lines: &[String]) -> Result<Vec<String>> {
    let each = |line: &String| Ok(line.split(' ').map(resolve).collect::<Result<Vec<_>>>()?.join(" "));
    lines.iter().map(each).collect()
}

/// The row as it is written, and the same with IPv6 addresses if each of its addresses has one and it does not refuse.
fn in_each_family(name: &str, lines: &[&str]) -> Vec<(String, Vec<String>)> {
    let written: Vec<String> = lines.iter().filter(|line| **line != ONLY_V4).map(|line| (*line).to_owned()).collect();
    let refuses = written.len() != lines.len();
    let other: Option<Vec<String>> = written.iter().map(|line| with_ipv6(line)).collect();
    let other = other.filter(|other| !refuses && *other != written);
    let other = other.map(|other| (format!("{name}, over IPv6"), other));
    [(name.to_owned(), written)].into_iter().chain(other).collect()
}

const ONLY_V4: &str = "only v4";

fn with_ipv6(line: &str) -> Option<String> {
    let end = |word: &str| match word.parse::<SocketAddrV4>() {
        Ok(socket) => Some(SocketAddr::new(in_ipv6(*socket.ip())?, socket.port()).to_string()),
        Err(_) => Some(word.to_owned()),
    };
    let word = |word: &str| Some(word.split('~').map(end).collect::<Option<Vec<_>>>()?.join("~"));
    Some(line.split(' ').map(word).collect::<Option<Vec<_>>>()?.join(" "))
}

fn row(name: &str, lines: &[String], tables: &MemoryTables) -> Result<Row> {
    let of = |word: &'static str| lines.iter().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '));
    let plain: Vec<&str> = lines.iter().map(String::as_str).filter(|line| !is_named(line)).collect();
    let [packet, outcome] = plain[..] else { bail!("a row has one line with a packet and one with a verdict") };
    let (hooks, packet) = packet.split_once(' ').context("the packet is missing")?;
    let (verdict, reason) = outcome.split_once(' ').context("the reason is missing")?;
    let given = read_flows(of("given"), tables)?;
    let then = if of("then").next().is_some() { read_flows(of("then"), tables)? } else { given.clone() };
    Ok(Row {
        name: name.to_owned(),
        hooks: hooks.split(',').map(hook).collect::<Result<_>>()?,
        frame: frame(packet)?,
        given,
        settings: of("settings").flat_map(str::split_whitespace).try_fold(Settings::NONE, setting)?,
        before: of("before").map(frame).collect::<Result<_>>()?,
        verdict: self::verdict(verdict)?,
        reason: self::reason(reason)?,
        out: of("out").next().map(str::to_owned),
        then,
    })
}

fn is_named(line: &str) -> bool {
    ["given", "settings", "before", "out", "then"].iter().any(|name| line.split(' ').next() == Some(name))
}

fn read_flows<'a>(lines: impl Iterator<Item = &'a str>, tables: &MemoryTables) -> Result<Flows> {
    let lines = lines.filter(|line| *line != "nothing");
    lines.map(|line| flow(line, tables).with_context(|| format!("reading `{line}`"))).collect()
}

/// A flow from text, as in a row's `given`.
pub fn flow(line: &str, tables: &MemoryTables) -> Result<((u8, FlowKey), FlowEntry)> {
    let mut words = line.split_whitespace();
    let mut next = || words.next().context("a word is missing");
    let name = next()?;
    let table =
        FLOW_TABLES.iter().position(|table| *table == name).with_context(|| format!("{name} is no flow map"))?;
    let (client, pod) = (endpoint(next()?)?, endpoint(next()?)?);
    ensure!(next()? == "vip", "`vip` is missing");
    let vip = endpoint(next()?)?;
    let (protocol, ..) = PORTS[table / 2];
    let key = FlowKey::between(client, pod)?;
    let mut entry = flow_entry(tables, vip, protocol, &key).context("no such VIP or pod")?;
    while let Some(word) = words.next() {
        match word {
            "stack" => entry.flags |= flow_flags::STACK,
            "closed" => entry.flags |= flow_flags::CLOSED,
            "superseded" => entry.flags |= flow_flags::SUPERSEDED,
            "unseen" => entry.flags |= flow_flags::UNSEEN,
            "admitted" => entry.flags |= flow_flags::ADMITTED,
            "answered" => entry.flags |= flow_flags::ANSWERED,
            "pod-fin" => entry.flags |= flow_flags::POD_FIN,
            "idle" => entry.last_seen = IDLE,
            "own-port" => entry.client_port = number::<u16>(&mut words)?.to_be_bytes(),
            "from" => entry.next_hop_mac = mac(words.next().context("a MAC is missing")?)?,
            "to" => entry.uplink_mac = mac(words.next().context("a MAC is missing")?)?,
            "by" => entry.ingress_ifindex = number(&mut words)?,
            "vlan" | "provider" if entry.tags.is_none() => entry.tags.outer = tag(word, number(&mut words)?),
            "vlan" | "provider" => entry.tags.inner = tag(word, number(&mut words)?),
            "syn-ack" => {
                entry.flags |= flow_flags::SYN_ACK_SEEN;
                entry.syn_ack_acknowledged = number(&mut words)?;
            }
            "number" => entry.syn_ack_number = number(&mut words)?,
            other => bail!("{other} says nothing of a flow"),
        }
    }
    Ok(((table as u8, key), entry))
}

fn setting(settings: Settings, word: &str) -> Result<Settings> {
    Ok(match word {
        "echo" => settings.with_echo(),
        "drop" => settings.with_unowned_dropped(),
        "reject" => settings.with_unowned_rejected(),
        "reset" => settings.with_tcp_reset(),
        "cluster-only" => settings.with_pods_of_cluster(),
        _ => bail!("{word} is no setting"),
    })
}

/// [`FlowEntry::last_seen`] of a flow by a clock that begins now: some time ago, so that no flow was seen now in one of two runs of a
/// packet, and a second ago in the other.
pub const AGO: u32 = 0_u32.wrapping_sub(20);
/// The same of a flow that may lose its port.
pub const IDLE: u32 = 0_u32.wrapping_sub(2 * IDLE_MAX);

fn hook(name: &str) -> Result<Hook> {
    Ok(match name {
        "xdp" => Hook::Xdp,
        "xdp-alone" => Hook::XdpAlone,
        "tc" => Hook::Tc,
        "pod" => Hook::Pod,
        "egress" => Hook::Egress,
        _ => bail!("{name} is not a hook"),
    })
}

fn verdict(name: &str) -> Result<Verdict> {
    Ok(match name {
        "pass" => Verdict::Pass,
        "redirect" => Verdict::Redirect,
        "drop" => Verdict::Drop,
        _ => bail!("{name} is not a verdict"),
    })
}

fn reason(label: &str) -> Result<Reason> {
    let reason = Reason::ALL.iter().find(|reason| reason.label() == label);
    reason.copied().with_context(|| format!("{label} is not a reason"))
}
