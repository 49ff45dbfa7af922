//! The agent's life: checks, start, the loop, the end.

use std::future::pending;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aya::Ebpf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{error, info, warn};

use crate::agent::loading;
use crate::agent::memory;
use crate::agent::options::{Options, XdpChoice};
use crate::agent::outside::Outside;
use crate::agent::pod_ips;
use crate::agent::reload::{Configuration, Reading};
use crate::agent::report::{self, Report};
use crate::agent::sync::Agent;
use crate::agent::uplinks;
use crate::events::Notice;
use crate::maps::attach::Hooks;
use crate::maps::carry::Carry;
use crate::maps::live::LiveMaps;
use crate::maps::pins::{Found, PinDirectory};
use crate::maps::programs::Programs;
use crate::maps::wanted::Refused;
use crate::maps::{kernel, object};
use crate::model::Event;
use crate::node::{Changes, Netlink, own_netns_cookie};
use crate::source::Source;

/// A round without any event: for what failed, and for what nobody tells of.
const RESYNC_INTERVAL: Duration = Duration::from_secs(5);

/// How often the programs' log is looked at.
const LOG_INTERVAL: Duration = Duration::from_millis(200);

/// Runs the agent until it is told to stop (SIGTERM or SIGINT).
///
/// # Errors
/// When it cannot start. Nothing is attached or changed then, and what an earlier agent left keeps serving.
pub async fn run(reading: Reading, mut configuration: Configuration) -> Result<()> {
    configuration.watch()?;
    let options = reading.options.clone();
    kernel::require_features()?;
    kernel::require_capabilities()?;
    memory::require(&options.sizes)?;
    let mut source = Source::open(&options.source, &options.node_name).await?;
    let (netlink, changes) = Netlink::open()?;
    let mut drivers = Vec::new();
    for uplink in &options.uplinks {
        let found = netlink.uplink(uplink).await;
        drivers.push(found.with_context(|| format!("looking for the uplink {uplink} (--uplink)"))?.driver);
    }
    let pins = PinDirectory::new(&options.bpffs_dir);
    pins.make_root()?;
    let _lock = pins.lock()?;
    Report::end_last(&options.bpffs_dir);
    let found = pins.found()?;
    let node = Node { netlink, drivers, found };
    let told = (reading, &mut configuration);
    let served = lead(told, &pins, node, &mut source, changes).await;
    if served.is_err() {
        take_back(&pins, found)?;
    }
    finish(&options, &pins, served?)
}

/// What is known of the node before anything is loaded.
struct Node {
    netlink: Netlink,
    /// Of the uplinks.
    drivers: Vec<String>,
    /// The dataplanes that are there.
    found: Found,
}

/// A start that failed leaves what it found, and nothing of its own.
fn take_back(pins: &PinDirectory, found: Found) -> Result<()> {
    match found {
        _ if found.is_nothing() => pins.remove(),
        Found { own: false, .. } if pins.pinned_links().is_empty() => pins.remove_version(),
        _ => Ok(()),
    }
}

/// Whose programs serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    /// Its own; and whether they are to go on without it.
    Own {
        is_kept: bool,
    },
    Kept,
}

/// From the first answer to whoever asks to the last. The answers end before the dataplane does: who sends traffic here
/// learns of it in time.
async fn lead(
    (reading, configuration): (Reading, &mut Configuration),
    pins: &PinDirectory,
    node: Node,
    source: &mut Source,
    changes: Changes,
) -> Result<Serving> {
    let options = &reading.options;
    let mut outside = Outside::open(options, pins, source)?;
    let carries = node.found.older.is_some();
    let mut agent = match start(options, pins, node).await {
        Err(error) if carries => return stand_by(options, pins, &mut outside, error).await,
        started => started?,
    };
    agent.report.settings = reading.settings;
    agent.report.config_file = reading.file.map(|file| file.display().to_string());
    if let Some(refused) = agent.hooks.refused() {
        outside.refuse(refused);
    }
    serve(&mut agent, source, changes, &mut outside, configuration).await?;
    Ok(match agent.hooks.refused() {
        Some(_) => Serving::Kept,
        None => Serving::Own { is_kept: agent.options.keep_dataplane },
    })
}

/// An older dataplane serves, with maps that this agent cannot write, and this agent's programs are refused: it waits to be
/// replaced, and says so to whoever asks. Every other error ends it.
async fn stand_by(
    options: &Options,
    pins: &PinDirectory,
    outside: &mut Outside,
    error: anyhow::Error,
) -> Result<Serving> {
    let Some(refused) = error.downcast_ref::<Refused>() else { return Err(error) };
    let older = pins.found()?.older.unwrap_or_default();
    let refusal = refused.refusal_beside(older);
    error!("{}: {}", refusal.object, refusal.why);
    outside.refuse(refused);
    outside.post(Notice::refused(&options.node_name, &refusal));
    let report = Report {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        programs_version: report::programs_version(&options.bpffs_dir, true),
        node_name: options.node_name.clone(),
        refusals: vec![refusal],
        ..Report::default()
    };
    report.write(&options.bpffs_dir).unwrap_or_else(|error| warn!("{error:#}"));
    outside.show(&report);
    take_back(pins, Found { own: false, older: Some(older) })?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(Serving::Kept)
}

