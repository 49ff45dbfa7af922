//! One round: look at the node, decide, and do what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::{debug, info, warn};

use crate::agent::handover::Handovers;
use crate::agent::linger;
use crate::agent::options::Options;
use crate::agent::report::{Report, now_s};
use crate::agent::uplinks::{self, ServedUplink};
use crate::maps::attach::{FrontDoor, Hooks};
use crate::maps::live::LiveMaps;
use crate::model::{Model, desired, pods_of_interest};
use crate::node::{FamilyAddresses, Location, Netlink, NodeView, Snapshot, complete_with_xdp, own_netns_cookie};
use crate::plan::desired::{Delivery, Desired, Family, Refusal};
use crate::plan::{Observed, plan};

/// Pause between two attempts to make a bridge learn a pod's port.
const PROVOKE_INTERVAL: Duration = Duration::from_secs(4);

/// Shortest pause before what waits for room is planned again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// All that the agent knows and holds.
pub struct Agent {
    pub(super) options: Options,
    pub(super) netlink: Netlink,
    pub(super) hooks: Hooks,
    pub(super) maps: LiveMaps,
    pub(super) model: Model,
    /// The zone that this node's Node object names.
    pub(super) zone: Option<String>,
    pub(super) observed: Observed,
    /// The families that the last round served.
    families: BTreeSet<Family>,
    uplinks: Vec<ServedUplink>,
    pods: BTreeMap<IpAddr, Location>,
    provoked: BTreeMap<IpAddr, Instant>,
    handovers: Handovers,
    report: Report,
    started: Instant,
    /// The cookie of this node's network namespace.
    netns: u64,
    /// When to plan again: for what waits for room, or as a handover ends.
    pub(super) retry_at: Option<Instant>,
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
            ..Report::default()
        };
        Ok(Self {
            options,
            netlink,
            hooks,
            maps,
            model: Model::default(),
            zone: None,
            uplinks: Vec::new(),
            pods: linger::locations(&observed),
            observed,
            families: BTreeSet::new(),
            provoked: BTreeMap::new(),
            handovers: Handovers::default(),
            report,
            started: Instant::now(),
            netns: own_netns_cookie()?,
            retry_at: None,
        })
    }

    /// Makes the maps equal to what is asked for. What fails is retried in the next round; what was served stays.
    ///
    /// # Errors
    /// When the node cannot be read, an uplink is missing, or the kernel refuses a write.
    pub async fn sync(&mut self, source_refusals: &[Refusal]) -> Result<()> {
        let names = self.options.uplinks.clone();
        let kernel = (&mut self.hooks, &mut self.maps);
        let snapshot = self.netlink.snapshot().await?;
        let node = (&self.netlink, &snapshot);
        let missing = uplinks::serve(&names, self.options.xdp, &mut self.uplinks, node, kernel)?;
        self.maps.put_netns_addresses(self.netns, &snapshot.primary_addresses())?;
        self.locate_pods(&snapshot).await;
        let mut desired = self.desired(&snapshot);
        self.families = served_families(&snapshot, &desired);
        self.attach_pods(&mut desired);
        let now_ms = self.started.elapsed().as_millis() as u64;
        let handover_end_ms = self.handovers.limit(&mut desired, &self.observed, self.options.handover, now_ms);
        let plan = plan(&desired, &self.observed, self.maps.limits(), now_ms);
        for op in &plan.ops {
            debug!("{op}");
            self.maps.apply(op)?;
            self.observed.apply(op, now_ms);
        }
        self.detach_pods();
        if !plan.ops.is_empty() {
            let backends = self.observed.backends.values().filter(|backend| backend.is_in_use()).count();
            info!("in sync: {} services, {backends} backends, {} changes", desired.services.len(), plan.ops.len());
        }
        let retry_at_ms = plan.retry_at_ms.into_iter().chain(handover_end_ms).min();
        let retry_at = retry_at_ms.map(|at_ms| self.started + Duration::from_millis(at_ms));
        self.retry_at = retry_at.map(|at| at.max(Instant::now() + RETRY_PAUSE));
        let refusals = [&missing, source_refusals, &desired.refusals, &plan.refusals].concat();
        self.report.in_sync_at_s = now_s();
        self.tell(refusals, plan.waiting);
        Ok(())
    }

    /// Tells what is waited for before anything is changed.
    pub fn wait(&mut self, refusals: Vec<Refusal>, waiting: Vec<Refusal>) {
        self.tell(refusals, waiting);
    }

    /// The families that the last round served.
    #[must_use]
    pub fn families(&self) -> &BTreeSet<Family> {
        &self.families
    }

    /// What is asked for and not done, after the last round.
    #[must_use]
    pub fn refusals(&self) -> &[Refusal] {
        &self.report.refusals
    }

    /// Tells of what came up, or was settled, after the maps were in sync.
    pub fn replace_refusals(&mut self, before: &[Refusal], now: Vec<Refusal>) {
        if before != now {
            let others = self.report.refusals.iter().filter(|refusal| !before.contains(refusal)).cloned();
            self.tell(others.chain(now).collect(), self.report.waiting.clone());
        }
    }

    async fn locate_pods(&mut self, snapshot: &Snapshot) {
        let mut wanted = pods_of_interest(&self.options.policy, &self.model, &self.options.node_name);
        wanted.extend(linger::addresses(&self.observed));
        let before = std::mem::take(&mut self.pods);
        for address in wanted {
            let location = match before.get(&address) {
                Some(previous) => snapshot.locate_again(address, previous),
                None => snapshot.locate(address),
            };
            if is_wanting(&location, snapshot.is_unlearned(address), self.uses_xdp()) {
                self.provoke(address).await;
            }
            self.pods.insert(address, self.beyond_uplinks(location));
        }
        self.provoked.retain(|address, _| self.pods.contains_key(address));
        self.find_xdp_pods(snapshot);
    }

    /// What lies behind an uplink is no pod of this node, also where the uplink's network looks like a pod's link.
    fn beyond_uplinks(&self, location: Location) -> Location {
        match location {
            Location::Link(link) if self.uplinks.iter().any(|served| served.uplink.ifindex == link.ifindex) => {
                Location::Unreachable(format!("it is in the network of the uplink {}", link.name))
            }
            other => other,
        }
    }

    fn uses_xdp(&self) -> bool {
        self.uplinks.iter().any(|uplink| uplink.door != FrontDoor::Tc)
    }

    async fn provoke(&mut self, address: IpAddr) {
        let is_due = self.provoked.get(&address).is_none_or(|last| last.elapsed() >= PROVOKE_INTERVAL);
        if is_due {
            self.provoked.insert(address, Instant::now());
            if let Err(error) = self.netlink.provoke(address).await {
                debug!("asking for the port of {address}: {error:#}");
            }
        }
    }

    /// Which pods take frames from XDP: in native mode the pod's end decides, in generic mode every veth does.
    fn find_xdp_pods(&mut self, snapshot: &Snapshot) {
        if self.uplinks.iter().any(|uplink| uplink.door == FrontDoor::XdpNative) {
            complete_with_xdp(snapshot, &mut self.pods);
        } else if self.uplinks.iter().any(|uplink| uplink.door == FrontDoor::XdpGeneric) {
            for location in self.pods.values_mut() {
                if let Location::Link(link) = location {
                    link.takes_xdp_frames = link.is_veth;
                }
            }
        }
    }

    fn desired(&self, snapshot: &Snapshot) -> Desired {
        let view = NodeView {
            node_name: self.options.node_name.clone(),
            zone: self.zone.clone(),
            addresses: snapshot.addresses(),
            primary: snapshot.primary_addresses(),
            pods: self.pods.clone(),
        };
        let mut desired = desired(&self.options.policy, &self.model, &view, self.options.delivery);
        linger::keep_living(&mut desired, &self.observed, &self.pods);
        if !self.options.clients_inside {
            desired.services.values_mut().for_each(|service| service.inside = None);
        }
        desired
    }

    /// A backend becomes `direct` only after its link is attached; one that cannot be attached goes through the stack.
    fn attach_pods(&mut self, desired: &mut Desired) {
        let backends = desired.services.values_mut().flat_map(|service| service.backends.iter_mut());
        for (socket, backend) in backends {
            let Delivery::Direct(link) = &backend.delivery else { continue };
            if let Err(error) = self.hooks.attach_pod(&link.name, link.ifindex) {
                let why = format!("served through the stack, as its link cannot be attached: {error:#}");
                desired.refusals.push(Refusal { object: format!("backend {socket}"), why });
                backend.delivery = Delivery::Stack(Some(link.clone()));
            }
        }
    }

    fn detach_pods(&mut self) {
        let direct = self.observed.backends.values().filter(|backend| backend.is_in_use() && backend.is_direct());
        let ifindexes: BTreeSet<u32> = direct.map(|backend| backend.ifindex).collect();
        self.hooks.retain_pods(&ifindexes);
    }

    /// Logs what is new, and leaves all of it for the command line.
    fn tell(&mut self, refusals: Vec<Refusal>, waiting: Vec<Refusal>) {
        for refusal in refusals.iter().filter(|refusal| !self.report.refusals.contains(refusal)) {
            warn!("{}: {}", refusal.object, refusal.why);
        }
        for later in waiting.iter().filter(|later| !self.report.waiting.contains(later)) {
            info!("{}: {}", later.object, later.why);
        }
        let uplinks = self.uplinks.iter();
        self.report.uplinks =
            uplinks.map(|served| format!("{} ({}): {}", served.name, served.uplink.driver, served.door)).collect();
        (self.report.refusals, self.report.waiting) = (refusals, waiting);
        if let Err(error) = self.report.write(&self.options.bpffs_dir) {
            warn!("{error:#}");
        }
    }
}

/// The families that this node has an address of, or a Service: a node with neither serves both, as far as it goes.
fn served_families(snapshot: &Snapshot, desired: &Desired) -> BTreeSet<Family> {
    let FamilyAddresses { v4, v6 } = snapshot.primary_addresses();
    let own = [v4.map(|_| Family::V4), v6.map(|_| Family::V6)].into_iter().flatten();
    let served: BTreeSet<Family> = own.chain(desired.services.keys().map(|name| name.family)).collect();
    if served.is_empty() { Family::ALL.into() } else { served }
}

/// Whether the kernel should be made to ask for the pod: behind which port of a bridge it is, or, for XDP, its MAC.
fn is_wanting(location: &Location, is_unlearned: bool, uses_xdp: bool) -> bool {
    match location {
        Location::Link(link) => uses_xdp && link.pod_mac.is_none(),
        _ => is_unlearned,
    }
}
