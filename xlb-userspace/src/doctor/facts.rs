//! What is looked at.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use aya::util::KernelVersion;

use crate::agent::forwarding::{Settings, Stacked};
use crate::maps::attach::FrontDoor;
use crate::node::Snapshot;
use crate::node::netfilter::Ruleset;
use crate::node::xdp::XdpFeatures;
use crate::plan::desired::Refusal;

/// The whole node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel and this process.
    pub machine: Machine,
    /// What serves.
    pub dataplane: Dataplane,
    /// The interfaces that are served, or that were named.
    pub uplinks: Vec<UplinkFacts>,
    /// Links, addresses and routes; why they could not be listed.
    pub snapshot: Result<Snapshot, String>,
    /// What netfilter was told; why it could not be read.
    pub ruleset: Result<Ruleset, String>,
    /// Whether the kernel has IPVS (kube-proxy's mode `ipvs`) in this network namespace.
    pub has_ipvs: bool,
}

/// The kernel and this process.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel's version.
    pub kernel: Option<KernelVersion>,
    /// `net.core.bpf_jit_enable`, which only the first network namespace has.
    pub jit: Option<u8>,
    /// `net.core.bpf_jit_harden`.
    pub harden: Option<u8>,
    /// `kernel.bpf_stats_enabled`.
    pub stats: Option<u8>,
    /// What is in `/sys/kernel/security/lockdown`.
    pub lockdown: Option<String>,
    /// Whether the kernel tells of its types.
    pub has_btf: bool,
    /// Whether it can answer with SYN cookies.
    pub has_syn_cookies: bool,
    /// The capabilities of this process.
    pub capabilities: Option<u64>,
    /// Where maps are to be pinned.
    pub pins: PathBuf,
    /// Whether that is on a BPF file system; why that cannot be told.
    pub is_on_bpffs: Result<bool, String>,
    /// Where the cgroup v2 hierarchy is; why there is none.
    pub cgroup: Result<PathBuf, String>,
}

/// What serves.
#[derive(Clone, Debug, Default)]
pub struct Dataplane {
    /// Whether one of this version is there.
    pub is_there: bool,
    /// What is wrong with others.
    pub complaint: Option<String>,
    /// Whether its programs are machine code; none: there are none.
    pub is_jitted: Option<bool>,
    /// The agent's last word.
    pub agent: Option<AgentFacts>,
    /// What its maps say; why they cannot be read.
    pub maps: Option<Result<MapFacts, String>>,
    /// Ids of its programs.
    pub programs: BTreeSet<u32>,
}

/// The agent's last word.
#[derive(Clone, Debug, Default)]
pub struct AgentFacts {
    /// Whether it runs.
    pub is_running: bool,
    /// Its process.
    pub pid: u32,
    /// What it does not do, or does later.
    pub refusals: Vec<Refusal>,
}

/// What the maps say.
#[derive(Clone, Debug, Default)]
pub struct MapFacts {
    /// Addresses that are served.
    pub vips: BTreeSet<IpAddr>,
    /// Backends that packets reach through the host's stack.
    pub stacked: Stacked,
    /// Those that packets are handed to, with the index of their link and whether that takes XDP frames.
    pub direct: Vec<(SocketAddr, u32, bool)>,
}

/// An uplink.
#[derive(Clone, Debug)]
pub struct UplinkFacts {
    /// Its name.
    pub name: String,
    /// Its index; none: there is no such interface.
    pub ifindex: Option<u32>,
    /// The program that meets its packets first; none: none of xlb's is attached.
    pub door: Option<FrontDoor>,
    /// Name of its driver.
    pub driver: String,
    /// What its driver's XDP can do; none: the kernel does not tell.
    pub xdp: Option<XdpFeatures>,
    /// The XDP program on it, by id and name.
    pub xdp_program: Option<(u32, String)>,
    /// The tc programs that packets meet there, in order; why they cannot be listed.
    pub tc_programs: Result<Vec<(u32, String)>, String>,
    /// Whether its driver takes VLAN tags out; none: it does not tell.
    pub strips_vlan_tags: Option<bool>,
    /// The kernel's settings there.
    pub settings: Settings,
}
