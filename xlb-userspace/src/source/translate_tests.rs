//! Facts about translation, on objects as an operator would write them.

use serde::de::DeserializeOwned;

use super::*;

#[test]
fn a_service_keeps_what_decides_about_it() {
    let translated = service(&yaml(
        "
         metadata:
           name: web
           namespace: shop
           creationTimestamp: 2024-01-01T00:00:10Z
           labels: {service.kubernetes.io/service-proxy-name: xlb}
         spec:
           type: LoadBalancer
           externalTrafficPolicy: Local
           healthCheckNodePort: 30123
           loadBalancerClass: example.org/fast
           externalIPs: [198.051.100.007, '::ffff:198.51.100.8']
           clusterIP: 172.30.0.1
           clusterIPs: [172.30.0.1, 'fd00::1']
           loadBalancerSourceRanges: [198.51.100.7/24, ' 2001:db8::/32 ']
           sessionAffinity: ClientIP
           ports: [{name: web, port: 80}, {name: dns, protocol: UDP, port: 53}, {name: sig, protocol: SCTP, port: 99}]
         status:
           loadBalancer:
             ingress:
             - {ip: 192.000.2.10}
             - {ip: 192.0.2.11, ipMode: VIP}
             - {ip: 192.0.2.12, ipMode: Proxy}
             - {hostname: example.org}
             - {ip: '2001:db8::1'}",
    ))
    .unwrap();

    let port = |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port };
    let expected = Service {
        name: ObjectName { namespace: "shop".into(), name: "web".into() },
        created_s: Some(1_704_067_210),
        labels: ProxyLabels { proxy_name: Some("xlb".into()), headless: false },
        service_type: ServiceType::LoadBalancer,
        cluster_ips: vec!["172.30.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        is_headless: false,
        external_traffic_policy: TrafficPolicy::Local,
        health_check_node_port: Some(30123),
        ports: vec![
            port("web", PortProtocol::Served(Protocol::Tcp), 80),
            port("dns", PortProtocol::Served(Protocol::Udp), 53),
            port("sig", PortProtocol::Served(Protocol::Sctp), 99),
        ],
        load_balancer_class: Some("example.org/fast".into()),
        vips: ["192.0.2.10", "192.0.2.11", "2001:db8::1"].map(|vip| vip.parse().unwrap()).to_vec(),
        proxy_vips: vec!["192.0.2.12".parse().unwrap()],
        external_ips: ["198.51.100.7", "198.51.100.8"].map(|vip| vip.parse().unwrap()).to_vec(),
        source_ranges: Some(["198.51.100.0/24", "2001:db8::/32"].map(|range| range.parse().unwrap()).into()),
        affinity_s: Some(10_800),
    };
    assert_eq!(translated, expected);
}

#[test]
fn what_a_service_leaves_out_has_kubernetes_own_defaults() {
    let translated = service(&yaml("{metadata: {name: web}, spec: {clusterIP: None}}")).unwrap();
    assert_eq!(translated.name.to_string(), "default/web");
    assert_eq!(translated.service_type, ServiceType::ClusterIp);
    assert_eq!(translated.external_traffic_policy, TrafficPolicy::Cluster);
    assert!(translated.is_headless && translated.cluster_ips.is_empty());

    let unassigned = service(&yaml("{metadata: {name: web}, spec: {clusterIP: ''}}")).unwrap();
    assert!(!unassigned.is_headless && unassigned.cluster_ips.is_empty());
}

#[test]
fn a_slice_keeps_its_named_ports_and_each_first_address() {
    let translated = slice(&yaml(
        "
         metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
         addressType: IPv4
         ports: [{name: web, port: 8080}, {port: 1}, {name: none}, {name: zero, port: 0}, {name: '', protocol: UDP, port: 2}]
         endpoints: [{addresses: [10.1.0.1, 10.1.0.2], nodeName: node-a}, {addresses: []}]",
    ))
    .unwrap();

    assert_eq!(translated.service, Some(ObjectName { namespace: "shop".into(), name: "web".into() }));
    let ports: Vec<(&str, u16)> = translated.ports.iter().map(|port| (port.name.as_str(), port.port)).collect();
    assert_eq!(ports, [("web", 8080), ("", 2)]);
    let endpoints: Vec<String> = translated.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(endpoints, ["10.1.0.1"]);
    assert_eq!(translated.endpoints[0].node_name.as_deref(), Some("node-a"));
}

