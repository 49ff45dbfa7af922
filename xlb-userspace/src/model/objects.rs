//! The parts of Kubernetes objects that decide what a node serves.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::plan::desired::Protocol;

/// An object of one of the kinds that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service. The largest of them, and the fewest.
    Service(Box<Service>),
    /// An EndpointSlice.
    Slice(Slice),
    /// A NetworkPolicy.
    Policy(NetworkPolicyPresence),
}

impl Object {
    /// What tells this object from all others.
    pub fn key(&self) -> ObjectKey {
        let (kind, name) = match self {
            Object::Service(service) => (Kind::Service, &service.name),
            Object::Slice(slice) => (Kind::EndpointSlice, &slice.name),
            Object::Policy(policy) => (Kind::NetworkPolicy, &policy.name),
        };
        ObjectKey { kind, name: name.clone() }
    }
}

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Self::Service(Box::new(service))
    }
}

/// Kind, namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The name within the kind.
    pub name: ObjectName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.name)
    }
}

/// The kinds that matter here, spelled as Kubernetes spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1`.
    Service,
    /// `discovery.k8s.io/v1`.
    EndpointSlice,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
}

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// When it was created, in seconds since 1970; a manifest usually does not say.
    pub created_s: Option<i64>,
    /// Whose it is.
    pub labels: ProxyLabels,
    /// Its type.
    pub service_type: ServiceType,
    /// Its cluster IPs; empty for a headless Service and for one that has none yet.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether its cluster IP is `None`.
    pub is_headless: bool,
    /// What `externalTrafficPolicy` says.
    pub external_traffic_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: Option<u16>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `spec.loadBalancerClass`: whose load balancer it is meant for.
    pub load_balancer_class: Option<String>,
    /// Addresses of `status.loadBalancer.ingress[]` whose `ipMode` leaves them to the node.
    pub vips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress[]` whose `ipMode` is `Proxy`: a load balancer answers for them.
    pub proxy_vips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges` of both families, host bits zero, as far as they can be read; none: it lists none.
    pub source_ranges: Option<BTreeSet<IpNet>>,
    /// `sessionAffinity: ClientIP`: how long it lasts after a client's last new connection, in seconds.
    pub affinity_s: Option<u32>,
}

/// The labels by which an object says which service proxy should handle it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyLabels {
    /// Value of `service.kubernetes.io/service-proxy-name`.
    pub proxy_name: Option<String>,
    /// Whether `service.kubernetes.io/headless` is there, whatever its value.
    pub headless: bool,
}

impl ProxyLabels {
    /// The value of `service.kubernetes.io/service-proxy-name` that means this program.
    pub const OWN_PROXY_NAME: &str = "xlb";

    /// Whether the object is for every proxy or for this one by name (semantics 1.1).
    pub fn are_ours(&self) -> bool {
        !self.headless && self.proxy_name.as_deref().is_none_or(|name| name == Self::OWN_PROXY_NAME)
    }
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Also what an absent type means.
    ClusterIp,
    /// With ports on every node.
    NodePort,
    /// With external addresses.
    LoadBalancer,
    /// A DNS alias: nothing to proxy.
    ExternalName,
}

/// Which endpoints may serve traffic that comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All of the cluster.
    Cluster,
    /// Those of the node that received it.
    Local,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty for the only, unnamed one.
    pub name: String,
    /// Its protocol.
    pub protocol: PortProtocol,
    /// The port that clients use.
    pub port: u16,
}

/// Protocol of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortProtocol {
    /// One that xlb serves.
    Served(Protocol),
    /// Another one, as the object spells it.
    Other(String),
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: ObjectName,
    /// The Service that it belongs to; a slice without one is of no use.
    pub service: Option<ObjectName>,
    /// Whose it is.
    pub labels: ProxyLabels,
    /// Its ports; those without a name or a number are left out (semantics 2.2).
    pub ports: Vec<TargetPort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// Name of the Service port that it stands for.
    pub name: String,
    /// Its protocol.
    pub protocol: PortProtocol,
    /// The port of the pod.
    pub port: u16,
}

/// One endpoint, absent conditions filled in (semantics 2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first of its addresses, the only one that counts.
    pub address: IpAddr,
    /// Should get new connections.
    pub ready: bool,
    /// Would answer new connections.
    pub serving: bool,
    /// Is being shut down.
    pub terminating: bool,
    /// The Node that it runs on. Those that a model keeps share equal ones.
    pub node_name: Option<Arc<str>>,
    /// For whom it is meant; none: for everyone. Endpoints of a slice share equal ones.
    pub hints: Option<Arc<Hints>>,
}

/// What the endpoint's controller says about who should use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Names of nodes.
    pub nodes: Vec<String>,
    /// Names of zones.
    pub zones: Vec<String>,
}

/// What matters of a NetworkPolicy: whether it could forbid something that direct delivery would let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicyPresence {
    /// Its name.
    pub name: ObjectName,
    /// Whether it restricts what reaches pods.
    pub restricts_ingress: bool,
}
