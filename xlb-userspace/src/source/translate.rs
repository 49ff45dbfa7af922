//! From Kubernetes' types to the model's. Kubernetes' types, and their many optional fields, end here.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::parse_address;
use super::clients::{affinity_s, source_ranges};
use crate::model::objects::{
    Endpoint, Hints, NetworkPolicyPresence, ObjectName, PortProtocol, ProxyLabels, Service, ServicePort, ServiceType,
    Slice, TargetPort, TrafficPolicy,
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

/// What could be read of an object, and what could not: that part is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable<T> {
    /// The object without the parts that are not readable.
    pub object: T,
    /// Why each of those is not.
    pub errors: Vec<FieldError>,
}

impl<T> Readable<T> {
    /// The same as another type.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Readable<U> {
        Readable { object: into(self.object), errors: self.errors }
    }

    /// The object if all of it could be read, otherwise the first thing that could not.
    pub fn entire(mut self) -> Result<T, FieldError> {
        if self.errors.is_empty() { Ok(self.object) } else { Err(self.errors.swap_remove(0)) }
    }
}

/// Translates a Service; an error when it has no name.
pub fn service(service: &core::Service) -> Result<Readable<Service>, FieldError> {
    let mut errors = Vec::new();
    let name = object_name(&service.metadata)?;
    let spec = service.spec.clone().unwrap_or_default();
    let cluster_ips = spec.cluster_ips.or(spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
    let object = Service {
        name,
        created_s: service.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
        labels: proxy_labels(&service.metadata),
        service_type: or_report(service_type(spec.type_.as_deref()), &mut errors).unwrap_or(ServiceType::ClusterIp),
        is_headless: cluster_ips.iter().any(|ip| ip == NO_CLUSTER_IP),
        cluster_ips: cluster_addresses(&cluster_ips, &mut errors),
        external_traffic_policy: or_report(traffic_policy(spec.external_traffic_policy.as_deref()), &mut errors)
            .unwrap_or(TrafficPolicy::Cluster),
        health_check_node_port: health_check_node_port(spec.health_check_node_port, &mut errors),
        ports: service_ports(&spec.ports.unwrap_or_default(), &mut errors),
        vips: ingress_ips(service, |mode| mode.is_none_or(|mode| mode == "VIP"), &mut errors),
        proxy_vips: ingress_ips(service, |mode| mode == Some("Proxy"), &mut errors),
        external_ips: external_ips(&spec.external_ips.unwrap_or_default(), &mut errors),
        load_balancer_class: spec.load_balancer_class,
        source_ranges: source_ranges(&spec.load_balancer_source_ranges.unwrap_or_default(), &mut errors),
        affinity_s: affinity_s(spec.session_affinity.as_deref(), spec.session_affinity_config.as_ref(), &mut errors),
    };
    Ok(Readable { object, errors })
}

/// Translates an EndpointSlice; an error when it has no name.
pub fn slice(slice: &discovery::EndpointSlice) -> Result<Readable<Slice>, FieldError> {
    let mut errors = Vec::new();
    let name = object_name(&slice.metadata)?;
    let service = label(&slice.metadata, "kubernetes.io/service-name")
        .map(|service| ObjectName { namespace: name.namespace.clone(), name: service.into() });
    let object = Slice {
        service,
        name,
        labels: proxy_labels(&slice.metadata),
        ports: target_ports(slice, &mut errors),
        endpoints: endpoints(slice, &mut errors),
    };
    Ok(Readable { object, errors })
}

/// Translates a NetworkPolicy. `policyTypes` left out means at least `Ingress`.
pub fn network_policy(policy: &networking::NetworkPolicy) -> Result<Readable<NetworkPolicyPresence>, FieldError> {
    let types = policy.spec.as_ref().and_then(|spec| spec.policy_types.as_deref()).unwrap_or_default();
    let restricts_ingress = types.is_empty() || types.iter().any(|policy_type| policy_type == "Ingress");
    let object = NetworkPolicyPresence { name: object_name(&policy.metadata)?, restricts_ingress };
    Ok(Readable { object, errors: Vec::new() })
}

/// The value, or none and the reason among the errors.
pub(super) fn or_report<T>(result: Result<T, FieldError>, errors: &mut Vec<FieldError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
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

/// Zero is how some clients write none.
fn health_check_node_port(number: Option<i32>, errors: &mut Vec<FieldError>) -> Option<u16> {
    let number = number.filter(|number| *number != 0)?;
    or_report(port_number(|| "spec.healthCheckNodePort".into(), number), errors)
}

fn cluster_addresses(texts: &[String], errors: &mut Vec<FieldError>) -> Vec<IpAddr> {
    let given = texts.iter().enumerate().filter(|(_, text)| !text.is_empty() && *text != NO_CLUSTER_IP);
    given.filter_map(|(index, text)| or_report(address(|| format!("spec.clusterIPs[{index}]"), text), errors)).collect()
}

fn service_ports(ports: &[core::ServicePort], errors: &mut Vec<FieldError>) -> Vec<ServicePort> {
    let mut names = BTreeSet::new();
    let mut translated = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let name = port.name.clone().unwrap_or_default();
        if !names.insert(name.clone()) {
            let why = format!("another port has the name {name:?} too, expected a name of its own for each port");
            errors.push(field_error(format!("spec.ports[{index}].name"), why));
            continue;
        }
        let number = port_number(|| format!("spec.ports[{index}].port"), port.port);
        let Some(number) = or_report(number, errors) else { continue };
        translated.push(ServicePort { name, protocol: protocol(port.protocol.as_deref()), port: number });
    }
    translated
}

/// The ingress addresses with an `ipMode` of that kind: a VIP is left to the node, `Proxy` is not (semantics 1.3). A host
/// name is no address.
fn ingress_ips(
    service: &core::Service,
    is_wanted: impl Fn(Option<&str>) -> bool,
    errors: &mut Vec<FieldError>,
) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let mut addresses = Vec::new();
    for (index, entry) in ingress.iter().enumerate().filter(|(_, entry)| is_wanted(entry.ip_mode.as_deref())) {
        if let Some(ip) = entry.ip.as_deref().filter(|ip| !ip.is_empty()) {
            addresses.extend(or_report(address(|| format!("status.loadBalancer.ingress[{index}].ip"), ip), errors));
        }
    }
    addresses
}

