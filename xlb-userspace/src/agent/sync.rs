//! One round: look at the node, decide, and do what is missing.
//!
//! Mostly it is about some Services ([`crate::agent::kept`]). A full round is about all of them: the first one, each one
//! while something is not done as asked for, and one every [`CHECK_INTERVAL`] that should find nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::{debug, info, warn};

use crate::agent::handover::Handovers;
use crate::agent::history::History;
use crate::agent::kept::{Decided, Kept, decide};
use crate::agent::linger;
use crate::agent::options::Options;
use crate::agent::report::{self, Report};
use crate::agent::strays::Strays;
use crate::agent::sweeper::Board;
use crate::agent::uplinks::ServedUplink;
use crate::agent::ways::{Told, Ways};
use crate::maps::attach::Hooks;
use crate::maps::live::LiveMaps;
use crate::maps::wanted::Refused;
use crate::model::{Event, Model, ObjectName, Setting};
use crate::node::{Location, Netlink, NodeView, Snapshot, own_netns_cookie};
use crate::plan::desired::{Delivery, Desired, Family, Refusal};
use crate::plan::{Observed, Op, Plan};

/// Shortest pause before what waits for room is planned again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Pause between two full rounds while nothing is wrong.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(300);

/// All that the agent knows and holds.
pub struct Agent {
    pub(super) options: Options,
    pub(super) netlink: Netlink,
    pub(super) hooks: Hooks,
    pub(super) maps: LiveMaps,
    pub(super) model: Model,
    pub(super) observed: Observed,
    /// What was decided, and is in the maps.
    pub(super) kept: Kept,
    /// The Services to decide for.
    pub(super) touched: BTreeSet<ObjectName>,
    pub(super) snapshot: Snapshot,
    /// This node, with the pods that were found.
    pub(super) view: NodeView,
    pub(super) uplinks: Vec<ServedUplink>,
    /// What is wrong with uplinks and pods' links.
    pub(super) missing: Vec<Refusal>,
    /// What became of uplinks and next hops.
    pub(super) ways: Ways,
    /// What the programs were told of that.
    pub(super) told: Told,
    pub(super) provoked: BTreeMap<IpAddr, Instant>,
    handovers: Handovers,
    strays: Strays,
    /// The cookie of this node's network namespace.
    pub(super) netns: u64,
    /// The families that the last round served.
    pub(super) families: BTreeSet<Family>,
    pub(super) report: Report,
    /// The report as it was written last.
    pub(super) written: Option<Report>,
    /// Why it could not be written the last time.
    pub(super) unwritten: Option<String>,
    /// What was counted in the last minute.
    pub(super) history: History,
    pub(super) started: Instant,
    /// When to plan for all again: for what waits for room, or as a handover ends.
    pub(super) retry_at: Option<Instant>,
    /// The kernel has told of a change of the node.
    is_heard: bool,
    /// When a full round did all that is asked for; none: the next round is full.
    checked_at: Option<Instant>,
    /// What services ask for that is not done, as the last full round found.
    pub(super) undone: Vec<Refusal>,
    /// What is done later.
    pub(super) waiting: Vec<Refusal>,
    /// Operations since the last line of the log, and when that was.
    pub(super) unlogged: (usize, Option<Instant>),
    /// Operations that a full round found, which rounds before it should have.
    pub(super) missed: u64,
    /// What is wrong with its configuration.
    pub(super) configuration: Vec<Refusal>,
    /// Why uplinks do without XDP, which was tried.
    pub(super) xdp_refused: Option<Refused>,
}

/// What a round was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// These Services; none: nothing was to be done.
    Part(BTreeSet<ObjectName>),
    /// All of them.
    Full,
}

impl Extent {
    /// Whether nothing was to be done.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Part(names) if names.is_empty())
    }
}

