//! Which Services count, and which of them gets which frontend (semantics chapter 1).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::desired::{Refusals, Setting};
use super::objects::{ObjectName, PortProtocol, Service, ServicePort, ServiceType, TrafficPolicy};
use super::policy::{Policy, Trust};
use super::state::Model;
use crate::node::NodeView;
use crate::plan::Endpoint;
use crate::plan::desired::{Family, Protocol, ServiceName};

/// A Service port with the VIPs of one family that are its own.
pub struct Grant<'a> {
    /// Its name as a service of this node.
    pub name: ServiceName,
    /// The Service.
    pub service: &'a Service,
    /// The port.
    pub port: &'a ServicePort,
    /// The VIPs. Never empty.
    pub vips: BTreeSet<IpAddr>,
}

/// Gives each frontend that these Services ask for to one Service port: where two ask for it, to the older Service, then to the first by name, the
/// same on every node (semantics 1.8).
pub fn grants<'a>(
    mut services: Vec<&'a Service>,
    Setting { policy, model, node, .. }: Setting,
    refusals: &mut Refusals,
) -> Vec<Grant<'a>> {
    services.sort_by_key(|service| (service.created_s.unwrap_or(i64::MAX), &service.name));
    let usage = Usage::of_external_ips(&services, model, node, policy);

    let mut holders = Holders::new();
    let mut grants = Vec::new();
    for service in services {
        let vips = usable_vips(service, &Judge { node, policy, usage: &usage }, refusals);
        for port in &service.ports {
            let Some(protocol) = served_protocol(service, port, refusals) else { continue };
            for family in Family::ALL {
                let name = service_name(service, port, protocol, family);
                let vips = vips.iter().copied().filter(|&vip| Family::of(vip) == family);
                let vips = claim(&mut holders, (&service.name, &name), port.port, vips, refusals);
                if !vips.is_empty() {
                    grants.push(Grant { name, service, port, vips });
                }
            }
        }
    }
    grants
}

/// The Services that count and ask for a VIP.
pub fn claiming_services<'a>(model: &'a Model, policy: &Policy) -> impl Iterator<Item = &'a Service> {
    model.services().filter(move |service| claims(service, policy))
}

/// Whether a Service counts and asks for a VIP.
pub fn claims(service: &Service, policy: &Policy) -> bool {
    let asks = || policy.ingress_ips(service).next().is_some() || !policy.external_ips(service).is_empty();
    counts(service) && asks()
}

/// The frontends that a Service asks for, whether or not it may have them.
pub fn asked(service: &Service, policy: &Policy) -> BTreeSet<Endpoint> {
    let vips = || policy.ingress_ips(service).chain(policy.external_ips(service).iter().copied());
    let ports = service.ports.iter().filter_map(|port| match port.protocol {
        PortProtocol::Served(protocol) => Some((port.port, protocol)),
        PortProtocol::Other(_) => None,
    });
    ports
        .flat_map(|(port, protocol)| vips().map(move |vip| Endpoint { socket: (vip, port).into(), protocol }))
        .collect()
}

/// Whether it depends on all the rest of the cluster what a Service may have: an externalIP lies in a listed range.
pub fn is_in_doubt(service: &Service, policy: &Policy) -> bool {
    policy.external_ips(service).iter().any(|&address| policy.trust(address) == Trust::Range)
}

/// The traffic policy that holds for outside traffic: `Local` counts only where Kubernetes opens the Service to the
/// outside (semantics chapter 4). A refused externalIP opens it too: what others serve does not change by the refusal.
pub fn effective_policy(service: &Service) -> TrafficPolicy {
    let is_open = match service.service_type {
        ServiceType::LoadBalancer | ServiceType::NodePort => true,
        ServiceType::ClusterIp => !service.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    };
    if is_open { service.external_traffic_policy } else { TrafficPolicy::Cluster }
}

/// Semantics 1.1 and 1.2, apart from a cluster IP that is missing: that one may be a mistake, and is told of.
pub fn counts(service: &Service) -> bool {
    service.labels.are_ours() && !service.is_headless && service.service_type != ServiceType::ExternalName
}

/// What the cluster itself uses of the addresses that Services ask for as externalIPs.
struct Usage(BTreeMap<IpAddr, &'static str>);

impl Usage {
    /// Only what a range allows is in doubt, and usually that is little: the many endpoints are looked up in it.
    fn of_external_ips(services: &[&Service], model: &Model, node: &NodeView, policy: &Policy) -> Self {
        let asked = services.iter().flat_map(|service| policy.external_ips(service)).copied();
        let in_doubt: BTreeSet<IpAddr> = asked.filter(|&address| policy.trust(address) == Trust::Range).collect();
        if in_doubt.is_empty() {
            return Self(BTreeMap::new());
        }
        let endpoints = model.slices().flat_map(|slice| &slice.endpoints);
        let pods = endpoints.map(|endpoint| (endpoint.address, "the address of a pod"));
        let cluster_ips = model.services().flat_map(|service| &service.cluster_ips);
        let cluster_ips = cluster_ips.map(|&address| (address, "a cluster IP"));
        let own = node.addresses.iter().map(|&address| (address, "an address of this node"));
        let used = pods.chain(cluster_ips).chain(own);
        Self(used.filter(|(address, _)| in_doubt.contains(address)).collect())
    }
}

/// What decides whether a Service may have an address.
struct Judge<'a> {
    node: &'a NodeView,
    policy: &'a Policy,
    usage: &'a Usage,
}

