//! A scenario file as it is written. Its header comment says what each field means.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_yaml_ng::Value;

use super::health::Asked;
use super::run::NotUnderstood;

/// A file.
#[derive(Deserialize)]
pub struct File {
    /// What a case means that does not say.
    #[serde(default)]
    pub defaults: Defaults,
    /// The cases, each to be read by itself: one that cannot be read stops no other.
    pub scenarios: Vec<Value>,
}

impl File {
    /// From the text of a file.
    pub fn parse(text: &str) -> Result<Self> {
        serde_yaml_ng::from_str(text).context("reading a scenario file")
    }
}

/// What all cases share.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Defaults {
    /// Name of the node that is asked.
    pub this_node: String,
    /// Its addresses.
    pub node_ips: Vec<String>,
    /// Its zone; empty: none.
    pub node_zone: String,
    /// Which senders count as pods.
    pub pod_detection: String,
}

/// A case.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// What tells it from others.
    pub id: String,
    /// What it shows.
    #[serde(default)]
    pub name: String,
    /// Which of the fields below count.
    pub kind: String,
    /// The Services, at the beginning.
    #[serde(default)]
    pub services: Vec<Service>,
    /// The EndpointSlices, at the beginning.
    #[serde(default)]
    pub slices: Vec<Slice>,
    /// Of a `packet` case: who sends.
    pub client: Option<Client>,
    /// Of a `packet` case: what.
    pub packet: Option<Packet>,
    /// Of a `packet` case: what becomes of it. Other kinds have their own.
    pub expect: Option<Value>,
    /// Of a `packet_edge` case.
    #[serde(default)]
    pub packets: Vec<EdgePacket>,
    /// Of a `sequence` case.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Of a `flow_cleanup` case.
    #[serde(default)]
    pub flows: Vec<CleanupFlow>,
    /// Of a `service_health` or `proxy_health` case.
    #[serde(flatten)]
    pub asked: Asked,
    /// Instead of the file's.
    pub this_node: Option<String>,
    /// Instead of the file's.
    pub node_ips: Option<Vec<String>>,
    /// Instead of the file's.
    pub node_zone: Option<String>,
    /// Instead of the file's.
    pub pod_detection: Option<String>,
    /// Fields that the runner does not know, and those of [`SAYINGS`].
    #[serde(flatten)]
    pub unread: Unread,
}

/// What a case or a step says to its reader alone.
const SAYINGS: [&str; 5] = ["group", "family", "source", "note", "event"];

impl Case {
    /// Whether it sends no packets at all.
    pub fn is_about_health(&self) -> bool {
        let asks_alone = |step: &Step| step.packet.is_none() && step.health_of.is_some();
        let is_asking = self.kind == "sequence" && self.steps.iter().all(asks_alone);
        is_asking || ["service_health", "proxy_health"].contains(&self.kind.as_str())
    }

    /// Names of fields that the runner does not know, wherever they are.
    pub fn unread(&self) -> BTreeSet<&str> {
        let steps = || self.steps.iter();
        let services = self.services.iter().chain(steps().flat_map(|step| step.services.iter().flatten()));
        let slices: Vec<&Slice> =
            self.slices.iter().chain(steps().flat_map(|step| step.slices.iter().flatten())).collect();
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints).map(|endpoint| &endpoint.unread);
        let packets = self.packet.iter().chain(steps().flat_map(|step| &step.packet)).map(|packet| &packet.unread);
        let objects = services.map(|service| &service.unread).chain(slices.iter().map(|slice| &slice.unread));
        let own = steps().map(|step| &step.unread).chain([&self.unread]);
        let own = own.flat_map(|unread| unread.keys()).filter(|name| !SAYINGS.contains(&name.as_str()));
        let edges = self.packets.iter().map(|packet| &packet.unread);
        objects
            .chain(endpoints)
            .chain(packets)
            .chain(edges)
            .flat_map(|unread| unread.keys())
            .chain(own)
            .map(String::as_str)
            .collect()
    }
}

/// One step of a sequence: first what changes, then what is sent and asked.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// When.
    #[serde(default)]
    pub at_s: u64,
    /// All Services from now on.
    pub services: Option<Vec<Service>>,
    /// All EndpointSlices from now on.
    pub slices: Option<Vec<Slice>>,
    /// Who sends.
    pub client: Option<Client>,
    /// What.
    pub packet: Option<Packet>,
    /// What becomes of it, or what the health port answers.
    pub expect: Option<Value>,
    /// The Service whose health port is asked.
    pub health_of: Option<String>,
    /// Fields that the runner does not know, and those of [`SAYINGS`].
    #[serde(flatten)]
    pub unread: Unread,
}

/// Fields of an object that the runner does not know, and says so.
pub type Unread = BTreeMap<String, Value>;

/// A Service.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    #[serde(rename = "type")]
    pub service_type: Option<String>,
    #[serde(default)]
    pub cluster_ips: Vec<String>,
    pub ip_families: Option<Vec<String>>,
    #[serde(default)]
    pub external_ips: Vec<String>,
    #[serde(default)]
    pub lb_ingress: Vec<Ingress>,
    pub lb_source_ranges: Option<Vec<String>>,
    pub load_balancer_ip: Option<String>,
    pub load_balancer_class: Option<String>,
    #[serde(default)]
    pub ports: Vec<Port>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub external_traffic_policy: Option<String>,
    pub internal_traffic_policy: Option<String>,
    pub health_check_node_port: Option<i32>,
    pub session_affinity: Option<Affinity>,
    /// Seconds since 1970.
    pub created: Option<i64>,
    /// Fields that the runner does not know.
    #[serde(flatten)]
    pub unread: Unread,
}

