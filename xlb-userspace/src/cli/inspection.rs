//! `xlb inspect`: everything that maps and agent tell, as one document for programs and for reports of trouble.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use xlb_common::Reason;

use super::backends::{self, BackendView};
use super::flows::{self, FlowView};
use super::output::{Format, print};
use super::services::{self, ServiceView};
use super::vips::{self, VipView};
use super::{PinArgs, agent};
use crate::cli::agent::AgentView;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::plan::desired::Refusal;

/// What to print.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// How to print: json or yaml. Other commands print for people
    #[arg(short, long, default_value = "json", value_parser = ["json", "yaml"])]
    output: String,
    #[command(flatten)]
    pins: PinArgs,
}

/// Prints everything.
///
/// # Errors
/// When there is no dataplane, or the kernel refuses to read.
pub fn show(args: InspectArgs) -> Result<()> {
    let pins = PinDirectory::new(args.pins.bpffs_dir);
    let inspection = Inspection::take(&LiveMaps::open(&pins)?, &pins)?;
    let format = if args.output == "yaml" { Format::Yaml } else { Format::Json };
    print(&format.document(&inspection)?).map(drop)
}

/// Everything that `xlb inspect` shows.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// Completed updates of the maps.
    pub generation: u64,
    /// The agent, if one ever reported.
    pub agent: Option<AgentView>,
    /// Service ports.
    pub services: Vec<ServiceView>,
    /// VIPs.
    pub vips: Vec<VipView>,
    /// What becomes of packets to ports of VIPs that no service has: `pass`, `drop` or `reject`.
    pub unowned: &'static str,
    /// Backends.
    pub backends: Vec<BackendView>,
    /// Flows: of each table the first [`flows::SHOWN_MAX`].
    pub flows: Vec<FlowView>,
    /// Packets and events by reason, those that occurred.
    pub counters: BTreeMap<&'static str, u64>,
    /// What is asked for and not done.
    pub refusals: Vec<Refusal>,
    /// What is done later.
    pub waiting: Vec<Refusal>,
}

impl Inspection {
    /// Reads the maps and the agent's report.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn take(maps: &LiveMaps, pins: &PinDirectory) -> Result<Self> {
        let (has_agent, observed, report) = agent::look(pins, || maps.observed())?;
        let services = services::read(maps, &observed, report.as_ref());
        let happened = maps.counters()?.into_iter().filter(|(_, count)| *count > 0);
        let of_table = |table| flows::of_table(maps, &observed, table).take(flows::SHOWN_MAX);
        Ok(Self {
            generation: observed.generation,
            agent: agent::view(has_agent, report.as_ref()),
            vips: vips::read(maps, &observed)?,
            unowned: vips::unowned(maps.config()?.settings),
            backends: backends::views(&observed, &services),
            services,
            flows: flows::TABLES.into_iter().flat_map(of_table).collect(),
            counters: happened.map(|(reason, count)| (Reason::label(reason), count)).collect(),
            refusals: report.as_ref().map(|report| report.refusals.clone()).unwrap_or_default(),
            waiting: report.map(|report| report.waiting).unwrap_or_default(),
        })
    }
}

/// Name of an interface of this namespace, or its number.
#[must_use]
pub fn interface(ifindex: u32) -> String {
    let name = nix::net::if_::if_indextoname(ifindex);
    name.map_or_else(|_| format!("interface {ifindex}"), |name| name.to_string_lossy().into_owned())
}
