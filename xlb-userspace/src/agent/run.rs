//! The agent's life: checks, start, the loop, the end.

use std::future::pending;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{error, info, warn};

use crate::agent::options::Options;
use crate::agent::outside::Outside;
use crate::agent::report::Report;
use crate::agent::sync::Agent;
use crate::maps::attach::Hooks;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
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
pub async fn run(options: Options) -> Result<()> {
    kernel::require_features()?;
    kernel::require_capabilities()?;
    let mut source = Source::open(&options.source, &options.node_name).await?;
    let (netlink, changes) = Netlink::open()?;
    for uplink in &options.uplinks {
        netlink.uplink(uplink).await.with_context(|| format!("looking for the uplink {uplink} (--uplink)"))?;
    }
    let pins = PinDirectory::new(&options.bpffs_dir);
    pins.prepare()?;
    let _lock = pins.lock()?;
    let is_fresh = !pins.holds_dataplane();
    let served = lead(&options, &pins, netlink, &mut source, changes).await;
    if served.is_err() && is_fresh {
        pins.remove()?;
    }
    served?;
    finish(&options, &pins)
}

/// From the first answer to whoever asks to the last. The answers end before the dataplane does: who sends traffic here
/// learns of it in time.
async fn lead(
    options: &Options,
    pins: &PinDirectory,
    netlink: Netlink,
    source: &mut Source,
    changes: Changes,
) -> Result<()> {
    let mut outside = Outside::open(options, pins, source)?;
    serve(start(options, pins, netlink).await?, source, changes, &mut outside).await
}

/// Loads the programs over the pinned maps, and follows the pods' sockets. The node's own address is known before any
/// program learns one.
async fn start(options: &Options, pins: &PinDirectory, netlink: Netlink) -> Result<Agent> {
    let cgroup = options.cgroup.clone().map_or_else(kernel::root_cgroup, Ok)?;
    let node_netns = own_netns_cookie()?;
    let mut ebpf = object::load(pins, &options.sizes, node_netns)?;
    if log::max_level() >= log::Level::Debug {
        follow_programs_log(&mut ebpf);
    }
    let (mut maps, snapshot) = (LiveMaps::open(pins)?, netlink.snapshot().await?);
    maps.put_settings(options.settings)?;
    maps.put_netns_addresses(node_netns, &snapshot.primary_addresses())?;
    let mut hooks = Hooks::new(ebpf, pins.clone());
    hooks.attach_cgroup(&cgroup, options.clients_inside.are_served())?;
    Agent::new(options.clone(), netlink, hooks, maps)
}

/// Lines that the programs log (at debug level only) become lines of this process.
fn follow_programs_log(ebpf: &mut aya::Ebpf) {
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
async fn serve(mut agent: Agent, source: &mut Source, mut changes: Changes, outside: &mut Outside) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut resync = interval(RESYNC_INTERVAL);
    resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_first, mut is_tick) = (true, true);
    loop {
        if changes.take_queued() || is_tick && agent.waits_for_node() {
            agent.hear();
        }
        match round(&mut agent, source, outside, is_tick).await {
            Ok(Round::Synced) if is_first => {
                is_first = false;
                agent.hooks.remove_unwanted();
            }
            Ok(Round::Synced | Round::Waiting) => {}
            Err(error) if is_first => return Err(error),
            Err(error) => error!("{error:#}; what is served stays, the next attempt is in {RESYNC_INTERVAL:?}"),
        }
        is_tick = false;
        tokio::select! {
            () = source.next_change() => {}
            Some(()) = changes.next() => agent.hear(),
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
        return Ok(Round::Waiting);
    }
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

fn finish(options: &Options, pins: &PinDirectory) -> Result<()> {
    if options.keep_dataplane {
        info!("stopped; programs and maps stay in {} and keep serving", pins.root().display());
        return Ok(());
    }
    pins.remove()?;
    Report::remove(&options.bpffs_dir);
    info!("stopped and detached");
    Ok(())
}
