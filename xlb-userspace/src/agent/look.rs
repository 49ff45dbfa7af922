//! Looking at the node: its uplinks and addresses, and where its pods are. A look is taken when the kernel has told of a
//! change; what it does not tell of (the offloads of a pod's end) counts from the next full round on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::{debug, info};

use crate::agent::linger;
use crate::agent::sync::Agent;
use crate::agent::{uplinks, ways};
use crate::maps::attach::FrontDoor;
use crate::model::pods_of_interest;
use crate::node::{Location, complete_with_xdp};

/// Pause between two attempts to make a bridge learn a pod's port.
const PROVOKE_INTERVAL: Duration = Duration::from_secs(4);

impl Agent {
    /// Takes a new snapshot, and follows the uplinks, the pods' links and the node's addresses. Answers whether more may depend on what has
    /// changed than single pods.
    pub(super) async fn look(&mut self) -> Result<bool> {
        let names = self.options.uplinks.clone();
        let doors = self.doors();
        let kernel = (&mut self.hooks, &mut self.maps);
        self.snapshot = self.netlink.snapshot().await?;
        let node = (&self.netlink, &self.snapshot);
        self.missing = uplinks::serve(&names, self.options.xdp, &mut self.uplinks, node, kernel)?;
        self.tell_only_uplink()?;
        self.follow_ways()?;
        let unserved = self.follow_links();
        self.missing.extend(unserved);
        let (addresses, primary) = (self.snapshot.addresses(), self.snapshot.primary_addresses());
        self.maps.put_netns_addresses(self.netns, &primary)?;
        let differs = (&addresses, &primary) != (&self.view.addresses, &self.view.primary) || doors != self.doors();
        (self.view.addresses, self.view.primary) = (addresses, primary);
        Ok(differs)
    }

    /// Replies that no entry knows leave by the only uplink, if there is no other one.
    fn tell_only_uplink(&mut self) -> Result<()> {
        let only = if let [only] = &self.uplinks[..] { Some(only.uplink.ifindex) } else { None };
        self.maps.put_only_uplink(only)
    }

    /// Tells the programs what has become of uplinks and next hops.
    fn follow_ways(&mut self) -> Result<()> {
        let seen = self.uplinks.iter().map(|served| ways::see(&self.snapshot, served)).collect();
        self.ways.take_in(seen, self.now_ms());
        let told = self.ways.told(self.now_ms());
        if told != self.told {
            self.maps.put_ways(&told.ways, &told.flags)?;
            for (key, way) in told.ways.iter().filter(|(key, way)| self.told.ways.get(key) != Some(way)) {
                info!("{}", ways::sentence(key, way));
            }
            self.told = told;
        }
        Ok(())
    }

    /// Finds every pod that Services name, or that is a backend now, also what only the pods' own namespaces tell. Services
    /// with one that is not where it was are touched.
    pub(super) async fn locate_all(&mut self) {
        let mut wanted = pods_of_interest(&self.options.policy, &self.model, &self.options.node_name);
        wanted.extend(linger::addresses(&self.observed));
        let before = std::mem::take(&mut self.view.pods);
        let mut pods = BTreeMap::new();
        for address in wanted {
            pods.insert(address, self.locate(address, before.get(&address)).await);
        }
        self.find_xdp_pods(&mut pods);
        for (address, _) in before.iter().filter(|(address, was)| pods.get(address) != Some(was)) {
            self.touched.extend(self.kept.ties().with_pod(address).cloned());
        }
        self.view.pods = pods;
        self.provoked.retain(|address, _| self.view.pods.contains_key(address));
    }

    /// Finds the known pods again; Services with one that is not where it was are touched.
    pub(super) async fn locate_again(&mut self) {
        let before = std::mem::take(&mut self.view.pods);
        let mut moved = BTreeMap::new();
        for (&address, was) in &before {
            let now = self.locate(address, Some(was)).await;
            if now != *was {
                moved.insert(address, now);
            }
        }
        self.view.pods = before;
        self.find_xdp_pods(&mut moved);
        for (address, now) in moved {
            let was = self.view.pods.insert(address, now);
            if was.as_ref() != self.view.pods.get(&address) {
                self.touched.extend(self.kept.ties().with_pod(&address).cloned());
            }
        }
    }

    /// Finds the pods among these that are not known yet.
    pub(super) async fn locate_new(&mut self, addresses: Vec<IpAddr>) {
        let mut new = BTreeMap::new();
        for address in addresses {
            if !self.view.pods.contains_key(&address) && !new.contains_key(&address) {
                new.insert(address, self.locate(address, None).await);
            }
        }
        self.find_xdp_pods(&mut new);
        self.view.pods.append(&mut new);
    }

    /// Forgets the pods that nobody names any more.
    pub(super) fn forget_pods(&mut self) {
        let ties = self.kept.ties();
        self.view.pods.retain(|address, _| ties.has_pod(address));
        self.provoked.retain(|address, _| self.view.pods.contains_key(address));
    }

    async fn locate(&mut self, address: IpAddr, previous: Option<&Location>) -> Location {
        let location = match previous {
            Some(previous) => self.snapshot.locate_again(address, previous),
            None => self.snapshot.locate(address),
        };
        match is_wanting(&location, self.snapshot.is_unlearned(address), self.uses_xdp()) {
            true => self.provoke(address).await,
            false => drop(self.provoked.remove(&address)),
        }
        let is_generic = self.uplinks.iter().any(|uplink| uplink.door == FrontDoor::XdpGeneric);
        let location = self.beyond_uplinks(location);
        if is_generic { with_mac(location) } else { location }
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
    fn find_xdp_pods(&self, pods: &mut BTreeMap<IpAddr, Location>) {
        if pods.is_empty() {
            return;
        }
        if self.uplinks.iter().any(|uplink| uplink.door == FrontDoor::XdpNative) {
            complete_with_xdp(&self.snapshot, pods);
        } else if self.uplinks.iter().any(|uplink| uplink.door == FrontDoor::XdpGeneric) {
            for location in pods.values_mut() {
                if let Location::Link(link) = location {
                    link.takes_xdp_frames = link.is_veth;
                }
            }
        }
    }

    fn doors(&self) -> Vec<(u32, FrontDoor)> {
        self.uplinks.iter().map(|served| (served.uplink.ifindex, served.door)).collect()
    }
}

/// Whether the kernel should be made to ask for the pod: behind which port of a bridge it is, or, for XDP, its MAC.
fn is_wanting(location: &Location, is_unlearned: bool, uses_xdp: bool) -> bool {
    match location {
        Location::Link(link) => uses_xdp && link.pod_mac.is_none(),
        _ => is_unlearned,
    }
}

/// Generic XDP has nobody behind it that could hand a packet to a pod whose MAC is not known: until it is, the pod is none.
fn with_mac(location: Location) -> Location {
    match location {
        Location::Link(link) if link.is_veth && link.pod_mac.is_none() => {
            Location::Unreachable(format!("its MAC is not known yet, the node is asking for it by {}", link.name))
        }
        location => location,
    }
}
