//! The screen for people.

use std::fmt::Write;

use xlb_common::Reason;

use super::{Dataplane, Drops, FlowCount, MapFill, Status};
use crate::cli::table::Table;

/// Maps are shown from here on; `-o wide` shows all.
const SHOWN_PERCENT: u64 = 50;

/// The screen.
pub fn text(status: &Status, is_wide: bool) -> String {
    let mut text = agent(status);
    match &status.dataplane {
        Some(dataplane) => text += &of_kernel(status, dataplane, is_wide),
        None => line(&mut text, "programs", &format!("none of map ABI {} are in the kernel yet", status.map_abi)),
    }
    text + &warnings(status)
}

fn line(text: &mut String, name: &str, what: &str) {
    let _ = writeln!(text, "{name:<10} {what}");
}

fn agent(status: &Status) -> String {
    let mut text = String::new();
    let Some(agent) = &status.agent else {
        let state = if status.has_agent { "up, and has not reported" } else { "never reported" };
        line(&mut text, "agent", state);
        return text;
    };
    let state = match (status.has_agent, agent.is_running) {
        (true, true) => "up",
        (true, false) => "starting: the kernel serves on as the one before told it",
        (false, _) => "gone: the kernel serves on as it was told last",
    };
    let synced = agent.in_sync_ago_s.map_or_else(|| "never in sync".into(), |ago| format!("in sync {ago} s ago"));
    line(&mut text, "agent", &format!("{state}; xlb {}, pid {}, node {}", agent.version, agent.pid, agent.node_name));
    line(&mut text, "sync", &synced);
    for uplink in &agent.uplinks {
        line(&mut text, "uplink", uplink);
    }
    text
}

fn of_kernel(status: &Status, dataplane: &Dataplane, is_wide: bool) -> String {
    let mut text = String::new();
    let version = status.agent.as_ref().and_then(|agent| agent.programs_version.as_deref());
    let version = version.map_or_else(|| "of a version that nobody told".into(), |version| format!("of xlb {version}"));
    let links = dataplane.links;
    line(&mut text, "programs", &format!("{version}, map ABI {}, attached in {links} places", status.map_abi));
    let Dataplane { services, frontends, vips, usable_vips, .. } = dataplane;
    line(
        &mut text,
        "services",
        &format!("{services}, with {frontends} frontends at {vips} VIPs, {usable_vips} of them usable here"),
    );
    let of = &dataplane.backends;
    let states = format!("{} serving, {} lingering", of.serving, of.lingering);
    let modes = format!("{} direct, {} through the stack", of.direct, of.stack);
    line(&mut text, "backends", &format!("{states}; {modes}; sockets of {} hidden", of.hidden));
    for (name, what) in [("flows", flows(&dataplane.flows, is_wide)), ("maps", maps(&dataplane.maps, is_wide))] {
        block(&mut text, name, &what);
    }
    block(&mut text, "drops", &drops(&dataplane.drops));
    text
}

/// Several lines, of which the first has the name.
fn block(text: &mut String, name: &str, what: &str) {
    for (index, part) in what.lines().enumerate() {
        line(text, if index == 0 { name } else { "" }, part);
    }
}

/// By protocol; wide also by family.
fn flows(counts: &[FlowCount], is_wide: bool) -> String {
    let mut table = Table::new(&["PROTOCOL", "ACCEPTED", "PENDING"]);
    if is_wide {
        for FlowCount { protocol, family, accepted, pending } in counts {
            table.add([format!("{protocol}/{family}"), accepted.to_string(), pending.to_string()]);
        }
        return table.text();
    }
    for protocol in ["tcp", "udp", "sctp"] {
        let of = || counts.iter().filter(|count| count.protocol == protocol);
        let accepted: u64 = of().map(|count| count.accepted).sum();
        let pending: u64 = of().map(|count| count.pending).sum();
        table.add([protocol.into(), accepted.to_string(), pending.to_string()]);
    }
    table.text()
}

fn maps(maps: &[MapFill], is_wide: bool) -> String {
    let shown: Vec<&MapFill> = maps.iter().filter(|map| is_wide || map.percent >= SHOWN_PERCENT).collect();
    let of = |map: &&MapFill| format!("{} % {} ({} of {})\n", map.percent, map.map, map.entries, map.capacity);
    match (shown.len(), maps.first()) {
        (0, Some(fullest)) => {
            format!("all below {SHOWN_PERCENT} %; the fullest is {} with {} %", fullest.map, fullest.percent)
        }
        _ => shown.iter().map(of).collect(),
    }
}

fn drops(drops: &Drops) -> String {
    let span = match drops.seconds {
        Some(seconds) => format!("in the last {seconds} s"),
        None => "since the maps were made: no agent counts by the minute".into(),
    };
    if drops.packets.is_empty() {
        return format!("none {span}");
    }
    let sentence =
        |label: &str| Reason::ALL.iter().find(|reason| reason.label() == label).map_or("", |it| it.sentence());
    let mut by_count: Vec<(&&str, &u64)> = drops.packets.iter().collect();
    by_count.sort_by_key(|(label, count)| (u64::MAX - **count, **label));
    let lines = by_count.iter().map(|(label, count)| format!("\n{count} {label}: {}", sentence(label)));
    span + &lines.collect::<String>()
}

fn warnings(status: &Status) -> String {
    let mut text = String::new();
    if status.refusals.is_empty() && status.waiting.is_empty() {
        line(&mut text, "warnings", "none");
    }
    for refusal in &status.refusals {
        line(&mut text, "warning", &format!("{}: {}", refusal.object, refusal.why));
    }
    for later in &status.waiting {
        line(&mut text, "waiting", &format!("{}: {}", later.object, later.why));
    }
    text
}
