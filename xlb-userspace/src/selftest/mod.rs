//! Whether the programs of an object do what the path does, before they take anybody's place: a few golden packets go
//! through programs loaded over maps of their own, and through `xlb-common` in ordinary memory. What has to come out is
//! written nowhere, so that there is no second copy of the truth.
//!
//! Read in this order: this file, [`table`] (what the maps hold), [`packets`] (what is sent, where), [`xlb_common::memory::outcome`] (what a run
//! is compared by), [`xlb_common::memory::run`] and [`kernel`] (the two runners), [`passed`] (when there is no need).

pub mod table;
pub mod packets;
pub mod kernel;
pub mod passed;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use nix::ifaddrs::getifaddrs;
use xlb_common::memory::MemoryTables;

use self::packets::Step;
use crate::maps::load;
use crate::maps::object::{self, Globals};
use crate::maps::wanted::{Refused, Wanted};
use xlb_common::memory::outcome::Outcome;
use xlb_common::memory::run;

/// The interface that a test-run's packets come in by, in every network namespace.
const LOOPBACK: (&str, u32) = ("lo", 1);

/// Loads the wanted programs that see packets over maps that nobody else has, and compares what each makes of its golden
/// packets with what the path makes of them. Nothing that is pinned is touched.
///
/// # Errors
/// The first program that the kernel refuses, or that answers otherwise.
pub fn run(bytes: &[u8], wanted: &Wanted, globals: Globals) -> Result<(), Refused> {
    let mut object = object::open_private(bytes, globals).map_err(Refused::object)?;
    load::load_programs(&mut object, &wanted.of_packets())?;
    for &hook in &wanted.hooks {
        load::connect_hook(&mut object, hook).map_err(Refused::by(hook.program()))?;
    }
    let uplink_mac = loopback_mac().map_err(Refused::object)?;
    let tables = table::tables(uplink_mac);
    table::fill(&mut object, &tables).map_err(Refused::object)?;
    let counts = object.take_map("REASONS").context("the object has no map REASONS").map_err(Refused::object)?;
    let counts = PerCpuArray::try_from(counts).map_err(Refused::object)?;
    for step in packets::steps(wanted, uplink_mac) {
        check(&object, &counts, &tables, &step, uplink_mac).map_err(Refused::by(step.hook.program()))?;
    }
    Ok(())
}

/// One packet on both ways. The flows that it leaves behind are there for the next one, on both sides.
fn check(
    object: &Ebpf,
    counts: &PerCpuArray<MapData, u64>,
    tables: &MemoryTables,
    step: &Step,
    uplink_mac: [u8; 6],
) -> Result<()> {
    let expected = run::run(tables, step.hook, &step.frame, (LOOPBACK.1, uplink_mac));
    let before = kernel::counts(counts)?;
    let run = kernel::run(object, step.hook.program(), &step.frame)?;
    let (value, frame) = run.with_context(|| format!("the kernel makes no packet of the {}", step.name))?;
    let reason = kernel::counted(&before, &kernel::counts(counts)?)?;
    let found = Outcome { verdict: kernel::verdict(step.hook, value)?, reason, frame };
    ensure!(found == expected, "the self-test's {} came out as {found}, where {expected} was expected", step.name);
    Ok(())
}

/// A packet that is not sent to this MAC is another host's.
fn loopback_mac() -> Result<[u8; 6]> {
    let addresses = getifaddrs().context("reading the MAC of the loopback interface")?;
    let of_loopback = addresses.filter(|found| found.interface_name == LOOPBACK.0);
    let mac = of_loopback.filter_map(|found| found.address?.as_link_addr()?.addr()).next();
    mac.context("this network namespace has no loopback interface")
}
