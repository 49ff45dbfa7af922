//! The programs of this agent: tested, loaded, or refused. Nothing that serves is touched.

use std::panic::resume_unwind;
use std::path::Path;
use std::time::Instant;

use aya::Ebpf;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::agent::options::{Options, XdpChoice};
use crate::agent::report;
use crate::maps::carry::Carry;
use crate::maps::load;
use crate::maps::object::{self, Globals};
use crate::maps::pins::PinDirectory;
use crate::maps::wanted::{Refused, Wanted};
use crate::selftest::{self, passed::Passed};

/// The programs, and which one of XDP was refused that they do without.
pub type Loaded = Result<(Ebpf, Option<Refused>), Refused>;

/// Loads what is wanted. Where a program of XDP is refused, `--xdp auto` does without, as on a driver that takes none, unless an
/// XDP program serves already. Answers what was refused.
pub async fn load_or_do_without(
    pins: &PinDirectory,
    options: &Options,
    wanted: Wanted,
    carry: Option<&Carry>,
    node_netns: u64,
) -> Loaded {
    match load(pins, options, &wanted, carry, node_netns).await {
        Err(refused) if refused.is_of_xdp() && options.xdp == XdpChoice::Auto && !serves_by_xdp(pins, carry) => {
            let ebpf = load(pins, options, &wanted.without_xdp(), carry, node_netns).await?;
            Ok((ebpf, Some(refused)))
        }
        loaded => Ok((loaded?, None)),
    }
}

/// Whether an earlier agent left an XDP program at an uplink.
fn serves_by_xdp(pins: &PinDirectory, carry: Option<&Carry>) -> bool {
    let older = carry.map(|carry| carry.old().pinned_links()).unwrap_or_default();
    let found = Wanted::default().and_of_links(&[pins.pinned_links(), older].concat());
    found.hooks.iter().any(|hook| hook.is_xdp())
}

/// Loads every program that will be attached, once it has passed the self-test on this kernel: until all of them have, nothing
/// that serves is touched.
async fn load(
    pins: &PinDirectory,
    options: &Options,
    wanted: &Wanted,
    carry: Option<&Carry>,
    node_netns: u64,
) -> Result<Ebpf, Refused> {
    let begun = Instant::now();
    let globals = Globals { counted_services: options.sizes.counted_services, node_netns };
    let passed = Passed::here(Path::new(report::DIRECTORY), object::OBJECT, wanted, globals);
    if !passed.is_known() {
        let wanted = wanted.clone();
        aside(move || selftest::run(object::OBJECT, &wanted, globals)).await?;
        passed.note().unwrap_or_else(|error| warn!("{error:#}"));
    }
    let tested = begun.elapsed();
    carry.map_or_else(|| pins.make_version(), Carry::share).map_err(Refused::object)?;
    let mut ebpf = object::open(object::OBJECT, pins, &options.sizes, node_netns).map_err(Refused::object)?;
    carry.map_or(Ok(()), Carry::copy).map_err(Refused::object)?;
    let programs = wanted.programs();
    let ebpf = aside(move || load::load_programs(&mut ebpf, &programs).map(|()| ebpf)).await?;
    debug!("the programs have passed the self-test after {tested:?}, all are loaded after {:?}", begun.elapsed());
    Ok(ebpf)
}

/// Does on a thread of its own what takes the verifier long and changes nothing that is pinned: the source is read meanwhile.
/// All that is changed is changed by one thread, in one order.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => resume_unwind(error.into_panic()),
    }
}
