//! `xlb status`: one screen that says whether all is well, with the agent or without it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use xlb_common::Reason;
use xlb_common::abi::ABI_VERSION;

use super::agent::{self, AgentView};
use super::backends::{self, BackendView};
use super::output::OutputArgs;
use super::{PinArgs, services, version, vips};
use crate::agent::history::Counted;
use crate::agent::report::{DIRECTORY, Report, now_s};
use crate::maps::fill::{Fill, fill};
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::metrics::facts::Served;
use crate::metrics::scrape::FILLED_MAPS;
use crate::plan::desired::Refusal;

mod text;

/// How to show it.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pins: PinArgs,
}

/// Prints the screen.
///
/// # Errors
/// When there is neither dataplane nor agent, or the kernel refuses to read.
pub fn show(args: StatusArgs) -> Result<()> {
    let pins = PinDirectory::new(args.pins.bpffs_dir);
    let status = Status::take(&pins)?;
    args.output.print(&status, text::text)
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The version of this command.
    pub version: &'static str,
    /// The version of its map ABI.
    pub map_abi: u32,
    /// The agent, if one ever reported.
    pub agent: Option<AgentView>,
    /// Whether an agent has the dataplane, also one that has not reported.
    pub has_agent: bool,
    /// What the kernel has; absent: nothing of this map ABI.
    pub dataplane: Option<Dataplane>,
    /// What is asked for and not done, and what to do about it.
    pub refusals: Vec<Refusal>,
    /// What is done later.
    pub waiting: Vec<Refusal>,
}

/// What the kernel has.
#[derive(Debug, Serialize)]
pub struct Dataplane {
    /// Completed updates of the maps.
    pub generation: u64,
    /// Places where programs are attached.
    pub links: usize,
    /// Service ports.
    pub services: usize,
    /// VIPs with port and protocol.
    pub frontends: usize,
    /// Addresses.
    pub vips: usize,
    /// Addresses with a pod on this node that takes new connections.
    pub usable_vips: usize,
    /// Pod ports of this node.
    pub backends: BackendCounts,
    /// Flows by protocol and family; of full tables an estimate.
    pub flows: Vec<FlowCount>,
    /// How full the maps are, the fullest first.
    pub maps: Vec<MapFill>,
    /// What was dropped or refused.
    pub drops: Drops,
}

/// Backends by what they do.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackendCounts {
    /// They get new connections.
    pub serving: usize,
    /// They only keep those that they have.
    pub lingering: usize,
    /// Past the host's stack.
    pub direct: usize,
    /// Through it.
    pub stack: usize,
    /// Their sockets cannot be asked.
    pub hidden: usize,
}

/// The flows of one protocol and family.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FlowCount {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Those that pods accepted.
    pub accepted: u64,
    /// Those that no pod has accepted yet, with what is left of the beginning of others, and of TCP of their end: the table makes
    /// room by itself.
    pub pending: u64,
}

/// How full a map is.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct MapFill {
    /// Its name.
    pub map: &'static str,
    /// Its entries.
    pub entries: u64,
    /// How many it can hold.
    pub capacity: u64,
    /// The same, in whole percent.
    pub percent: u64,
}

/// What was dropped or refused.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// In the last so many seconds; absent: since the maps were made, as no agent counts by the minute.
    pub seconds: Option<u64>,
    /// Packets by reason.
    pub packets: BTreeMap<&'static str, u64>,
}

impl Status {
    /// Looks at all of it.
    ///
    /// # Errors
    /// When there is neither dataplane nor agent, or the kernel refuses to read.
    fn take(pins: &PinDirectory) -> Result<Self> {
        let (has_agent, (), report) = agent::look(pins, || Ok(()))?;
        let dataplane = match pins.holds_dataplane() {
            true => Some(Dataplane::take(pins, report.as_ref().filter(|_| has_agent))?),
            false if has_agent => None,
            false => bail!(
                "no agent runs, and there is no dataplane of map ABI {ABI_VERSION} at {}: has an agent run with this \
                 --bpffs-dir?",
                pins.root().display()
            ),
        };
        let mut refusals = report.as_ref().map(|report| report.refusals.clone()).unwrap_or_default();
        refusals.extend((has_agent && report.is_none()).then(unreported));
        Ok(Self {
            version: version::long(),
            map_abi: ABI_VERSION,
            agent: agent::view(has_agent, report.as_ref()),
            has_agent,
            dataplane,
            refusals,
            waiting: report.map(|report| report.waiting).unwrap_or_default(),
        })
    }
}

fn unreported() -> Refusal {
    let why = format!(
        "it has left no report in {DIRECTORY}: it has not finished its first round, or cannot write there; its log says \
         which (in a container, mount a writable directory at {DIRECTORY})"
    );
    Refusal { object: "agent".into(), why }
}

