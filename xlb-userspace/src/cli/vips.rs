//! VIPs: the addresses of services, and what becomes of packets to them that no service wants.

use std::net::IpAddr;

use anyhow::Result;
use serde::Serialize;
use xlb_common::abi::{Settings, vip_flags};

use super::table::Table;
use crate::maps::live::LiveMaps;
use crate::plan::Observed;

/// A VIP.
#[derive(Clone, Debug, Serialize)]
pub struct VipView {
    /// Its address.
    pub address: IpAddr,
    /// Whether a service of it has a backend on this node that takes new connections.
    pub is_usable: bool,
    /// Whether it answers echo requests.
    pub answers_echo: bool,
    /// What becomes of packets to its ports that no service has: `pass`, `drop` or `reject`.
    pub unowned: &'static str,
}

/// All of them.
///
/// # Errors
/// When the kernel refuses to read.
pub fn read(maps: &LiveMaps, observed: &Observed) -> Result<Vec<VipView>> {
    let settings = maps.config()?.settings;
    Ok(observed.vips.iter().map(|(&address, &flags)| view(address, flags, settings)).collect())
}

fn view(address: IpAddr, flags: u32, settings: Settings) -> VipView {
    let is_usable = flags & vip_flags::USABLE != 0;
    let answers_echo = is_usable && settings.answers_echo();
    VipView { address, is_usable, answers_echo, unowned: unowned(settings) }
}

/// What becomes of packets to ports of VIPs that no service has.
#[must_use]
pub const fn unowned(settings: Settings) -> &'static str {
    match (settings.stops_unowned(), settings.rejects_unowned()) {
        (_, true) => "reject",
        (true, false) => "drop",
        _ => "pass",
    }
}

/// A row for each.
#[must_use]
pub fn table(vips: &[VipView]) -> String {
    let mut table = Table::new(&["VIP", "USABLE", "PING", "OTHER-PORTS"]);
    for vip in vips {
        let ping = match (vip.is_usable, vip.answers_echo) {
            (_, true) => "answered",
            (true, false) => "not answered (--vip-echo off)",
            (false, false) => "not answered: no usable pod on this node",
        };
        let usable = if vip.is_usable { "yes" } else { "no" };
        table.add([vip.address.to_string(), usable.into(), ping.into(), vip.unowned.into()]);
    }
    table.text()
}