#[test]
fn absent_conditions_have_each_its_own_default() {
    for (conditions, expected) in [
        ("{}", (true, true, false)),
        ("{ready: null}", (true, true, false)),
        ("{ready: false, terminating: true}", (false, true, true)),
        ("{serving: false}", (true, false, false)),
        ("{ready: false, serving: false, terminating: false}", (false, false, false)),
    ] {
        let endpoint = format!("{{addresses: [10.1.0.1], conditions: {conditions}}}");
        let slice =
            slice(&yaml(&format!("{{metadata: {{name: s}}, addressType: IPv4, endpoints: [{endpoint}]}}"))).unwrap();
        let Endpoint { ready, serving, terminating, .. } = slice.endpoints[0];
        assert_eq!((ready, serving, terminating), expected, "{conditions}");
    }
}

#[test]
fn equal_hints_of_neighbours_are_kept_once() {
    let slice = slice(&yaml(
        "
         metadata: {name: s}
         addressType: IPv4
         endpoints:
         - {addresses: [10.1.0.1], hints: {forZones: [{name: a}], forNodes: [{name: node-a}]}}
         - {addresses: [10.1.0.2], hints: {forZones: [{name: a}], forNodes: [{name: node-a}]}}
         - {addresses: [10.1.0.3], hints: {forZones: [{name: b}, {name: c}]}}
         - {addresses: [10.1.0.4]}",
    ))
    .unwrap();

    let hints: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.hints.clone()).collect();
    let first = Hints { nodes: vec!["node-a".into()], zones: vec!["a".into()] };
    assert_eq!(hints[0].as_deref(), Some(&first));
    assert!(Arc::ptr_eq(hints[0].as_ref().unwrap(), hints[1].as_ref().unwrap()));
    assert_eq!(hints[2].as_deref(), Some(&Hints { nodes: vec![], zones: vec!["b".into(), "c".into()] }));
    assert_eq!(hints[3], None);
}

#[test]
fn a_slice_of_host_names_has_no_endpoints_and_one_without_a_label_no_service() {
    let text = "{metadata: {name: s}, addressType: FQDN, endpoints: [{addresses: [example.org]}]}";
    let slice = slice(&yaml(text)).unwrap();
    assert_eq!((slice.service, slice.endpoints), (None, vec![]));
}

#[test]
fn a_network_policy_restricts_ingress_unless_it_says_otherwise() {
    for (spec, expected) in [
        ("{}", true),
        ("{policyTypes: []}", true),
        ("{policyTypes: [Ingress]}", true),
        ("{policyTypes: [Egress, Ingress]}", true),
        ("{policyTypes: [Egress]}", false),
    ] {
        let policy = network_policy(&yaml(&format!("{{metadata: {{name: p}}, spec: {spec}}}"))).unwrap();
        assert_eq!(policy.restricts_ingress, expected, "{spec}");
    }
}