fn external_ips(texts: &[String], errors: &mut Vec<FieldError>) -> Vec<IpAddr> {
    let each = texts.iter().enumerate();
    each.filter_map(|(index, text)| or_report(address(|| format!("spec.externalIPs[{index}]"), text), errors)).collect()
}

fn target_ports(slice: &discovery::EndpointSlice, errors: &mut Vec<FieldError>) -> Vec<TargetPort> {
    let mut ports = Vec::new();
    for (index, port) in slice.ports.iter().flatten().enumerate() {
        let (Some(name), Some(number)) = (port.name.clone(), port.port.filter(|number| *number != 0)) else { continue };
        let number = port_number(|| format!("ports[{index}].port"), number);
        let Some(number) = or_report(number, errors) else { continue };
        ports.push(TargetPort { name, protocol: protocol(port.protocol.as_deref()), port: number });
    }
    ports
}

fn endpoints(slice: &discovery::EndpointSlice, errors: &mut Vec<FieldError>) -> Vec<Endpoint> {
    let is_expected: fn(&IpAddr) -> bool = match slice.address_type.as_str() {
        "IPv4" => IpAddr::is_ipv4,
        "IPv6" => IpAddr::is_ipv6,
        "FQDN" => return Vec::new(),
        other => {
            errors.push(field_error("addressType", format!("found {other:?}, expected IPv4, IPv6 or FQDN")));
            return Vec::new();
        }
    };
    let mut endpoints = Vec::new();
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        let Some(text) = endpoint.addresses.first() else { continue };
        let field = || format!("endpoints[{index}].addresses[0]");
        let Some(address) = or_report(address(field, text), errors) else { continue };
        if !is_expected(&address) {
            let why = format!("found {text:?}, expected an {} address", slice.address_type);
            errors.push(field_error(field(), why));
            continue;
        }
        let previous = endpoints.last().and_then(|previous: &Endpoint| previous.hints.clone());
        endpoints.push(with_conditions(address, endpoint, previous));
    }
    endpoints
}

fn with_conditions(address: IpAddr, endpoint: &discovery::Endpoint, previous: Option<Arc<Hints>>) -> Endpoint {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    Endpoint {
        address,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node_name: endpoint.node_name.as_deref().map(Arc::from),
        hints: hints(endpoint, previous),
    }
}

/// Neighbours in a slice mostly have equal hints, which are kept once.
fn hints(endpoint: &discovery::Endpoint, previous: Option<Arc<Hints>>) -> Option<Arc<Hints>> {
    let given = endpoint.hints.as_ref()?;
    let nodes = given.for_nodes.iter().flatten().map(|hint| hint.name.clone()).collect();
    let zones = given.for_zones.iter().flatten().map(|hint| hint.name.clone()).collect();
    let hints = Hints { nodes, zones };
    Some(previous.filter(|previous| **previous == hints).unwrap_or_else(|| Arc::new(hints)))
}

fn protocol(text: Option<&str>) -> PortProtocol {
    match text {
        None | Some("" | "TCP") => PortProtocol::Served(Protocol::Tcp),
        Some("UDP") => PortProtocol::Served(Protocol::Udp),
        Some("SCTP") => PortProtocol::Served(Protocol::Sctp),
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

pub(super) fn field_error(field: impl Into<String>, why: impl Into<String>) -> FieldError {
    FieldError { field: field.into(), why: why.into() }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
