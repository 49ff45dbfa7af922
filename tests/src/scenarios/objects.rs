//! A case's Services and slices as Kubernetes' own objects, and what the agent's sources make of them.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use xlb_userspace::model::Object;
use xlb_userspace::source::translate;

use super::case::{Endpoint, Port, Service, Slice};

/// All objects of a state, as the agent keeps them.
pub fn translated(services: &[Service], slices: &[Slice]) -> Result<Vec<Object>> {
    let services = services.iter().map(|service| {
        let translated = translate::service(&kubernetes_service(service)?);
        let translated = translated.map_err(|error| anyhow::anyhow!("Service {}: {error}", service.name))?;
        Ok(translated.object.into())
    });
    let slices = slices.iter().enumerate().map(|(index, slice)| {
        let translated = translate::slice(&kubernetes_slice(slice, index));
        let translated = translated.map_err(|error| anyhow::anyhow!("slice {index}: {error}"))?;
        Ok(Object::Slice(translated.object))
    });
    services.chain(slices).collect()
}

/// The Service as an API server would hand it out.
pub fn kubernetes_service(service: &Service) -> Result<core::Service> {
    let created = service.created.map(Timestamp::from_second).transpose().context("reading `created`")?;
    let metadata = ObjectMeta {
        namespace: Some(service.namespace.clone()),
        name: Some(service.name.clone()),
        creation_timestamp: created.map(Time),
        labels: Some(service.labels.clone()),
        annotations: Some(service.annotations.clone()),
        ..ObjectMeta::default()
    };
    let spec = core::ServiceSpec {
        type_: service.service_type.clone(),
        cluster_ip: service.cluster_ips.first().cloned(),
        cluster_ips: Some(service.cluster_ips.clone()),
        ip_families: service.ip_families.clone(),
        external_ips: Some(service.external_ips.clone()),
        load_balancer_ip: service.load_balancer_ip.clone(),
        load_balancer_class: service.load_balancer_class.clone(),
        load_balancer_source_ranges: service.lb_source_ranges.clone(),
        external_traffic_policy: service.external_traffic_policy.clone(),
        internal_traffic_policy: service.internal_traffic_policy.clone(),
        health_check_node_port: service.health_check_node_port,
        session_affinity: service.session_affinity.as_ref().map(|affinity| affinity.affinity_type.clone()),
        session_affinity_config: affinity_config(service),
        ports: Some(service.ports.iter().map(service_port).collect()),
        ..core::ServiceSpec::default()
    };
    let ingress = service.lb_ingress.iter().map(|entry| core::LoadBalancerIngress {
        ip: entry.ip.clone(),
        hostname: entry.hostname.clone(),
        ip_mode: entry.ip_mode.clone(),
        ports: None,
    });
    let load_balancer = Some(core::LoadBalancerStatus { ingress: Some(ingress.collect()) });
    let status = core::ServiceStatus { load_balancer, ..core::ServiceStatus::default() };
    Ok(core::Service { metadata, spec: Some(spec), status: Some(status) })
}

/// The slice as an API server would hand it out. One without a name is distinct from all others.
pub fn kubernetes_slice(slice: &Slice, index: usize) -> discovery::EndpointSlice {
    let (namespace, service) = match slice.service.as_deref() {
        Some(full) => full.split_once('/').map_or(("default", Some(full)), |(space, name)| (space, Some(name))),
        None => ("default", None),
    };
    let mut labels = slice.labels.clone();
    labels.extend(service.map(|service| ("kubernetes.io/service-name".to_owned(), service.to_owned())));
    let name = slice.name.clone().unwrap_or_else(|| format!("{}-unnamed-{index:03}", service.unwrap_or("slice")));
    let metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        name: Some(name),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    let ports = slice.ports.iter().map(|port| discovery::EndpointPort {
        name: port.name.clone(),
        protocol: port.protocol.clone(),
        port: port.port,
        app_protocol: None,
    });
    discovery::EndpointSlice {
        address_type: slice.address_type.clone(),
        endpoints: slice.endpoints.iter().map(kubernetes_endpoint).collect(),
        metadata,
        ports: Some(ports.collect()),
    }
}

fn kubernetes_endpoint(endpoint: &Endpoint) -> discovery::Endpoint {
    let Endpoint { ready, serving, terminating, .. } = *endpoint;
    let zones = endpoint.zone_hints.iter().flatten().map(|name| discovery::ForZone { name: name.clone() });
    let nodes = endpoint.node_hints.iter().flatten().map(|name| discovery::ForNode { name: name.clone() });
    let hints = discovery::EndpointHints { for_zones: Some(zones.collect()), for_nodes: Some(nodes.collect()) };
    let has_hints = endpoint.zone_hints.is_some() || endpoint.node_hints.is_some();
    discovery::Endpoint {
        addresses: endpoint.addresses(),
        conditions: Some(discovery::EndpointConditions { ready, serving, terminating }),
        node_name: endpoint.node.clone(),
        hints: has_hints.then_some(hints),
        ..discovery::Endpoint::default()
    }
}

fn service_port(port: &Port) -> core::ServicePort {
    core::ServicePort {
        name: port.name.clone(),
        protocol: port.protocol.clone(),
        port: port.port.unwrap_or_default(),
        node_port: port.node_port,
        ..core::ServicePort::default()
    }
}

fn affinity_config(service: &Service) -> Option<core::SessionAffinityConfig> {
    let timeout_seconds = service.session_affinity.as_ref()?.timeout_seconds;
    Some(core::SessionAffinityConfig { client_ip: Some(core::ClientIPConfig { timeout_seconds }) })
}
