//! Bad input: objects as old, odd or broken clusters hold them. The cases are rows of `bad_objects.yaml`, and some that
//! are too long to write down.

use serde::Deserialize;
use serde_json::{Value, json};

/// Ports of the Service that asks for many.
pub const MANY_PORTS: u16 = 5000;
/// Bytes of an absurdly long name; Kubernetes allows 253 at most, and 63 for a Service.
const LONG_NAME_BYTES: usize = 1000;

/// Objects, and what becomes of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadCase {
    /// What is odd about them.
    pub case: String,
    /// The objects.
    pub objects: Vec<Value>,
    /// A line for each service port that is served: its Service, address and backends. None: it does not matter.
    pub served: Option<Vec<String>>,
    /// Each is part of a refusal.
    #[serde(default)]
    pub told: Vec<String>,
}

/// All cases, each in a namespace `bad-N` of its own.
pub fn bad_cases() -> Vec<BadCase> {
    let mut cases: Vec<BadCase> =
        serde_yaml_ng::from_str(include_str!("bad_objects.yaml")).expect("bad_objects.yaml is YAML of the right shape");
    cases.extend([many_ports(), long_names()]);
    for (number, case) in cases.iter_mut().enumerate() {
        for object in &mut case.objects {
            object["metadata"]["namespace"] = json!(format!("bad-{number}"));
        }
    }
    cases
}

fn many_ports() -> BadCase {
    let ports: Vec<u16> = (1..=MANY_PORTS).collect();
    let objects = with_ports("greedy", "198.18.0.20", &ports);
    let served = ports.iter().map(|port| format!("greedy 198.18.0.20:{port} 10.1.0.9:8080")).collect();
    BadCase { case: "a Service asks for 5000 ports".into(), objects, served: Some(served), told: Vec::new() }
}

fn long_names() -> BadCase {
    let name = "long".repeat(LONG_NAME_BYTES / 4);
    let objects = with_ports(&name, "198.18.0.21", &[80]);
    BadCase { case: "names are absurdly long".into(), objects, served: None, told: Vec::new() }
}

fn with_ports(name: &str, vip: &str, ports: &[u16]) -> Vec<Value> {
    let named = |port: &u16, number: u16| json!({ "name": format!("p{port}"), "port": number });
    let service_ports: Vec<Value> = ports.iter().map(|port| named(port, *port)).collect();
    let target_ports: Vec<Value> = ports.iter().map(|port| named(port, 8080)).collect();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "type": "LoadBalancer", "clusterIP": "172.30.0.1", "ports": service_ports },
        "status": { "loadBalancer": { "ingress": [{ "ip": vip }] } },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{name}-1"), "labels": { "kubernetes.io/service-name": name } },
        "ports": target_ports, "endpoints": [{ "addresses": ["10.1.0.9"], "nodeName": "node" }],
    });
    vec![service, slice]
}