#[test]
fn values_that_no_api_server_accepts_are_named() {
    for (text, expected) in [
        ("{}", "metadata.name: missing"),
        (
            "{metadata: {name: web}, spec: {type: Loadbalancer}}",
            "spec.type: found \"Loadbalancer\", expected ClusterIP, NodePort, LoadBalancer or ExternalName",
        ),
        (
            "{metadata: {name: web}, spec: {externalTrafficPolicy: local}}",
            "spec.externalTrafficPolicy: found \"local\", expected Cluster or Local",
        ),
        (
            "{metadata: {name: web}, spec: {ports: [{port: 80}, {port: 81}]}}",
            "spec.ports[1].name: another port has the name \"\" too, expected a name of its own for each port",
        ),
        (
            "{metadata: {name: web}, spec: {ports: [{port: 70000}]}}",
            "spec.ports[0].port: found 70000, expected a port from 1 to 65535",
        ),
        (
            "{metadata: {name: web}, spec: {clusterIPs: [yes]}}",
            "spec.clusterIPs[0]: found \"yes\", expected an IP address",
        ),
        (
            "{metadata: {name: web}, spec: {loadBalancerSourceRanges: [192.0.2]}}",
            "spec.loadBalancerSourceRanges[0]: found \"192.0.2\", expected an address or a range such as 192.0.2.0/24",
        ),
        (
            "{metadata: {name: web}, spec: {sessionAffinity: ClientIp}}",
            "spec.sessionAffinity: found \"ClientIp\", expected ClientIP or None",
        ),
        (
            "{metadata: {name: web}, status: {loadBalancer: {ingress: [{ip: 192.0.2}]}}}",
            "status.loadBalancer.ingress[0].ip: found \"192.0.2\", expected an IP address",
        ),
    ] {
        assert_eq!(service(&yaml(text)).unwrap_err().to_string(), expected, "{text}");
    }
    for (text, expected) in [
        ("{metadata: {name: s}, addressType: IP}", "addressType: found \"IP\", expected IPv4, IPv6 or FQDN"),
        (
            "{metadata: {name: s}, addressType: IPv4, endpoints: [{addresses: ['fd00::1']}]}",
            "endpoints[0].addresses[0]: found \"fd00::1\", expected an IPv4 address",
        ),
        (
            "{metadata: {name: s}, addressType: IPv4, ports: [{name: web, port: -1}]}",
            "ports[0].port: found -1, expected a port from 1 to 65535",
        ),
    ] {
        assert_eq!(slice(&yaml(text)).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn the_readable_part_of_an_object_is_kept_and_each_mistake_is_named() {
    let read = super::service(&yaml(
        "
         metadata: {name: web}
         spec: {type: X, externalTrafficPolicy: Local, clusterIPs: [172.30.0.1, x], ports: [{port: 0, name: a}, {port: 80}]}
         status: {loadBalancer: {ingress: [{ip: x}, {ip: 192.0.2.10}]}}",
    ))
    .unwrap();
    let fields: Vec<&str> = read.errors.iter().map(|error| error.field.as_str()).collect();
    let expected = ["spec.type", "spec.clusterIPs[1]", "spec.ports[0].port", "status.loadBalancer.ingress[0].ip"];
    assert_eq!(fields, expected);
    assert_eq!((read.object.ports.len(), read.object.vips.len(), read.object.cluster_ips.len()), (1, 1, 1));

    let read = super::slice(&yaml(
        "{metadata: {name: s}, addressType: IPv4, ports: [{name: a, port: -1}, {name: b, port: 1}],
          endpoints: [{addresses: [x]}, {addresses: ['fd00::1']}, {addresses: [10.1.0.1]}]}",
    ))
    .unwrap();
    assert_eq!((read.errors.len(), read.object.ports.len(), read.object.endpoints.len()), (3, 1, 1));
}

#[test]
fn affinity_lasts_as_long_as_it_says_or_as_usual() {
    let affinity_s = |spec: &str| {
        let read = super::service(&yaml(&format!("{{metadata: {{name: web}}, spec: {{{spec}}}}}"))).unwrap();
        (read.object.affinity_s, read.errors.first().map(ToString::to_string))
    };
    let timeout = |seconds: &str| {
        affinity_s(&format!(
            "sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        ))
    };
    let beyond = |seconds: &str| {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        (Some(10_800), Some(format!("{field}: found {seconds}, expected 1 to 86400 seconds")))
    };
    assert_eq!(affinity_s("sessionAffinity: None"), (None, None));
    assert_eq!(affinity_s("sessionAffinity: ClientIP"), (Some(10_800), None));
    assert_eq!((timeout("1"), timeout("86400")), ((Some(1), None), (Some(86_400), None)));
    assert_eq!((timeout("0"), timeout("86401"), timeout("-5")), (beyond("0"), beyond("86401"), beyond("-5")));
}

#[test]
fn a_source_range_that_cannot_be_read_leaves_the_others_and_is_named() {
    let text = "{metadata: {name: web}, spec: {loadBalancerSourceRanges: [10.0.0.0/8, nonsense, '2001:db8::/129']}}";
    let read = super::service(&yaml(text)).unwrap();
    let fields: Vec<&str> = read.errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["spec.loadBalancerSourceRanges[1]", "spec.loadBalancerSourceRanges[2]"]);
    assert_eq!(read.object.source_ranges, Some(["10.0.0.0/8".parse().unwrap()].into()));

    let listed = |list: &str| {
        let text = format!("{{metadata: {{name: web}}, spec: {{loadBalancerSourceRanges: [{list}]}}}}");
        super::service(&yaml(&text)).unwrap().object.source_ranges
    };
    assert_eq!((listed(""), listed("nonsense")), (None, Some([].into())), "what was asked for is not forgotten");
}

/// A Service of which everything can be read.
fn service(service: &core::Service) -> Result<Service, FieldError> {
    super::service(service)?.entire()
}

/// A slice of which everything can be read.
fn slice(slice: &discovery::EndpointSlice) -> Result<Slice, FieldError> {
    super::slice(slice)?.entire()
}

/// A policy of which everything can be read.
fn network_policy(policy: &networking::NetworkPolicy) -> Result<NetworkPolicyPresence, FieldError> {
    super::network_policy(policy)?.entire()
}

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml_ng::from_str(text).unwrap()
}