/// Loads the programs over the pinned maps, and follows the pods' sockets. The node's own address is known before any
/// program learns one.
async fn start(options: &Options, pins: &PinDirectory, node: Node) -> Result<Agent> {
    let cgroup = options.cgroup.clone().map_or_else(kernel::root_cgroup, Ok)?;
    let node_netns = own_netns_cookie()?;
    object::check_pinned(pins, &options.sizes)?;
    let carry = node.found.older.map(|version| Carry::plan(pins.of_version(version), pins, &options.sizes.maps()));
    let carry = carry.transpose()?;
    let mut wanted = uplinks::wanted(options.xdp, &node.drivers, options.clients_inside.are_served());
    if let Some(carry) = &carry {
        wanted = wanted.and_of_links(&carry.old().pinned_links());
    }
    let loaded = loading::load_or_do_without(pins, options, wanted, carry.as_ref(), node_netns).await;
    let (mut programs, xdp_refused) = match loaded {
        Ok((ebpf, xdp_refused)) => (Programs::own(ebpf, pins)?, xdp_refused),
        Err(refused) if carry.is_some() || !node.found.own => return Err(refused.into()),
        Err(refused) => (Programs::kept(pins, refused), None),
    };
    if log::max_level() >= log::Level::Debug
        && let Some(ebpf) = programs.object()
    {
        follow_programs_log(ebpf);
    }
    let netlink = node.netlink;
    let (mut maps, snapshot) = (LiveMaps::open(pins)?, netlink.snapshot().await?);
    let primary = snapshot.primary_addresses();
    pod_ips::require_node_inside(&options.cluster_networks, &primary)?;
    maps.put_netns_addresses(node_netns, &primary)?;
    let mut hooks = Hooks::new(programs, pins.clone());
    if let Some(carry) = carry {
        hooks.take_over(&carry)?;
        carry.finish()?;
    }
    maps.take_over()?;
    // Not earlier: what the older dataplane was told is copied until it is gone.
    maps.put_cluster_networks(&options.cluster_networks)?;
    maps.put_settings(options.settings)?;
    hooks.attach_cgroup(&cgroup, options.clients_inside.are_served())?;
    let xdp = if xdp_refused.is_some() { XdpChoice::Off } else { options.xdp };
    let mut agent = Agent::new(Options { xdp, ..options.clone() }, netlink, hooks, maps)?;
    agent.xdp_refused = xdp_refused;
    Ok(agent)
}

/// Lines that the programs log (at debug level only) become lines of this process.
fn follow_programs_log(ebpf: &mut Ebpf) {
    match aya_log::EbpfLogger::init(ebpf) {
        Ok(mut logger) => drop(tokio::spawn(async move {
            let mut tick = interval(LOG_INTERVAL);
            loop {
                tick.tick().await;
                logger.flush();
            }
        })),
        Err(error) => warn!("the programs' log cannot be followed: {error}"),
    }
}

/// The loop: any event leads to a round. Only the first round may fail: it shows that this agent cannot serve.
async fn serve(
    agent: &mut Agent,
    source: &mut Source,
    mut changes: Changes,
    outside: &mut Outside,
    configuration: &mut Configuration,
) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut resync = interval(RESYNC_INTERVAL);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_first, mut is_tick) = (true, true);
    loop {
        if changes.take_queued() || is_tick && agent.waits_for_node() {
            agent.hear();
        }
        match round(agent, source, outside, is_tick).await {
            Ok(Round::Synced) if is_first => {
                is_first = false;
                agent.hooks.remove_unwanted();
                object::give_back_memory();
            }
            Ok(Round::Synced | Round::Waiting) => {}
            Err(error) if is_first => return Err(error),
            Err(error) => error!("{error:#}; what is served stays, the next attempt is in {RESYNC_INTERVAL:?}"),
        }
        if is_tick {
            agent.hooks.end_left_watches();
        }
        is_tick = false;
        tokio::select! {
            () = source.next_change() => {}
            Some(()) = changes.next() => agent.hear(),
            () = configuration.asked() => configuration.look(agent, outside),
            _ = resync.tick() => is_tick = true,
            () = until(agent.retry_at) => {}
            () = until(outside.count_at()) => {}
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

/// How a round went.
enum Round {
    /// The maps hold what is asked for.
    Synced,
    /// The source has not told of everything yet, and nothing was changed.
    Waiting,
}

async fn round(agent: &mut Agent, source: &mut Source, outside: &mut Outside, is_tick: bool) -> Result<Round> {
    let mut news = source.take(&agent.model);
    let is_synced = agent.model.is_synced() || news.events.contains(&Event::Synced);
    outside.begin(&news, is_synced);
    agent.learn(std::mem::take(&mut news.events), news.zone);
    if !agent.model.is_synced() {
        agent.wait(news.refusals, news.waiting);
        outside.show(&agent.report);
        return Ok(Round::Waiting);
    }
    agent.learn_swept(&outside.swept());
    let begun = Instant::now();
    let refusals = [news.refusals, outside.refusals()].concat();
    let extent = agent.sync(&refusals).await.inspect_err(|_| outside.failed())?;
    outside.complete(agent, source, &extent, is_tick, begun.elapsed());
    Ok(Round::Synced)
}

/// Waits for that moment, for ever if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// An agent whose programs were refused leaves what it found: it is about to be replaced.
fn finish(options: &Options, pins: &PinDirectory, serving: Serving) -> Result<()> {
    if serving == Serving::Kept {
        info!("stopped; the programs of before and their maps stay in {} and keep serving", pins.root().display());
        return Ok(());
    }
    if let Serving::Own { is_kept: true } = serving {
        info!("stopped; programs and maps stay in {} and keep serving", pins.root().display());
        return Ok(());
    }
    pins.remove()?;
    Report::remove(&options.bpffs_dir);
    info!("stopped and detached");
    Ok(())
}
