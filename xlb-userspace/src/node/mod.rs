//! What this node looks like: pods, links, addresses. Values here; netlink in the files below.
//!
//! Read in this order: [`snapshot`] (the node at one moment), [`locate`] (where a pod is in it), [`addresses`] (the node's
//! own), [`netns`] (its namespace), [`parse`] (netlink messages become a snapshot), [`netlink`] (asking and following the kernel), [`pod_end`] (what
//! only the pod's own namespace can tell), [`netfilter`] (what others told it), [`xdp`] (what drivers can do).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub mod snapshot;
pub mod locate;
pub mod addresses;
pub mod parse;
pub mod netlink;
pub mod pod_end;
pub mod netns;
pub mod netfilter;
pub mod xdp;
mod ask;
mod ethtool;
mod legacy_tables;

pub use addresses::{FamilyAddresses, NodeAddress};
pub use netlink::{Changes, Netlink, Uplink};
pub use netns::own_netns_cookie;
pub use pod_end::{complete_with_xdp, takes_xdp_frames};
pub use snapshot::{Link, Route, RouteKind, Snapshot};

use crate::plan::desired::Family;

/// The host's end of a pod's link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodLink {
    /// Index of the host's end (for a bridged pod: the bridge port).
    pub ifindex: u32,
    /// Its name, for messages.
    pub name: String,
    /// Whether it is a veth: only then can packets be handed to the pod directly.
    pub is_veth: bool,
    /// The pod's network namespace id as this node sees it (IFLA_LINK_NETNSID); none: the pod's sockets cannot be
    /// asked.
    pub netns_id: Option<i32>,
    /// Whether the pod has connections that its namespace's kernel does not know: in a sandbox with a kernel of its own, or
    /// behind a proxy in the pod that takes them from another port.
    pub hides_sockets: bool,
    /// MAC of the host's end.
    pub host_mac: [u8; 6],
    /// MAC of the pod's end, where the neighbour table knows it.
    pub pod_mac: Option<[u8; 6]>,
    /// Whether the pod's end takes frames redirected by native XDP (its GRO is on, or it runs an XDP program).
    pub takes_xdp_frames: bool,
    /// Whether packets get through to the pod.
    pub state: LinkState,
}

/// Whether a link that is there gets packets to its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// Both of its ends are up, and the node leads the pod's address to it.
    #[default]
    Carries,
    /// The host's end is down.
    Down,
    /// The pod's end is down, or in a namespace that is being taken down.
    WithoutCarrier,
    /// It is where the pod was, and nothing leads the pod's address anywhere now.
    WithoutRoute,
}

impl LinkState {
    /// What is wrong with a link, for a message; none: nothing.
    #[must_use]
    pub const fn complaint(self) -> Option<&'static str> {
        match self {
            Self::Carries => None,
            Self::Down => Some("is down"),
            Self::WithoutCarrier => Some("has no carrier: the pod's end is down"),
            Self::WithoutRoute => Some("is there, but no route leads to the pod any more"),
        }
    }
}

/// Where an address of a pod is, seen from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// Behind a link of this node.
    Link(PodLink),
    /// It is an address of this node itself: a pod on the host's network.
    Host,
    /// A specific route leads to it, but not over a link that belongs to one pod.
    Routed,
    /// Nothing but perhaps a default route leads there: not a pod of this node. The sentence says what was found.
    Unreachable(String),
}

/// What the planner needs to know of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Name of this node's Node object.
    pub node_name: String,
    /// Value of its label `topology.kubernetes.io/zone`; an empty one is none.
    pub zone: Option<String>,
    /// Every address on this node's interfaces, but for IPv6 link-local, tentative and deprecated ones.
    pub addresses: BTreeSet<IpAddr>,
    /// The node's primary addresses: [`Snapshot::primary_addresses`].
    pub primary: FamilyAddresses,
    /// Where the pods asked for are.
    pub pods: BTreeMap<IpAddr, Location>,
}

impl Location {
    /// Whether nothing gets through to a pod there, as far as the node can tell.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        match self {
            Self::Link(link) => link.state != LinkState::Carries,
            Self::Host | Self::Routed => false,
            Self::Unreachable(_) => true,
        }
    }
}

impl NodeView {
    /// Whether the pod with this address was looked for on this node, and nothing gets through to it.
    #[must_use]
    pub fn has_lost(&self, pod: IpAddr) -> bool {
        self.pods.get(&pod).is_some_and(Location::is_cut_off)
    }

    /// The primary address of a family, if the node has one.
    #[must_use]
    pub fn primary_address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.primary.v4.map(IpAddr::V4),
            Family::V6 => self.primary.v6.map(IpAddr::V6),
        }
    }
}