impl Dataplane {
    fn take(pins: &PinDirectory, report: Option<&Report>) -> Result<Self> {
        let maps = LiveMaps::open(pins)?;
        let observed = maps.observed()?;
        let vips = vips::read(&maps, &observed)?;
        let backends = backends::views(&observed, &services::read(&maps, &observed, None));
        let filled: Vec<Fill> = FILLED_MAPS.into_iter().map(|map| fill(pins, map)).collect::<Result<_>>()?;
        let served = Served::of(&observed, maps.limits());
        let now = Counted::of(now_s(), maps.counters()?);
        Ok(Self {
            generation: observed.generation,
            links: pins.pinned_links().len(),
            services: observed.services.len(),
            frontends: observed.frontends.len(),
            vips: vips.len(),
            usable_vips: vips.iter().filter(|vip| vip.is_usable).count(),
            backends: count(&backends),
            flows: flow_counts(&filled),
            maps: by_fill(filled.iter().chain(&served.fills)),
            drops: drops(&now, report.and_then(|report| report.counted_before.as_ref())),
        })
    }
}

fn count(backends: &[BackendView]) -> BackendCounts {
    let that = |is: fn(&BackendView) -> bool| backends.iter().filter(|backend| is(backend)).count();
    BackendCounts {
        serving: that(|backend| backend.state == "serving"),
        lingering: that(|backend| backend.state == "lingering"),
        direct: that(|backend| backend.delivery == "direct"),
        stack: that(|backend| backend.delivery == "stack"),
        hidden: that(|backend| backend.netns_id.is_none()),
    }
}

fn flow_counts(fills: &[Fill]) -> Vec<FlowCount> {
    let entries = |map: String| fills.iter().find(|fill| fill.map == map).map_or(0, |fill| fill.entries);
    let protocols = [("tcp", ""), ("udp", "UDP_"), ("sctp", "SCTP_")];
    let of = |(protocol, prefix): (&'static str, &str)| {
        [("ipv4", "V4"), ("ipv6", "V6")].map(|(family, suffix)| FlowCount {
            protocol,
            family,
            accepted: entries(format!("{prefix}FLOWS_{suffix}")),
            pending: entries(format!("{prefix}PENDING_{suffix}")),
        })
    };
    protocols.into_iter().flat_map(of).collect()
}

fn by_fill<'a>(fills: impl Iterator<Item = &'a Fill>) -> Vec<MapFill> {
    let of = |&Fill { map, entries, capacity }: &Fill| {
        let percent = (entries * 100).checked_div(capacity).unwrap_or(0);
        MapFill { map, entries, capacity, percent }
    };
    let mut maps: Vec<MapFill> = fills.map(of).collect();
    maps.sort_by_key(|map| (u64::MAX - map.percent, map.map));
    maps
}

/// What was dropped since then, if there was a look before; else since the maps were made.
fn drops(now: &Counted, before: Option<&Counted>) -> Drops {
    let denied = Reason::ALL.iter().filter(|reason| reason.is_drop());
    let number = |reason: &Reason| {
        let of = |counted: &Counted| counted.counts.get(reason.label()).copied().unwrap_or(0);
        // Counters begin anew with new maps: then all of them is new.
        let earlier = before.map(of).filter(|earlier| *earlier <= of(now)).unwrap_or(0);
        (reason.label(), of(now) - earlier)
    };
    Drops {
        seconds: before.map(|before| now.at_s.saturating_sub(before.at_s)),
        packets: denied.map(number).filter(|(_, count)| *count > 0).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(at_s: u64, counts: &[(&str, u64)]) -> Counted {
        Counted { at_s, counts: counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect() }
    }

    #[test]
    fn drops_are_those_since_the_look_of_a_minute_ago_and_without_one_all() {
        let now = counted(1062, &[("empty_dropped", 12), ("empty_rejected", 3), ("slot_owner", 90), ("vip_looped", 2)]);
        let before = counted(1000, &[("empty_dropped", 7), ("slot_owner", 50), ("vip_looped", 2)]);
        let lately = drops(&now, Some(&before));
        assert_eq!(lately.seconds, Some(62));
        assert_eq!(lately.packets, [("empty_dropped", 5), ("empty_rejected", 3)].into());
        let ever = drops(&now, None);
        assert_eq!(ever.seconds, None);
        assert_eq!(ever.packets, [("empty_dropped", 12), ("empty_rejected", 3), ("vip_looped", 2)].into());
        let anew = drops(&counted(1062, &[("empty_dropped", 1)]), Some(&before));
        assert_eq!(anew.packets, [("empty_dropped", 1)].into(), "the maps were made anew");
    }

    #[test]
    fn the_fullest_maps_come_first() {
        let fills = [("A", 1, 100), ("B", 90, 100), ("C", 0, 0), ("D", 90, 100)].map(|(map, entries, capacity)| Fill {
            map,
            entries,
            capacity,
        });
        let order: Vec<(&str, u64)> = by_fill(fills.iter()).iter().map(|map| (map.map, map.percent)).collect();
        assert_eq!(order, [("B", 90), ("D", 90), ("A", 1), ("C", 0)]);
    }
}