/// An address that is listed twice, or both ways, is one VIP: what is served as ingress is not asked for again.
fn usable_vips(service: &Service, judge: &Judge, refusals: &mut Refusals) -> BTreeSet<IpAddr> {
    let mut usable = BTreeSet::new();
    let mut note = |what: String, judgement: Result<IpAddr, String>| match judgement {
        Ok(vip) => {
            usable.insert(vip);
        }
        Err(why) => {
            let why = format!("{what} is not served: {why}");
            refusals.add(&service.name, format!("Service {}", service.name), why);
        }
    };
    let ingress: BTreeSet<IpAddr> = judge.policy.ingress_ips(service).collect();
    for &vip in &ingress {
        note(vip.to_string(), judge.ingress_ip(vip, service));
    }
    for &vip in judge.policy.external_ips(service).iter().filter(|vip| !ingress.contains(vip)) {
        note(format!("externalIP {vip}"), judge.external_ip(vip, service));
    }
    usable
}

impl Judge<'_> {
    fn ingress_ip(&self, vip: IpAddr, service: &Service) -> Result<IpAddr, String> {
        let vip = servable(vip, service)?;
        if self.node.addresses.contains(&vip) {
            return Err("it is an address of this node, whose own traffic xlb never takes; \
                        give the Service an address that no node has"
                .into());
        }
        Ok(vip)
    }

    /// Semantics chapter 17: what the operator did not list is refused, and what the cluster uses itself as well,
    /// unless it is listed by itself. Then xlb takes the Service's ports, and nothing else of the address (1.9).
    fn external_ip(&self, vip: IpAddr, service: &Service) -> Result<IpAddr, String> {
        match self.policy.trust(vip) {
            Trust::None => Err("it is not in --external-ip-cidrs; list it there if the Service may have it".into()),
            Trust::Single => servable(vip, service),
            Trust::Range => match self.usage.0.get(&vip) {
                Some(user) => Err(format!(
                    "it is {user}; if the Service may have it nevertheless, list {} in --external-ip-cidrs",
                    IpNet::from(vip)
                )),
                None => servable(vip, service),
            },
        }
    }
}

fn servable(vip: IpAddr, service: &Service) -> Result<IpAddr, String> {
    // Semantics 1.5: without a cluster IP of the family nothing of the Service exists in that family.
    let family = Family::of(vip);
    if !service.cluster_ips.iter().any(|&address| Family::of(address) == family) {
        return Err(format!(
            "the Service has no {family} cluster IP; let the API server assign one (spec.ipFamilyPolicy), or set \
             spec.clusterIPs in the manifest"
        ));
    }
    if is_for_clients(vip) {
        return Ok(vip);
    }
    Err("it is not an address that a client on the network can use; give the Service a unicast address".into())
}

fn is_for_clients(vip: IpAddr) -> bool {
    let is_special = match vip {
        IpAddr::V4(vip) => vip.is_broadcast(),
        IpAddr::V6(vip) => vip.is_unicast_link_local(),
    };
    !is_special && !vip.is_unspecified() && !vip.is_loopback() && !vip.is_multicast()
}

fn served_protocol(service: &Service, port: &ServicePort, refusals: &mut Refusals) -> Option<Protocol> {
    match &port.protocol {
        PortProtocol::Served(protocol) => Some(*protocol),
        PortProtocol::Other(protocol) => {
            let why = format!(
                "port {} is not served: {protocol} is not supported; use TCP, UDP or SCTP, \
                               or leave this port to kube-proxy",
                port.port
            );
            refusals.add(&service.name, format!("Service {}", service.name), why);
            None
        }
    }
}

fn service_name(service: &Service, port: &ServicePort, protocol: Protocol, family: Family) -> ServiceName {
    let (namespace, name) = (service.name.namespace.clone(), service.name.name.clone());
    ServiceName { namespace, name, port: port.name.clone(), protocol, family }
}

type Holders = BTreeMap<Endpoint, ServiceName>;

fn claim(
    holders: &mut Holders,
    (service, name): (&ObjectName, &ServiceName),
    port: u16,
    vips: impl Iterator<Item = IpAddr>,
    refusals: &mut Refusals,
) -> BTreeSet<IpAddr> {
    let mut won = BTreeSet::new();
    for vip in vips {
        match holders.entry(Endpoint { socket: (vip, port).into(), protocol: name.protocol }) {
            Entry::Vacant(free) => {
                free.insert(name.clone());
                won.insert(vip);
            }
            Entry::Occupied(holder) => {
                let why = format!(
                    "{vip} port {port} is not served: Service {} has the same address, protocol and port \
                                   and is older, or first by name; change one of the two",
                    holder.get()
                );
                refusals.add(service, format!("Service {name}"), why);
            }
        }
    }
    won
}
