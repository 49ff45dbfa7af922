//! `xlb flows`: the flows that the maps remember.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use xlb_common::tables::FlowTable;

use super::PinArgs;
use super::inspection::interface;
use super::output::OutputArgs;
use super::table::Table;
use crate::maps::family::Flow;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::model::IpNet;
use crate::model::called::is_called;
use crate::plan::desired::Protocol;
use crate::plan::{Endpoint, Observed};
use crate::source::address::parse_range;

/// Most flows shown, unless told otherwise.
pub const SHOWN_MAX: usize = 10_000;

/// The tables of flows, with what an entry in them says.
pub const TABLES: [(FlowTable, Protocol, &str); 6] = [
    (FlowTable::Tcp, Protocol::Tcp, "accepted"),
    (FlowTable::TcpPending, Protocol::Tcp, "pending"),
    (FlowTable::Udp, Protocol::Udp, "accepted"),
    (FlowTable::UdpPending, Protocol::Udp, "pending"),
    (FlowTable::Sctp, Protocol::Sctp, "accepted"),
    (FlowTable::SctpPending, Protocol::Sctp, "pending"),
];

/// Which flows to show.
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Only those of this service: web, default/web, or default/web:http
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only those of clients in this range, or with this address
    #[arg(long, value_name = "CIDR", value_parser = parse_range)]
    client: Option<IpNet>,
    /// Most flows to show; there may be a million
    #[arg(long, value_name = "N", default_value_t = SHOWN_MAX)]
    limit: usize,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pins: PinArgs,
}

/// Prints flows.
///
/// # Errors
/// When there is no dataplane, or the kernel refuses to read.
pub fn show(args: FlowsArgs) -> Result<()> {
    let maps = LiveMaps::open(&PinDirectory::new(args.pins.bpffs_dir))?;
    let wanted = Wanted { service: args.service, client: args.client };
    // One more tells whether there are more.
    let observed = maps.observed()?;
    let all = TABLES.into_iter().flat_map(|table| of_table(&maps, &observed, table));
    let mut accepted = BTreeSet::new();
    let all = all.filter(|flow| wanted.has(flow) && is_told_once(&mut accepted, flow));
    let mut flows: Vec<_> = all.take(args.limit.saturating_add(1)).collect();
    if flows.len() > args.limit {
        flows.truncate(args.limit);
        eprintln!("xlb: only {} flows are shown: there are more (--limit, --service, --client)", args.limit);
    }
    args.output.print(&flows, |flows, is_wide| table(flows, is_wide))
}

/// Whether it is not what is left of a flow's beginning, after its pod accepted it. Accepted ones come first.
fn is_told_once(accepted: &mut BTreeSet<(&'static str, SocketAddr, SocketAddr)>, flow: &FlowView) -> bool {
    let key = (flow.protocol, flow.client, flow.pod);
    match flow.state {
        "accepted" => {
            accepted.insert(key);
            true
        }
        "pending" => !accepted.contains(&key),
        _ => true,
    }
}

/// Which flows are meant.
struct Wanted {
    service: Option<String>,
    client: Option<IpNet>,
}

impl Wanted {
    fn has(&self, flow: &FlowView) -> bool {
        let is_of = |name: &String| flow.service.as_ref().is_some_and(|full| is_called(full, name));
        self.service.as_ref().is_none_or(is_of) && self.client.is_none_or(|range| range.contains(&flow.client.ip()))
    }
}

/// A flow.
#[derive(Clone, Debug, Serialize)]
pub struct FlowView {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// `accepted`, `pending` or `closed`.
    pub state: &'static str,
    /// The client.
    pub client: SocketAddr,
    /// The port of the client's address that the pod sees in place of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_at_pod: Option<u16>,
    /// The VIP and port that it speaks to.
    pub vip: SocketAddr,
    /// The service that has these now; absent: none has any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The pod that answers.
    pub pod: SocketAddr,
    /// `direct` or `stack`.
    pub delivery: &'static str,
    /// The uplink by which it came and replies leave.
    pub uplink: String,
}

/// The flows of a table.
pub fn of_table<'a>(
    maps: &'a LiveMaps,
    observed: &'a Observed,
    (table, protocol, state): (FlowTable, Protocol, &'static str),
) -> impl Iterator<Item = FlowView> + 'a {
    maps.flows(table).map(move |flow| view(observed, protocol, state, &flow))
}

fn view(observed: &Observed, protocol: Protocol, state: &'static str, flow: &Flow) -> FlowView {
    let frontend = observed.frontends.get(&Endpoint { socket: flow.vip, protocol });
    let service = frontend.and_then(|frontend| observed.services.get(&frontend.service));
    FlowView {
        protocol: protocol.name(),
        state: if flow.entry.is_closed() { "closed" } else { state },
        client: flow.client,
        port_at_pod: flow.port_at_pod,
        vip: flow.vip,
        service: service.map(|service| service.name.clone()),
        pod: flow.pod,
        delivery: if flow.entry.is_stack() { "stack" } else { "direct" },
        uplink: interface(flow.entry.ingress_ifindex),
    }
}

fn table(flows: &[FlowView], is_wide: bool) -> String {
    let mut columns = vec!["PROTOCOL", "STATE", "CLIENT", "VIP", "POD"];
    if is_wide {
        columns.extend(["SERVICE", "DELIVERY", "UPLINK", "PORT-AT-POD"]);
    }
    let mut table = Table::new(&columns);
    for flow in flows {
        let ends = [flow.client, flow.vip, flow.pod].map(|end| end.to_string());
        let wide = [
            flow.service.clone().unwrap_or_default(),
            flow.delivery.into(),
            flow.uplink.clone(),
            flow.port_at_pod.map(|port| port.to_string()).unwrap_or_default(),
        ];
        let wide = wide.into_iter().filter(|_| is_wide);
        table.add([flow.protocol.into(), flow.state.into()].into_iter().chain(ends).chain(wide));
    }
    table.text()
}