/// An entry of a Service's load balancer status.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Ingress {
    pub ip: Option<String>,
    pub hostname: Option<String>,
    pub ip_mode: Option<String>,
}

/// `sessionAffinity` with its time.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Affinity {
    #[serde(rename = "type")]
    pub affinity_type: String,
    pub timeout_seconds: Option<i32>,
}

/// A port of a Service or a slice.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Port {
    pub name: Option<String>,
    pub protocol: Option<String>,
    pub port: Option<i32>,
    pub node_port: Option<i32>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Slice {
    /// Namespace and name of its Service.
    pub service: Option<String>,
    pub name: Option<String>,
    pub address_type: String,
    #[serde(default)]
    pub ports: Vec<Port>,
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Fields that the runner does not know.
    #[serde(flatten)]
    pub unread: Unread,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[allow(missing_docs)]
pub struct Endpoint {
    /// Its only address.
    pub ip: Option<String>,
    /// All of its addresses, instead of `ip`.
    pub addresses: Option<Vec<String>>,
    pub node: Option<String>,
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
    pub zone_hints: Option<Vec<String>>,
    pub node_hints: Option<Vec<String>>,
    /// Fields that the runner does not know.
    #[serde(flatten)]
    pub unread: Unread,
}

impl Endpoint {
    /// Its addresses.
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.clone().unwrap_or_else(|| self.ip.iter().cloned().collect())
    }
}

/// Who sends.
#[derive(Clone, Debug, Deserialize)]
pub struct Client {
    /// `external`, `local-pod`, `remote-pod` or `host`.
    pub kind: String,
    /// From which address.
    pub ip: String,
}

/// What is sent.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Packet {
    pub proto: String,
    pub dst: String,
    pub dport: Option<u16>,
    /// None: any.
    pub sport: Option<u16>,
    /// It belongs to a connection that exists already.
    pub flow: Option<Flow>,
    /// Fields that the runner does not know.
    #[serde(flatten)]
    pub unread: Unread,
}

/// A connection that exists already.
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    /// The endpoint that has it.
    pub established_to: String,
}

/// One of several packets.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct EdgePacket {
    pub proto: String,
    /// None: the client.
    pub src: Option<String>,
    pub sport: Option<u16>,
    pub dst: String,
    pub dport: Option<u16>,
    /// TCP flags, separated by commas.
    pub flags: Option<String>,
    /// `reply`: a pod sends it.
    pub direction: Option<String>,
    #[serde(default)]
    pub truncated: bool,
    pub fragment: Option<String>,
    /// Type and code.
    pub icmp: Option<String>,
    /// What an ICMP error quotes.
    pub inner: Option<Inner>,
    pub vlan: Option<u16>,
    pub expect: EdgeExpect,
    /// Fields that the runner does not know.
    #[serde(flatten)]
    pub unread: Unread,
}

/// The packet that an ICMP error is about.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Inner {
    pub proto: String,
    pub src: String,
    pub sport: Option<u16>,
    pub dst: String,
    pub dport: Option<u16>,
}

/// What becomes of one of several packets.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct EdgeExpect {
    pub outcome: String,
    /// Endpoints that it may reach.
    #[serde(default)]
    pub any_of: Vec<String>,
    /// It reaches the endpoint of that packet.
    pub same_as_packet: Option<usize>,
    /// As which address it leaves.
    pub src: Option<String>,
    /// As which port it leaves.
    pub sport: Option<u16>,
    /// An ICMP error quotes another sender than before.
    #[serde(default)]
    pub inner_source_rewritten: bool,
}

/// A flow that began before the case's objects were so.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct CleanupFlow {
    pub proto: String,
    pub orig_dst: String,
    pub orig_dport: u16,
    /// Who answers it: an endpoint, or the VIP itself if it was never translated.
    pub reply_src: String,
    /// Whether its next packet is a new flow's.
    pub deleted: bool,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Deserialize)]
pub struct Expect {
    /// `dnat`, `drop`, `reject`, `pass` or `needs-remote-path`.
    pub outcome: String,
    /// Where it may go.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Instead of all this, where only pods of this node can be reached.
    pub local_only: Option<Box<Expect>>,
    /// The step that chose the endpoint.
    pub same_as_step: Option<usize>,
}

impl Expect {
    /// From a case or a step.
    pub fn parse(value: Option<&Value>) -> Result<Self> {
        let value = value.ok_or_else(|| NotUnderstood("it has no `expect`".into()))?;
        let read = serde_yaml_ng::from_value(value.clone());
        read.map_err(|error| NotUnderstood(format!("its `expect` cannot be read: {error}")).into())
    }

    /// What holds where only pods of this node can be reached; what would need another node is passed on.
    pub fn on_this_node(&self) -> Self {
        let mut expect = self.local_only.as_deref().unwrap_or(self).clone();
        expect.same_as_step = self.same_as_step;
        if expect.outcome == "needs-remote-path" {
            expect.outcome = "pass".into();
        }
        expect
    }
}
