//! What a packet would need of xlb that xlb cannot do yet.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use xlb_userspace::source::address::parse_address;

use super::case::{Client, Expect, Packet, Slice};
use super::inside::is_inside;

/// What is said of a case beside its verdict.
pub type Note = &'static str;

/// A flow to another node's pod: its packets are left to the host's stack, and its entry is not xlb's.
pub const HOSTS_FLOW: Note = "a flow to another node is kube-proxy's, and stays with it";

/// Something that xlb cannot do yet, as the summary names it.
pub type Feature = &'static str;

/// Senders that are pods for xlb and not for kube-proxy as it is set, or the other way round.
pub const IN_CLUSTER: Feature = "in-cluster senders";
/// Endpoints of other nodes.
pub const REMOTE: Feature = "remote delivery";

/// A packet and the state that it meets.
pub struct Situation<'a> {
    /// All slices.
    pub slices: &'a [Slice],
    /// Name of this node.
    pub this_node: &'a str,
    /// Which senders count as pods.
    pub pod_detection: &'a str,
    /// Who sends.
    pub client: &'a Client,
    /// What.
    pub packet: &'a Packet,
    /// What should become of it.
    pub expect: &'a Expect,
    /// Whether what only another node can serve is expected.
    pub wants_remote: bool,
}

impl Situation<'_> {
    /// What the packet needs that xlb cannot do yet.
    pub fn missing(&self) -> BTreeSet<Feature> {
        let checks = [(IN_CLUSTER, self.is_in_cluster()), (REMOTE, self.wants_remote && self.is_of_remote_flow())];
        checks.into_iter().filter(|(_, is_missing)| *is_missing).map(|(feature, _)| feature).collect()
    }

    /// Whether a sender is a pod is the detection's affair in kube-proxy. Here sockets tell the pods of this node, and the
    /// operator says what they get; those of others come in by the uplink, where nothing tells them from clients outside:
    /// they get the pods of this node.
    fn is_in_cluster(&self) -> bool {
        match self.client.kind.as_str() {
            "external" => false,
            "remote-pod" => self.pod_detection == "cluster-cidr" && self.expect.outcome != "dnat",
            _ => !is_inside(self.client),
        }
    }

    fn is_of_remote_flow(&self) -> bool {
        let Some(flow) = self.packet.flow.as_ref().filter(|_| !is_inside(self.client)) else { return false };
        is_remote(&flow.established_to, self.slices, self.this_node)
    }
}

/// Whether an endpoint, with its port, is known, and on other nodes only.
pub fn is_remote(endpoint: &str, slices: &[Slice], this_node: &str) -> bool {
    let Ok(endpoint) = endpoint.parse::<SocketAddr>() else { return false };
    let is_it = |text: &String| parse_address(text) == Some(endpoint.ip());
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let mut of_pod = endpoints.filter(|endpoint| endpoint.addresses().iter().any(is_it)).peekable();
    of_pod.peek().is_some() && of_pod.all(|endpoint| endpoint.node.as_deref() != Some(this_node))
}
