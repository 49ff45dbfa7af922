//! From Kubernetes' types to the model's. Kubernetes' types, and their many optional fields, end here.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::parse_address;
use crate::model::objects::{
    Endpoint, NetworkPolicyPresence, ObjectName, PortProtocol, ProxyLabels, Service, ServicePort, ServiceType, Slice,
    TargetPort, TrafficPolicy,
};
use crate::plan::desired::Protocol;

/// A field whose value no API server would have accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field, for example `spec.ports[0].port`.
    pub field: String,
    /// What it holds, and what was expected.
    pub why: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

/// Translates a Service.
pub fn service(service: &core::Service) -> Result<Service, FieldError> {
    let name = object_name(&service.metadata)?;
    let spec = service.spec.clone().unwrap_or_default();
    let cluster_ips = spec.cluster_ips.or(spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
    Ok(Service {
        name,
        created_s: service.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        labels: proxy_labels(&service.metadata),
        service_type: service_type(spec.type_.as_deref())?,
        is_headless: cluster_ips.iter().any(|ip| ip == NO_CLUSTER_IP),
        cluster_ips: cluster_addresses(&cluster_ips)?,
        external_traffic_policy: traffic_policy(spec.external_traffic_policy.as_deref())?,
        ports: service_ports(&spec.ports.unwrap_or_default())?,
        vips: vips(service)?,
    })
}

/// Translates an EndpointSlice.
pub fn slice(slice: &discovery::EndpointSlice) -> Result<Slice, FieldError> {
    let name = object_name(&slice.metadata)?;
    let service = label(&slice.metadata, "kubernetes.io/service-name")
        .map(|service| ObjectName { namespace: name.namespace.clone(), name: service.into() });
    Ok(Slice {
        service,
        name,
        labels: proxy_labels(&slice.metadata),
        ports: target_ports(slice)?,
        endpoints: endpoints(slice)?,
    })
}

/// Translates a NetworkPolicy. `policyTypes` left out means at least `Ingress`.
pub fn network_policy(policy: &networking::NetworkPolicy) -> Result<NetworkPolicyPresence, FieldError> {
    let types = policy.spec.as_ref().and_then(|spec| spec.policy_types.as_deref()).unwrap_or_default();
    let restricts_ingress = types.is_empty() || types.iter().any(|policy_type| policy_type == "Ingress");
    Ok(NetworkPolicyPresence { name: object_name(&policy.metadata)?, restricts_ingress })
}

const NO_CLUSTER_IP: &str = "None";

fn object_name(metadata: &ObjectMeta) -> Result<ObjectName, FieldError> {
    let Some(name) = metadata.name.clone().filter(|name| !name.is_empty()) else {
        return Err(field_error("metadata.name", "missing"));
    };
    let namespace = metadata.namespace.clone().filter(|namespace| !namespace.is_empty());
    Ok(ObjectName { namespace: namespace.unwrap_or_else(|| "default".into()), name })
}

fn proxy_labels(metadata: &ObjectMeta) -> ProxyLabels {
    ProxyLabels {
        proxy_name: label(metadata, "service.kubernetes.io/service-proxy-name").map(String::from),
        headless: label(metadata, "service.kubernetes.io/headless").is_some(),
    }
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn service_type(text: Option<&str>) -> Result<ServiceType, FieldError> {
    match text {
        None | Some("" | "ClusterIP") => Ok(ServiceType::ClusterIp),
        Some("NodePort") => Ok(ServiceType::NodePort),
        Some("LoadBalancer") => Ok(ServiceType::LoadBalancer),
        Some("ExternalName") => Ok(ServiceType::ExternalName),
        Some(other) => {
            let expected = "ClusterIP, NodePort, LoadBalancer or ExternalName";
            Err(field_error("spec.type", format!("found {other:?}, expected {expected}")))
        }
    }
}

fn traffic_policy(text: Option<&str>) -> Result<TrafficPolicy, FieldError> {
    match text {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => {
            Err(field_error("spec.externalTrafficPolicy", format!("found {other:?}, expected Cluster or Local")))
        }
    }
}

fn cluster_addresses(texts: &[String]) -> Result<Vec<IpAddr>, FieldError> {
    let given = texts.iter().enumerate().filter(|(_, text)| !text.is_empty() && *text != NO_CLUSTER_IP);
    given.map(|(index, text)| address(|| format!("spec.clusterIPs[{index}]"), text)).collect()
}

fn service_ports(ports: &[core::ServicePort]) -> Result<Vec<ServicePort>, FieldError> {
    let mut names = BTreeSet::new();
    let mut translated = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let name = port.name.clone().unwrap_or_default();
        if !names.insert(name.clone()) {
            let why = format!("another port has the name {name:?} too, expected a name of its own for each port");
            return Err(field_error(format!("spec.ports[{index}].name"), why));
        }
        let number = port_number(|| format!("spec.ports[{index}].port"), port.port)?;
        translated.push(ServicePort { name, protocol: protocol(port.protocol.as_deref()), port: number });
    }
    Ok(translated)
}

/// Semantics 1.3: a VIP is left to the node unless its `ipMode` says otherwise; a host name is no VIP.
fn vips(service: &core::Service) -> Result<Vec<IpAddr>, FieldError> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let mut vips = Vec::new();
    for (index, entry) in ingress.iter().enumerate() {
        let is_vip = entry.ip_mode.as_deref().is_none_or(|mode| mode == "VIP");
        if let Some(ip) = entry.ip.as_deref().filter(|ip| is_vip && !ip.is_empty()) {
            vips.push(address(|| format!("status.loadBalancer.ingress[{index}].ip"), ip)?);
        }
    }
    Ok(vips)
}

