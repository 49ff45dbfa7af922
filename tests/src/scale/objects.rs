//! Services and slices of a large cluster as Kubernetes objects.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::NODE;

/// What the test server says of every object.
const CREATED_AT: &str = "2026-01-01T00:00:00Z";
/// Services of one namespace.
const SERVICES_PER_NAMESPACE: usize = 100;

/// Namespace and name of a Service.
pub fn service_name(number: usize) -> (String, String) {
    (format!("team-{}", number / SERVICES_PER_NAMESPACE), format!("web-{number}"))
}

/// A Service with one port.
pub fn service(number: usize, vip: Ipv4Addr) -> Value {
    let (namespace, name) = service_name(number);
    let cluster_ip = Ipv4Addr::from(0xac1e_0000 + number as u32);
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": name },
                      "creationTimestamp": CREATED_AT },
        "spec": { "type": "LoadBalancer", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
                  "ipFamilies": ["IPv4"], "externalTrafficPolicy": "Local", "selector": { "app": name },
                  "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }] },
        "status": { "loadBalancer": { "ingress": [{ "ip": vip, "ipMode": "VIP" }] } },
    })
}

/// Its slice: address, node (none: this one) and readiness of each endpoint.
pub fn slice(number: usize, endpoints: impl Iterator<Item = (Ipv4Addr, Option<u32>, bool)>) -> Value {
    let (namespace, name) = service_name(number);
    let endpoint = |(address, node, is_ready): (Ipv4Addr, Option<u32>, bool)| {
        let node = node.map_or_else(|| NODE.to_owned(), |node| format!("node-{node}"));
        let pod = format!("{name}-{}", u32::from(address));
        json!({
            "addresses": [address], "nodeName": node, "zone": "z1",
            "conditions": { "ready": is_ready, "serving": is_ready, "terminating": false },
            "targetRef": { "kind": "Pod", "namespace": namespace, "name": pod },
        })
    };
    let endpoints: Vec<Value> = endpoints.map(endpoint).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{name}-abcde"), "namespace": namespace,
                      "labels": { "kubernetes.io/service-name": name } },
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    })
}
