//! What this node's maps should hold, in words of Kubernetes: made by [`crate::model`], read by the planner.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::endpoint::Endpoint;
use crate::node::PodLink;

/// The protocols that xlb serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 132.
    Sctp,
}

/// The IP versions. Each serves a Service for itself (semantics 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Identity of one Kubernetes Service port in one family, as kube-proxy has it (semantics 14.2): a renamed port is another service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct ServiceName {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Name of the port; empty for the only, unnamed one.
    pub port: String,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// Family of its VIPs, its endpoints and its clients.
    pub family: Family,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        match self.protocol {
            Protocol::Tcp => {}
            Protocol::Udp => f.write_str("/udp")?,
            Protocol::Sctp => f.write_str("/sctp")?,
        }
        match self.family {
            Family::V4 => Ok(()),
            Family::V6 => f.write_str("/ipv6"),
        }
    }
}

impl ServiceName {
    /// Of the text that stands for it, in the maps too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // A Service may be called `udp` or `ipv6`: of `default/udp` no name would be left.
        let v6 = text.strip_suffix("/ipv6").filter(|text| text.contains('/'));
        let (text, family) = v6.map_or((text, Family::V4), |text| (text, Family::V6));
        let protocols = [("/udp", Protocol::Udp), ("/sctp", Protocol::Sctp)];
        let other = protocols.into_iter().find_map(|(end, protocol)| Some((text.strip_suffix(end)?, protocol)));
        let (text, protocol) = other.filter(|(text, _)| text.contains('/')).unwrap_or((text, Protocol::Tcp));
        let (namespace, name) = text.split_once('/')?;
        let (name, port) = name.split_once(':').unwrap_or((name, ""));
        Some(Self { namespace: namespace.into(), name: name.into(), port: port.into(), protocol, family })
    }
}

/// What happens to the first packet of a flow when the service has no usable backend on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenEmpty {
    /// Leave the packet to the stack: `externalTrafficPolicy: Cluster`, kube-proxy may serve it.
    #[default]
    Pass,
    /// Drop it: `externalTrafficPolicy: Local`, so that the client retries elsewhere.
    Drop,
    /// Refuse it: no endpoint is usable in the whole cluster (semantics 10.1).
    Reject,
}

/// How packets reach a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Straight to the pod's veth and straight back to the uplink: netfilter sees neither direction.
    Direct(PodLink),
    /// Translated, then through the host's own stack; the link is known when the pod has one.
    Stack(Option<PodLink>),
}

/// One backend of a service on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredBackend {
    /// Gets new connections. A backend that does not is listed only as long as its pod lives here:
    /// it keeps the connections it has.
    pub takes_new: bool,
    /// Share of new connections relative to its peers; at least 1.
    pub weight: u16,
    /// Where its packets go.
    pub delivery: Delivery,
}

/// One Service port with VIPs of one family, as this node should serve it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredService {
    /// The external addresses. Never empty.
    pub vips: BTreeSet<IpAddr>,
    /// The Service's port, host byte order.
    pub port: u16,
    /// What to do when no backend takes new connections.
    pub when_empty: WhenEmpty,
    /// Backends on this node by address and target port.
    pub backends: BTreeMap<SocketAddr, DesiredBackend>,
    /// What clients inside get: processes of this node, and of pods on it. None: nothing, their packets go to the VIP.
    pub inside: Option<DesiredInside>,
    /// Which clients it is open to.
    pub sources: SourceFilter,
    /// How long after its last new connection a client's next one goes to the same backend, in seconds; zero: no
    /// affinity.
    pub affinity_s: u32,
    /// Those VIPs of which the host's stack may hold TCP connections: kube-proxy served them until a while ago.
    pub host_before: BTreeSet<IpAddr>,
    /// Whether clients may speak to a pod that went a short while ago, and have to hear that it is gone.
    pub has_strays: bool,
    /// Whether an endpoint that no longer serves loses its flows: UDP has no end of a connection to wait for, and others
    /// serve (semantics 11.2).
    pub forgets_departed: bool,
}

impl DesiredService {
    /// The keys of its frontends, which have this protocol.
    pub fn keys(&self, protocol: Protocol) -> impl Iterator<Item = Endpoint> + '_ {
        self.vips.iter().map(move |&vip| Endpoint { socket: (vip, self.port).into(), protocol })
    }
}

/// The endpoints of a service in the whole cluster, as clients inside reach them. The lists are in order of address and
/// port, and no endpoint is in both of the first two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredInside {
    /// Those that get new connections. None: clients are refused.
    pub usable: Vec<SocketAddr>,
    /// Those that keep the datagrams of sockets which they have, and get nothing new.
    pub lingering: Vec<SocketAddr>,
    /// Those of this node, which clients in pods get instead of `usable`. None: all clients get the same.
    pub local: Option<Vec<SocketAddr>>,
}

/// Which clients may open connections, and where that counts (semantics chapter 8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFilter {
    /// The VIPs that are filtered; the others are open to everybody.
    pub vips: BTreeSet<IpAddr>,
    /// Whom the filtered ones are open to, host bits zero. None: nobody.
    pub ranges: BTreeSet<IpNet>,
}

/// Something that an object asks for and this node does not do, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// The object, for example `Service default/web` or `endpoint 10.1.0.5 of default/web`.
    pub object: String,
    /// One sentence: what is not done, why, and what to do next.
    pub why: String,
}

/// All that this node should serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The services by name.
    pub services: BTreeMap<ServiceName, DesiredService>,
    /// What was asked for and is not done.
    pub refusals: Vec<Refusal>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for (name, port) in [("web", ""), ("web", "http"), ("udp", ""), ("ipv6", "udp"), ("sctp", "ipv6")] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                for family in Family::ALL {
                    let (namespace, name, port) = ("default".into(), name.into(), port.into());
                    let written = ServiceName { namespace, name, port, protocol, family };
                    assert_eq!(ServiceName::parse(&written.to_string()).as_ref(), Some(&written), "{written}");
                }
            }
        }
        assert_eq!(ServiceName::parse("web"), None);
    }
}
