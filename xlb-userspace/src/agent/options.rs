//! How the agent is to run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use xlb_common::abi::Settings;

use crate::ageing::Timeouts;
use crate::agent::inside::ClientsInside;
use crate::health::PortChoice;
use crate::maps::object::Sizes;
use crate::model::{DeliveryChoice, Policy};
use crate::source::SourceChoice;

/// Which program meets the packets of an uplink first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum XdpChoice {
    /// XDP on drivers that support it, tc on veth and other virtual devices, where XDP would switch GRO off.
    Auto,
    /// XDP in the driver; refused if the driver has none.
    Native,
    /// XDP in the stack: for tests and for drivers without support.
    Generic,
    /// tc only.
    Off,
}

/// The agent's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of the interfaces on which outside traffic arrives.
    pub uplinks: Vec<String>,
    /// Name of this node's Node object.
    pub node_name: String,
    /// Where Services and their endpoints are read.
    pub source: SourceChoice,
    /// Where maps and links are pinned.
    pub bpffs_dir: PathBuf,
    /// The front door.
    pub xdp: XdpChoice,
    /// What becomes of packets to a VIP that go to no pod.
    pub settings: Settings,
    /// How packets reach pods.
    pub delivery: DeliveryChoice,
    /// Which addresses Services may have.
    pub policy: Policy,
    /// The networks of the cluster, outside of which nobody addresses pods themselves; none: anybody may.
    pub cluster_networks: Vec<IpNet>,
    /// Leave programs and maps in place at the end.
    pub keep_dataplane: bool,
    /// For how long connections of before stay with the host's stack when a frontend becomes xlb's; zero: not at all.
    pub handover: Duration,
    /// What clients inside get: processes of this node, and of pods on it.
    pub clients_inside: ClientsInside,
    /// The cgroup whose sockets are followed and served; none: the root of the hierarchy.
    pub cgroup: Option<PathBuf>,
    /// Sizes of the maps.
    pub sizes: Sizes,
    /// After what time flows are forgotten.
    pub flow_timeouts: Timeouts,
    /// Where `/healthz`, `/livez` and `/readyz` are answered; none: nowhere.
    pub health_address: Option<SocketAddr>,
    /// Where `/metrics` is answered; none: nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Who answers at the health check ports of Services.
    pub health_check_node_ports: PortChoice,
}

impl Options {
    /// Takes from new ones what can change while the agent runs: the settings that [`LIVE`](crate::agent::reload::LIVE) names.
    pub fn take_over(&mut self, new: Self) {
        let pods_are_clusters = self.settings.pods_are_clusters();
        self.settings = if pods_are_clusters {
            new.settings.with_pods_of_cluster()
        } else {
            new.settings.without_pods_of_cluster()
        };
        self.delivery = new.delivery;
        self.policy = new.policy;
        self.keep_dataplane = new.keep_dataplane;
        self.handover = new.handover;
        self.flow_timeouts = new.flow_timeouts;
        self.health_check_node_ports = new.health_check_node_ports;
    }
}
