//! `xlb detach` and `xlb cleanup`: handing back to kube-proxy, with or without the flows that there are.

use anyhow::{Result, ensure};
use xlb_common::abi::Settings;
use xlb_common::tables::FlowTable;

use crate::agent::linger::let_go;
use crate::agent::report::Report;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::plan::plan;

/// Leaves what begins from now on to the host's stack, and keeps the flows that go through xlb: until they end, its programs
/// serve those alone. Can be said again, and says how many are left.
///
/// # Errors
/// When there is no dataplane, an agent has it, or the kernel refuses.
pub fn keep_flows(pins: &PinDirectory) -> Result<()> {
    ensure!(
        pins.root().exists(),
        "there is no dataplane at {}: has an agent run with --keep-dataplane?",
        pins.root().display()
    );
    let _lock = pins.lock()?;
    let mut maps = LiveMaps::open(pins)?;
    let observed = maps.observed()?;
    let plan = plan(&let_go(&observed), &observed, maps.limits(), 0);
    ensure!(plan.is_complete(), "not everything can be handed back: {:?}", [plan.refusals, plan.waiting].concat());
    // Pings and unowned ports are the host's again.
    maps.put_settings(Settings::NONE)?;
    plan.ops.iter().try_for_each(|op| maps.apply(op))?;
    let left = flows(&maps);
    println!(
        "new connections are left to the host's stack; {left} flows go on through xlb until they end (`xlb cleanup` ends them, \
         `xlb run` takes over again)"
    );
    Ok(())
}

/// Ends everything, and says how many flows end with it.
///
/// # Errors
/// As for [`cleanup`].
pub fn at_once(pins: &PinDirectory) -> Result<()> {
    if pins.holds_dataplane() {
        println!("{} flows end", flows(&LiveMaps::open(pins)?));
    }
    cleanup(pins)
}

/// Detaches everything, and removes all maps.
///
/// # Errors
/// When an agent has them, or a pin cannot be removed.
pub fn cleanup(pins: &PinDirectory) -> Result<()> {
    let is_there = pins.root().exists();
    if is_there {
        let _lock = pins.lock()?;
        pins.remove()?;
    }
    Report::remove(pins.root());
    println!("{} {}", if is_there { "removed" } else { "nothing at" }, pins.root().display());
    Ok(())
}

/// Flows that are not known to have ended.
fn flows(maps: &LiveMaps) -> usize {
    let tables = [FlowTable::Tcp, FlowTable::Udp, FlowTable::Sctp];
    tables.into_iter().flat_map(|table| maps.flows(table)).filter(|flow| !flow.entry.is_closed()).count()
}