fn target_ports(slice: &discovery::EndpointSlice) -> Result<Vec<TargetPort>, FieldError> {
    let mut ports = Vec::new();
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        let (Some(name), Some(number)) = (port.name.clone(), port.port.filter(|number| *number != 0)) else { continue };
        let number = port_number(|| format!("ports[{index}].port"), number)?;
        ports.push(TargetPort { name, protocol: protocol(port.protocol.as_deref()), port: number });
    }
    Ok(ports)
}

fn endpoints(slice: &discovery::EndpointSlice) -> Result<Vec<Endpoint>, FieldError> {
    let is_expected: fn(&IpAddr) -> bool = match slice.address_type.as_str() {
        "IPv4" => IpAddr::is_ipv4,
        "IPv6" => IpAddr::is_ipv6,
        "FQDN" => return Ok(Vec::new()),
        other => return Err(field_error("addressType", format!("found {other:?}, expected IPv4, IPv6 or FQDN"))),
    };
    let mut endpoints = Vec::new();
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        let Some(text) = endpoint.addresses.first() else { continue };
        let field = || format!("endpoints[{index}].addresses[0]");
        let address = address(field, text)?;
        if !is_expected(&address) {
            return Err(field_error(field(), format!("found {text:?}, expected an {} address", slice.address_type)));
        }
        endpoints.push(with_conditions(address, endpoint));
    }
    Ok(endpoints)
}

fn with_conditions(address: IpAddr, endpoint: &discovery::Endpoint) -> Endpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    Endpoint {
        address,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node_name: endpoint.node_name.clone(),
    }
}

fn protocol(text: Option<&str>) -> PortProtocol {
    match text {
        None | Some("" | "TCP") => PortProtocol::Served(Protocol::Tcp),
        Some("UDP") => PortProtocol::Served(Protocol::Udp),
        Some(other) => PortProtocol::Other(other.into()),
    }
}

fn port_number(field: impl Fn() -> String, number: i32) -> Result<u16, FieldError> {
    let number_or_none = u16::try_from(number).ok().filter(|number| *number != 0);
    number_or_none.ok_or_else(|| field_error(field(), format!("found {number}, expected a port from 1 to 65535")))
}

fn address(field: impl Fn() -> String, text: &str) -> Result<IpAddr, FieldError> {
    parse_address(text).ok_or_else(|| field_error(field(), format!("found {text:?}, expected an IP address")))
}

fn field_error(field: impl Into<String>, why: impl Into<String>) -> FieldError {
    FieldError { field: field.into(), why: why.into() }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
