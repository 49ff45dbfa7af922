//! Which Services count, and which of them gets which frontend (semantics chapter 1).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::desired::Refusals;
use super::objects::{PortProtocol, Service, ServicePort, ServiceType, TrafficPolicy};
use super::state::Model;
use crate::node::NodeView;
use crate::plan::desired::{Protocol, ServiceName};

/// A Service port with the VIPs that are its own.
pub struct Grant<'a> {
    /// Its name as a service of this node.
    pub name: ServiceName,
    /// The Service.
    pub service: &'a Service,
    /// The port.
    pub port: &'a ServicePort,
    /// The VIPs. Never empty.
    pub vips: BTreeSet<Ipv4Addr>,
}

/// Gives each frontend to one Service port: where two ask for it, to the older Service, then to the first by name, the
/// same on every node (semantics 1.8).
pub fn grants<'a>(model: &'a Model, node: &NodeView, refusals: &mut Refusals) -> Vec<Grant<'a>> {
    let mut services: Vec<&Service> = claiming_services(model).collect();
    services.sort_by_key(|service| (service.created_s.unwrap_or(i64::MAX), &service.name));

    let mut holders = Holders::new();
    let mut grants = Vec::new();
    for service in services {
        let vips = usable_vips(service, node, refusals);
        for port in &service.ports {
            let Some(name) = service_name(service, port, refusals) else { continue };
            let vips = claim(&mut holders, &name, port.port, &vips, refusals);
            if !vips.is_empty() {
                grants.push(Grant { name, service, port, vips });
            }
        }
    }
    grants
}

/// The Services that count and have a VIP.
pub fn claiming_services(model: &Model) -> impl Iterator<Item = &Service> {
    model.services().filter(|service| counts(service) && !service.vips.is_empty())
}

/// The traffic policy that holds for outside traffic: `Local` counts only where Kubernetes opens the Service to the
/// outside (semantics chapter 4).
pub fn effective_policy(service: &Service) -> TrafficPolicy {
    match service.service_type {
        ServiceType::LoadBalancer | ServiceType::NodePort => service.external_traffic_policy,
        ServiceType::ClusterIp | ServiceType::ExternalName => TrafficPolicy::Cluster,
    }
}

/// Semantics 1.1 and 1.2, apart from a cluster IP that is missing: that one may be a mistake, and is told of.
fn counts(service: &Service) -> bool {
    service.labels.are_ours() && !service.is_headless && service.service_type != ServiceType::ExternalName
}

fn usable_vips(service: &Service, node: &NodeView, refusals: &mut Refusals) -> BTreeSet<Ipv4Addr> {
    let mut usable = BTreeSet::new();
    for &vip in &service.vips {
        match usable_vip(vip, service, node) {
            Ok(vip) => {
                usable.insert(vip);
            }
            Err(why) => refusals.add(format!("Service {}", service.name), format!("{vip} is not served: {why}")),
        }
    }
    usable
}

fn usable_vip(vip: IpAddr, service: &Service, node: &NodeView) -> Result<Ipv4Addr, &'static str> {
    let IpAddr::V4(vip) = vip else {
        return Err("IPv6 addresses are not served yet; give the Service an IPv4 address too");
    };
    // Semantics 1.5: without a cluster IP of the family nothing of the Service exists in that family.
    if !service.cluster_ips.iter().any(IpAddr::is_ipv4) {
        return Err(
            "the Service has no IPv4 cluster IP; let the API server assign one, or set spec.clusterIP in the manifest",
        );
    }
    if vip.is_unspecified() || vip.is_loopback() || vip.is_multicast() || vip.is_broadcast() {
        return Err("it is not an address that a client on the network can use; give the Service a unicast address");
    }
    if node.addresses.contains(&vip) {
        return Err("it is an address of this node, whose own traffic xlb never takes; \
                    give the Service an address that no node has");
    }
    Ok(vip)
}

fn service_name(service: &Service, port: &ServicePort, refusals: &mut Refusals) -> Option<ServiceName> {
    let protocol = match &port.protocol {
        PortProtocol::Served(protocol) => *protocol,
        PortProtocol::Other(protocol) => {
            let why = format!(
                "port {} is not served: {protocol} is not supported; use TCP or UDP, \
                               or leave this port to kube-proxy",
                port.port
            );
            refusals.add(format!("Service {}", service.name), why);
            return None;
        }
    };
    Some(ServiceName {
        namespace: service.name.namespace.clone(),
        name: service.name.name.clone(),
        port: port.name.clone(),
        protocol,
    })
}

type Holders = BTreeMap<(Ipv4Addr, Protocol, u16), ServiceName>;

fn claim(
    holders: &mut Holders,
    name: &ServiceName,
    port: u16,
    vips: &BTreeSet<Ipv4Addr>,
    refusals: &mut Refusals,
) -> BTreeSet<Ipv4Addr> {
    let mut won = BTreeSet::new();
    for &vip in vips {
        match holders.entry((vip, name.protocol, port)) {
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
                refusals.add(format!("Service {name}"), why);
            }
        }
    }
    won
}