impl Agent {
    /// An agent over loaded hooks and opened maps; what the maps hold is where it begins.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn new(options: Options, netlink: Netlink, hooks: Hooks, maps: LiveMaps) -> Result<Self> {
        let observed = maps.observed()?;
        let report = Report {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            node_name: options.node_name.clone(),
            counted_services: options.sizes.counted_services,
            programs_version: report::programs_version(&options.bpffs_dir, hooks.refused().is_some()),
            ..Report::default()
        };
        let ways = match observed.generation {
            0 => Ways::default(),
            _ => Ways::inherit(&maps.ways(), &maps.gone_uplinks(), 0),
        };
        let (node_name, pods) = (options.node_name.clone(), linger::locations(&observed));
        Ok(Self {
            options,
            netlink,
            hooks,
            maps,
            model: Model::default(),
            observed,
            kept: Kept::default(),
            touched: BTreeSet::new(),
            snapshot: Snapshot::default(),
            view: NodeView { node_name, pods, ..NodeView::default() },
            uplinks: Vec::new(),
            missing: Vec::new(),
            ways,
            told: Told::default(),
            provoked: BTreeMap::new(),
            handovers: Handovers::default(),
            strays: Strays::default(),
            netns: own_netns_cookie()?,
            families: BTreeSet::new(),
            report,
            written: None,
            unwritten: None,
            history: History::default(),
            started: Instant::now(),
            retry_at: None,
            is_heard: true,
            checked_at: None,
            undone: Vec::new(),
            waiting: Vec::new(),
            unlogged: (0, None),
            missed: 0,
            configuration: Vec::new(),
            xdp_refused: None,
        })
    }

    /// Takes in news of the source.
    pub fn learn(&mut self, events: Vec<Event>, zone: Option<String>) {
        for event in events {
            self.model.take_in(event, &mut self.touched);
        }
        if zone != self.view.zone {
            self.view.zone = zone;
            self.checked_at = None;
        }
    }

    /// Takes in what sweeps found. Of a pod whose kernel does not know its connections, flow entries have to tell instead; and
    /// where those that live may be evicted, clients bring them back.
    pub fn learn_swept(&mut self, board: &Board) {
        if board.loses_connections() {
            self.is_heard |= !self.ways.relearns(self.now_ms());
            self.ways.crowd(self.now_ms());
        }
        for (address, ifindex) in board.hiding.values().flatten() {
            if let Some(Location::Link(link)) = self.view.pods.get_mut(address)
                && link.ifindex == *ifindex
                && !link.hides_sockets
            {
                info!(
                    "{address} has connections that the kernel of its namespace does not know: they follow their flow entries"
                );
                link.hides_sockets = true;
                self.checked_at = None;
            }
        }
    }

    /// Goes on with these options, as far as that goes without a restart: the next round is about everything.
    ///
    /// # Errors
    /// When the kernel refuses; then nothing has changed.
    pub fn take_over(&mut self, new: Options) -> Result<()> {
        let mut options = self.options.clone();
        options.take_over(new);
        self.maps.put_settings(options.settings)?;
        self.options = options;
        self.checked_at = None;
        Ok(())
    }

    /// Something of the node has changed, or should be looked at again.
    pub fn hear(&mut self) {
        self.is_heard = true;
    }

    /// Whether a look at the node may find what was not found before, though the kernel tells of nothing.
    pub fn waits_for_node(&self) -> bool {
        let is_to_tell = self.told.flags != self.ways.told(self.now_ms()).flags;
        !self.provoked.is_empty() || !self.missing.is_empty() || is_to_tell
    }

    /// Makes the maps equal to what is asked for. What fails is retried in the next round; what was served stays.
    ///
    /// # Errors
    /// When the node cannot be read, an uplink is missing, or the kernel refuses a write.
    pub async fn sync(&mut self, source_refusals: &[Refusal]) -> Result<Extent> {
        // Until this round is done, the next one is a full one.
        let checked_at = self.checked_at.take();
        let is_check_due = checked_at.is_some_and(|at| at.elapsed() >= CHECK_INTERVAL);
        let is_retry = self.retry_at.take_if(|at| *at <= Instant::now()).is_some();
        let mut is_full = checked_at.is_none() || is_retry;
        if self.is_heard || is_full || is_check_due {
            is_full |= self.look().await?;
            self.is_heard = false;
            match is_full || is_check_due {
                true => self.locate_all().await,
                false => self.locate_again().await,
            }
        }
        let part = if is_full { None } else { self.sync_part().await? };
        let extent = match part {
            Some((names, changes)) if !is_check_due || changes > 0 => {
                self.checked_at = checked_at;
                Extent::Part(names)
            }
            part => {
                if !is_full && !is_check_due {
                    self.locate_all().await;
                }
                self.sync_all(part.is_some())?;
                Extent::Full
            }
        };
        self.forget_pods();
        self.tell_in_sync(source_refusals);
        Ok(extent)
    }

    /// Decides and plans for the Services that were touched, and those tied to them. Answers which, and how many changes
    /// that were; none: it has to be done for all.
    async fn sync_part(&mut self) -> Result<Option<(BTreeSet<ObjectName>, usize)>> {
        let asked = (&self.options.policy, &self.model, self.options.node_name.as_str());
        let Some(names) = self.kept.part(&self.touched, asked) else { return Ok(None) };
        if names.is_empty() {
            return Ok(Some((names, 0)));
        }
        let pods = self.kept.pods_of(&names).collect();
        self.locate_new(pods).await;
        let (setting, inside) = (self.setting(), self.options.clients_inside);
        let Some(mut decided) = self.kept.decide_part(names.clone(), setting, &self.observed, inside) else {
            return Ok(None);
        };
        let unattached = self.attach_pods(&mut decided.desired);
        let end_ms = self.limit(&mut decided);
        let plan = decided.plan(&self.observed, self.maps.limits(), self.now_ms());
        if !unattached.is_empty() || !plan.is_complete() {
            return Ok(None);
        }
        self.carry_out(&plan)?;
        self.retry_at = self.retry_at.into_iter().chain(self.retry_after(end_ms)).min();
        let pods = decided.backends();
        self.waiting.retain(|waiting| !pods.contains(&waiting.object));
        self.waiting.extend(plan.waiting);
        self.keep(decided);
        self.touched = if plan.ops.is_empty() { BTreeSet::new() } else { self.kept.lingering(Some(&names)) };
        Ok(Some((names, plan.ops.len())))
    }

    /// Decides and plans for all Services. If it is only a check, there should be nothing to do.
    fn sync_all(&mut self, is_check: bool) -> Result<()> {
        let mut decided = decide(self.setting(), &self.observed, self.options.clients_inside);
        let unattached = self.attach_pods(&mut decided.desired);
        let end_ms = self.limit(&mut decided);
        let plan = decided.plan(&self.observed, self.maps.limits(), self.now_ms());
        if is_check && !plan.ops.is_empty() {
            self.missed += plan.ops.len() as u64;
            let (changes, first) = (plan.ops.len(), &plan.ops[0]);
            warn!("{changes} changes were missed, beginning with `{first}`: a mistake in xlb, please report it");
        }
        self.carry_out(&plan)?;
        self.handovers.forget_gone(&self.observed);
        self.strays.forget_gone(&decided.desired);
        self.detach_pods();
        self.keep(decided);
        self.touched = if plan.ops.is_empty() { BTreeSet::new() } else { self.kept.lingering(None) };
        let is_done = unattached.is_empty() && plan.is_complete();
        self.checked_at = is_done.then(Instant::now);
        self.retry_at = self.retry_after(plan.retry_at_ms.into_iter().chain(end_ms).min());
        self.undone = [unattached, plan.refusals].concat();
        self.waiting = plan.waiting;
        Ok(())
    }

    /// Ends what lasts a while: handovers, and expecting strays. Answers when the next of these services' ends.
    fn limit(&mut self, Decided { desired, losing, .. }: &mut Decided) -> Option<u64> {
        let now_ms = self.now_ms();
        let handover_end_ms = self.handovers.limit(desired, &self.observed, self.options.handover, now_ms);
        let strays_end_ms = self.strays.limit(desired, losing, &self.observed, now_ms);
        handover_end_ms.into_iter().chain(strays_end_ms).min()
    }

    fn retry_after(&self, at_ms: Option<u64>) -> Option<Instant> {
        at_ms.map(|at_ms| (self.started + Duration::from_millis(at_ms)).max(Instant::now() + RETRY_PAUSE))
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<()> {
        let now_ms = self.now_ms();
        for op in &plan.ops {
            debug!("{op}");
            self.maps.apply(op)?;
            self.observed.apply(op, now_ms);
        }
        self.unlogged.0 += plan.ops.len();
        if plan.ops.iter().any(|op| matches!(op, Op::PutBackend { .. })) {
            self.detach_pods();
        }
        Ok(())
    }

    fn keep(&mut self, decided: Decided) {
        let asked = (&self.options.policy, &self.model, self.options.node_name.as_str());
        self.kept.keep(decided, asked, &self.observed);
    }

    fn setting(&self) -> Setting<'_> {
        Setting { policy: &self.options.policy, model: &self.model, node: &self.view, choice: self.options.delivery }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// A backend becomes `direct` only after its link is attached; one that cannot be attached goes through the stack.
    /// Answers which.
    fn attach_pods(&mut self, desired: &mut Desired) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        let backends = desired.services.values_mut().flat_map(|service| service.backends.iter_mut());
        for (socket, backend) in backends {
            let Delivery::Direct(link) = &backend.delivery else { continue };
            if let Err(error) = self.hooks.attach_pod(&link.name, link.ifindex) {
                let why = format!("served through the stack, as its link cannot be attached: {error:#}");
                refusals.push(Refusal { object: format!("backend {socket}"), why });
                backend.delivery = Delivery::Stack(Some(link.clone()));
            }
        }
        refusals
    }

    fn detach_pods(&mut self) {
        let direct = self.observed.backends.values().filter(|backend| backend.is_in_use() && backend.is_direct());
        let ifindexes: BTreeSet<u32> = direct.map(|backend| backend.ifindex).collect();
        self.hooks.retain_pods(&ifindexes);
    }
}
