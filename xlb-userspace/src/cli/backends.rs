//! `xlb backends`: pod ports of this node, and whose connections they get.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use xlb_common::abi::Backend;

use super::PinArgs;
use super::inspection::interface;
use super::output::OutputArgs;
use super::services::{self, ServiceView};
use super::table::Table;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::plan::Observed;
use crate::plan::desired::Protocol;

/// What to show.
#[derive(Debug, Args)]
pub struct BackendsArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pins: PinArgs,
}

/// Prints backends.
///
/// # Errors
/// When there is no dataplane, or the kernel refuses to read.
pub fn show(args: BackendsArgs) -> Result<()> {
    let maps = LiveMaps::open(&PinDirectory::new(args.pins.bpffs_dir))?;
    let observed = maps.observed()?;
    let backends = views(&observed, &services::read(&maps, &observed, None));
    args.output.print(&backends, |backends, is_wide| table(backends, is_wide))
}

/// A backend.
#[derive(Clone, Debug, Serialize)]
pub struct BackendView {
    /// Its id.
    pub id: u32,
    /// The pod's address and port.
    pub address: SocketAddr,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// `serving`: a service gives it new connections; `lingering`: it only keeps those that it has.
    pub state: &'static str,
    /// The services that it is a backend of, with its slots there.
    pub services: Vec<PartView>,
    /// `direct` or `stack`.
    pub delivery: &'static str,
    /// The host's end of its link, if it has one.
    pub interface: Option<String>,
    /// The pod's namespace id; absent: its sockets cannot be asked.
    pub netns_id: Option<i32>,
    /// Whether XDP may redirect to it.
    pub takes_xdp: bool,
    /// How often the id got a new meaning.
    pub generation: u32,
}

/// A service's part in a backend.
#[derive(Clone, Debug, Serialize)]
pub struct PartView {
    /// The service port.
    pub name: String,
    /// The backend's slots of it, of so many.
    pub slots: u32,
    /// Its slots; zero: the backend is the only one.
    pub of: u32,
    /// Slots that the backend owned before and may hold connections of.
    pub former_slots: u32,
}

/// All backends in use.
#[must_use]
pub fn views(observed: &Observed, services: &[ServiceView]) -> Vec<BackendView> {
    let mut parts: BTreeMap<u32, Vec<PartView>> = BTreeMap::new();
    for service in services {
        for share in &service.backends {
            let (slots, former_slots) = (share.slots, share.former_slots);
            let part = PartView { name: service.name.clone(), slots, of: service.slots, former_slots };
            parts.entry(share.id).or_default().push(part);
        }
    }
    let in_use = observed.backends.iter().filter(|(_, backend)| backend.is_in_use());
    in_use.map(|(id, backend)| view(id, backend, parts.remove(&id).unwrap_or_default())).collect()
}

fn view(id: u32, backend: &Backend, parts: Vec<PartView>) -> BackendView {
    BackendView {
        id,
        address: backend.socket(),
        protocol: Protocol::of_number(backend.protocol).name(),
        state: if parts.iter().any(|part| services::takes_new(part.slots, part.of)) { "serving" } else { "lingering" },
        services: parts,
        delivery: if backend.is_direct() { "direct" } else { "stack" },
        interface: (backend.ifindex != 0).then(|| interface(backend.ifindex)),
        netns_id: (!backend.is_hidden()).then_some(backend.netns_id),
        takes_xdp: backend.takes_xdp(),
        generation: backend.generation,
    }
}

fn table(backends: &[BackendView], is_wide: bool) -> String {
    let mut columns = vec!["BACKEND", "PROTOCOL", "STATE", "DELIVERY", "LINK", "SOCKETS", "SERVICES"];
    if is_wide {
        columns.extend(["ID", "GENERATION", "NETNS", "XDP"]);
    }
    let mut table = Table::new(&columns);
    for backend in backends {
        let wide = if is_wide { wide(backend) } else { Vec::new() };
        table.add(row(backend).into_iter().chain(wide));
    }
    table.text()
}

fn row(backend: &BackendView) -> [String; 7] {
    [
        backend.address.to_string(),
        backend.protocol.into(),
        backend.state.into(),
        backend.delivery.into(),
        backend.interface.clone().unwrap_or_else(|| "none of its own".into()),
        if backend.netns_id.is_some() { "seen" } else { "hidden" }.into(),
        backend.services.iter().map(part).collect::<Vec<_>>().join(", "),
    ]
}

fn part(part: &PartView) -> String {
    match part.of {
        0 => format!("{} (all)", part.name),
        of => format!("{} ({}/{of})", part.name, part.slots),
    }
}

fn wide(backend: &BackendView) -> Vec<String> {
    vec![
        backend.id.to_string(),
        backend.generation.to_string(),
        backend.netns_id.map(|id| id.to_string()).unwrap_or_default(),
        if backend.takes_xdp { "yes" } else { "no" }.into(),
    ]
}
