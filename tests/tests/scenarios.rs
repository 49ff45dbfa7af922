//! The scenario runner: what is right passes, what is wrong fails, and nothing is skipped in silence.

use xlb_tests::scenarios::case::File;
use xlb_tests::scenarios::report::{Row, Summary, rows};
use xlb_tests::scenarios::run::{Terms, Verdict};

/// One Service with two ready pods, one of them on this node. Words in capitals are replaced.
const CASE: &str = "
version: 1
defaults: {this_node: node-a, node_ips: [192.168.0.2], node_zone: '', pod_detection: cluster-cidr}
scenarios:
  - id: T-1
    name: a case
    kind: KIND
    services:
      - {namespace: ns1, name: web, type: LoadBalancer, cluster_ips: [172.30.0.1], lb_ingress: [{ip: 192.0.2.10}],
         ports: [{name: http, protocol: TCP, port: 80}, {name: dns, protocol: UDP, port: 53}] SERVICE}
    slices:
      - {service: ns1/web, address_type: IPv4, ports: [{name: http, protocol: TCP, port: 8080}, {name: dns, protocol: UDP, port: 53}],
         endpoints: [{ip: 10.1.0.1, node: node-a}, {ip: 10.1.0.2, node: node-b} ENDPOINT]}
    BODY
";

/// Cases of our own that are right and do not hold yet, each with its reason.
const KNOWN_TO_FAIL: [&str; 0] = [];

const HERE: &str = "outcome: dnat, endpoints: ['10.1.0.1:8080']";

#[test]
fn every_case_of_our_own_holds_but_for_those_that_are_known() {
    let file = File::parse(include_str!("scenarios/own.yaml")).unwrap();
    let terms = Terms::default();
    let bad: Vec<Row> = rows(&file, "*", &terms).filter(|row| row.verdict != Verdict::Passed).collect();
    let ids: Vec<&str> = bad.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, KNOWN_TO_FAIL, "{bad:#?}");
}

#[test]
fn what_is_as_expected_passes() {
    for body in [
        packet("", HERE),
        packet(
            "",
            "outcome: dnat, endpoints: ['10.1.0.1:8080', '10.1.0.2:8080'], local_only: {outcome: dnat, endpoints: ['10.1.0.1:8080']}",
        ),
        packet(", sport: 40000", HERE),
        packet(", flow: {established_to: '10.1.0.1:8080'}", HERE),
        packet(", dport: 81", "outcome: pass"),
        packet(", proto: ICMP", "outcome: pass"),
        packet(", dst: 192.0.2.11", "outcome: dnat, local_only: {outcome: needs-remote-path}"),
    ] {
        assert_eq!(verdict("packet", "", "", &body), "pass", "{body}");
    }
}

#[test]
fn what_is_not_as_expected_fails_and_says_what_came_instead() {
    for (body, why) in [
        (packet("", "outcome: drop"), "expected drop, got 10.1.0.1:8080"),
        (packet("", "outcome: pass"), "expected pass, got 10.1.0.1:8080"),
        (packet("", "outcome: dnat, endpoints: ['10.1.0.2:8080']"), "expected 10.1.0.2:8080, got 10.1.0.1:8080"),
        (
            packet("", "outcome: dnat, endpoints: ['10.1.0.1:8080', '10.1.0.3:8080']"),
            "expected 10.1.0.1:8080 10.1.0.3:8080, got 10.1.0.1:8080",
        ),
        (packet(", dport: 81", HERE), "expected 10.1.0.1:8080, got pass"),
        (packet(", flow: {established_to: '10.1.0.9:8081'}", "outcome: pass"), "expected pass, got 10.1.0.9:8081"),
        (packet(", flow: {established_to: '10.1.0.2:8080'}", HERE), "expected 10.1.0.1:8080, got pass"),
    ] {
        let verdict = verdict("packet", "", "", &body);
        assert!(verdict.starts_with("FAIL: ") && verdict.contains(why), "{body}\n{verdict}");
    }
}

#[test]
fn a_ready_pod_that_gets_nothing_is_a_failure_and_an_unready_one_is_not() {
    let body = packet("", HERE);
    let more = |conditions| format!(", {{ip: 10.1.0.3, node: node-a {conditions}}}");
    assert!(verdict("packet", "", &more(""), &body).contains("got 10.1.0.1:8080 10.1.0.3:8080"));
    assert_eq!(verdict("packet", "", &more(", ready: false"), &body), "pass");
}

#[test]
fn what_xlb_cannot_do_yet_is_named_and_never_passes() {
    let body = packet("", "outcome: drop").replace("external", "remote-pod");
    let verdict = verdict("packet", "", "", &body);
    assert!(verdict.starts_with("not yet: in-cluster senders"), "{verdict}");
}

#[test]
fn clients_inside_reach_the_endpoints_of_all_nodes_and_the_others_those_of_this_one() {
    let both = "outcome: dnat, endpoints: ['10.1.0.1:8080', '10.1.0.2:8080']";
    let local_only = format!("{both}, local_only: {{outcome: drop}}");
    let established = |endpoint: &str| format!(", flow: {{established_to: '{endpoint}'}}");
    let to = |endpoint: &str| format!("outcome: dnat, endpoints: ['{endpoint}']");
    let udp = packet(&(established("10.1.0.2:53") + ", proto: UDP, dport: 53"), &to("10.1.0.2:53"));
    let rows = [
        (packet("", both), "", "pass"),
        (packet("", &local_only), "", "pass"),
        (packet("", HERE), "", "FAIL: its packet: expected 10.1.0.1:8080, got 10.1.0.1:8080 10.1.0.2:8080"),
        (packet("", "outcome: drop"), ", lb_source_ranges: [203.0.113.9/32]", "pass"),
        (packet("", both), ", lb_source_ranges: [203.0.113.0/24]", "pass"),
        (packet(&established("10.1.0.2:8080"), &to("10.1.0.2:8080")), "", "pass"),
        (udp, "", "pass"),
        (packet(", proto: ICMP", "outcome: pass"), "", "pass"),
    ];
    for kind in ["local-pod", "host"] {
        for (body, service, expected) in &rows {
            let body = body.replace("external", kind);
            assert_eq!(verdict("packet", service, "", &body), *expected, "{service} {body}");
        }
    }
    assert_eq!(verdict("packet", "", "", &packet("", HERE).replace("external", "remote-pod")), "pass");
}

#[test]
fn pods_that_kube_proxy_does_not_detect_are_as_clients_outside_and_the_nodes_own_processes_are_not() {
    let both = "outcome: dnat, endpoints: ['10.1.0.1:8080', '10.1.0.2:8080']";
    let undetected = |kind: &str, policy: &str, expect: &str| {
        let body = packet("", expect).replace("external", kind) + "\n    pod_detection: none";
        verdict("packet", &format!(", external_traffic_policy: {policy}"), "", &body)
    };
    for (kind, policy, expect) in [
        ("local-pod", "Local", HERE),
        ("local-pod", "Cluster", both),
        ("host", "Local", both),
        ("host", "Cluster", both),
    ] {
        assert_eq!(undetected(kind, policy, expect), "pass", "{kind} {policy}");
    }
    assert!(undetected("local-pod", "Local", both).ends_with("got 10.1.0.1:8080"));
}

#[test]
fn who_may_open_a_connection_is_part_of_the_outcome() {
    let ranges = |range: &str| format!(", lb_source_ranges: [{range}]");
    let established = || packet(", flow: {established_to: '10.1.0.1:8080'}", HERE);
    for (range, body, expected) in [
        ("198.51.100.0/24", packet("", "outcome: drop"), "pass"),
        ("198.51.100.0/24", packet("", HERE), "FAIL: its packet: expected 10.1.0.1:8080, got drop"),
        ("198.51.100.0/24", established(), "pass"),
        ("203.0.113.0/24", packet("", HERE), "pass"),
        ("203.0.113.0/24", packet("", "outcome: drop"), "FAIL: its packet: expected drop, got 10.1.0.1:8080"),
    ] {
        assert_eq!(verdict("packet", &ranges(range), "", &body), expected, "{range} {body}");
    }
}

#[test]
fn a_client_with_affinity_meets_one_endpoint_again_and_again() {
    let both = "outcome: dnat, endpoints: ['10.1.0.1:8080', '10.1.0.3:8080']";
    let steps = |second_s: u32, expect: &str| {
        let (first, second) = (packet_fields("", both), packet_fields("", expect));
        format!("steps: [{{at_s: 0, {first}}}, {{at_s: {second_s}, {second}}}]")
    };
    let other = ", {ip: 10.1.0.3, node: node-a}";
    let sticky = ", session_affinity: {type: ClientIP, timeout_seconds: 60}";
    let same = format!("{both}, same_as_step: 0");
    assert_eq!(verdict("sequence", sticky, other, &steps(60, &same)), "pass");
    assert_eq!(verdict("sequence", "", other, &steps(60, both)), "pass", "without affinity both are met");
    let unsticky = verdict("sequence", "", other, &steps(60, &same));
    assert!(unsticky.starts_with("FAIL: step 1: expected what step 0 met, None"), "{unsticky}");
}

#[test]
fn a_service_without_endpoints_is_refused_over_either_version() {
    let reject = |fields: &str, expect: &str| format!("steps: [{{slices: [], {}}}]", packet_fields(fields, expect));
    let six = ", cluster_ips: ['fd00::1'], lb_ingress: [{ip: '2001:db8::10'}]";
    let of_six = |body: String| body.replace("203.0.113.2", "2001:db8:1::2");
    for (body, expected) in [
        (reject("", "outcome: reject"), "pass"),
        (reject(", dport: 53, proto: UDP", "outcome: reject"), "pass"),
        (reject("", "outcome: drop"), "FAIL: its packet: expected drop, got reject"),
    ] {
        assert_eq!(verdict("sequence", "", "", &body), expected, "{body}");
    }
    let file = filled("sequence", "", "", &of_six(reject(", dst: '2001:db8::10'", "outcome: reject")));
    let file = file.replace(", cluster_ips: [172.30.0.1], lb_ingress: [{ip: 192.0.2.10}]", six);
    assert!(run(&file, "*").1, "{}", run(&file, "*").0);
}

#[test]
fn a_flow_whose_endpoint_went_begins_anew_over_udp_and_goes_on_over_tcp() {
    let gone = ", {ip: 10.1.0.3, node: node-a, ready: false, serving: false}";
    for (protocol, port, endpoint, deleted) in [
        ("UDP", 53, "10.1.0.1", false),
        ("UDP", 53, "10.1.0.3", true),
        ("UDP", 53, "10.1.0.9", true),
        ("UDP", 53, "192.0.2.10", true),
        ("UDP", 54, "192.0.2.10", false),
        ("TCP", 80, "10.1.0.3", false),
        ("TCP", 80, "10.1.0.9", false),
    ] {
        let flows = |deleted| cleanup(protocol, port, endpoint, deleted);
        assert_eq!(verdict("flow_cleanup", "", gone, &flows(deleted)), "pass", "{protocol} {endpoint}");
        let wrong = verdict("flow_cleanup", "", gone, &flows(!deleted));
        assert!(wrong.starts_with("FAIL: flow 0: "), "{protocol} {endpoint}: {wrong}");
    }
    assert_eq!(verdict("flow_cleanup", "", "", "flows: []"), "unsupported: it has no flows");
}

fn cleanup(protocol: &str, port: u16, endpoint: &str, deleted: bool) -> String {
    let flow = format!("proto: {protocol}, orig_dst: 192.0.2.10, orig_dport: {port}, reply_src: {endpoint}");
    format!("flows: [{{{flow}, deleted: {deleted}}}]")
}

#[test]
fn health_is_judged_by_what_would_be_answered() {
    let local = ", external_traffic_policy: Local, health_check_node_port: 30000";
    let port = |expect: &str| format!("health_of: ns1/web\n    probe: {{path: /x}}\n    expect: {{{expect}}}");
    let open = "listening: true, port: 30000, http: 200, local_endpoints: 1, service_proxy_healthy: true";
    let agent = |age: &str, http: u16| {
        format!(
            "state: {{timeout_s: 10, families: {{IPv4: {{oldest_queued_age_s: {age}}}}}, node: {{exists: true}}}}\n    \
             probe: {{path: /healthz}}\n    expect: {{http: {http}}}"
        )
    };
    for (kind, service, body, is_good) in [
        ("service_health", local, port(open), true),
        ("service_health", local, port(&open.replace("endpoints: 1", "endpoints: 2")), false),
        ("service_health", local, port("listening: false"), false),
        ("service_health", "", port("listening: false"), true),
        ("proxy_health", "", agent("9", 200), true),
        ("proxy_health", "", agent("10", 503), true),
        ("proxy_health", "", agent("10", 200), false),
    ] {
        let verdict = verdict(kind, service, "", &body);
        assert_eq!(verdict == "pass", is_good, "{body}\n{verdict}");
    }
}

#[test]
fn a_sequence_keeps_its_flows_and_fails_by_the_number_of_the_step() {
    let gone = "slices: []";
    let steps = |last: &str| {
        format!(
            "steps: [{{at_s: 0, {first}}}, {{at_s: 5, {gone}, {kept}}}, {{at_s: 6, {last}}}]",
            first = packet_fields("", HERE),
            kept = packet_fields(", flow: {established_to: '10.1.0.1:8080'}", HERE),
        )
    };
    assert_eq!(verdict("sequence", "", "", &steps(&packet_fields("", "outcome: reject"))), "pass");
    assert_eq!(
        verdict("sequence", "", "", &steps(&packet_fields("", HERE))),
        "FAIL: step 2: expected 10.1.0.1:8080, got reject"
    );
    let asked = |expect: &str| steps(&format!("health_of: ns1/web, expect: {{{expect}}}"));
    assert_eq!(verdict("sequence", "", "", &asked("listening: false")), "pass");
    assert_eq!(verdict("sequence", "", "", &asked("listening: true")), "FAIL: step 2: listening is false");
}

#[test]
fn the_packets_of_a_client_are_judged_one_by_one() {
    let packets = |rows: &[&str]| {
        let rows: Vec<String> = rows.iter().map(|row| format!("{{proto: TCP, {row}}}")).collect();
        format!("client: {{kind: external, ip: 203.0.113.2}}\n    packets: [{}]", rows.join(", "))
    };
    let syn = "dst: 192.0.2.10, dport: 80, flags: SYN, expect: {outcome: dnat, any_of: ['10.1.0.1:8080']}";
    let fin = "dst: 192.0.2.10, dport: 80, flags: 'FIN,ACK', expect: {outcome: dnat, same_as_packet: 0}";
    let reply = "direction: reply, src: 10.1.0.1, sport: 8080, dst: 203.0.113.2, dport: 40000";
    let restored = format!("{reply}, expect: {{outcome: un-dnat, src: 192.0.2.10, sport: 80}}");
    let plain = format!("{reply}, expect: {{outcome: pass}}");
    let cut = "dst: 192.0.2.10, truncated: true, expect: {outcome: pass}";
    let first = "dst: 192.0.2.10, dport: 80, fragment: first, expect: {outcome: dnat, any_of: ['10.1.0.1:8080']}";
    let later = "dst: 192.0.2.10, fragment: last, expect: {outcome: dnat, same_as_packet: 0}";
    let early = "dst: 192.0.2.10, fragment: middle, expect: {outcome: pass}";
    let icmp = "dst: 192.0.2.10, icmp: 3/4, expect: {outcome: pass}";
    let tagged = "vlan: 100, dst: 192.0.2.10, dport: 80, flags: ACK, expect: {outcome: dnat, same_as_packet: 0}";
    for (rows, expected) in [
        (&[syn, fin, &restored][..], "pass"),
        (&[&plain, cut], "pass"),
        (&[syn, &plain], "FAIL: packet 1: expected pass, but it leaves as 192.0.2.10:80"),
        (&[&restored], "FAIL: packet 0: expected un-dnat as 192.0.2.10, but it leaves as 10.1.0.1:8080"),
        (&[cut, fin], "FAIL: packet 1: expected dnat to the endpoint of packet 0, got Reached(10.1.0.1:8080)"),
        (&[first, later], "pass"),
        (&[early, first], "FAIL: packet 1: expected dnat 10.1.0.1:8080, got Passed"),
        (&[syn, icmp], "unsupported: packet 1: an ICMP error needs an `inner` packet"),
        (&[syn, tagged], "pass"),
    ] {
        assert_eq!(verdict("packet_edge", "", "", &packets(rows)), expected, "{rows:?}");
    }
}

#[test]
fn a_case_that_is_not_understood_has_a_line_and_is_no_success() {
    assert_eq!(verdict("riddle", "", "", ""), "unsupported: kind riddle");
    let unreadable = verdict("packet", "", "", "packet: 7");
    assert!(unreadable.starts_with("unsupported: it cannot be read: "), "{unreadable}");

    for (body, why) in [
        (packet("", "outcome: lost"), "its packet: lost is no outcome that the runner knows"),
        (packet("", "endpoints: []"), "its packet: its `expect` cannot be read: missing field `outcome`"),
        (packet("", "outcome: dnat, endpoints: [web]"), "its packet: web is no endpoint"),
        (packet(", proto: HTTP", "outcome: pass"), "its packet: HTTP is no protocol that the runner knows"),
        (packet("", HERE).replace("203.0.113.2", "somewhere"), "its packet: somewhere is no address"),
        ("expect: {outcome: pass}".into(), "its packet: it has no client, no packet, or neither and no `health_of`"),
        (packet("", HERE) + "\n    shape: round", "fields that the runner does not know: shape"),
    ] {
        assert_eq!(verdict("packet", "", "", &body), format!("unsupported: {why}"), "{body}");
    }

    let (text, is_good) =
        run(&CASE.replace("KIND", "riddle").replace("SERVICE", "").replace("ENDPOINT", "").replace("BODY", ""), "*");
    assert!(text.ends_with("scenarios: 0 passed, 0 failed, 0 not yet, 1 unsupported") && !is_good, "{text}");
}

#[test]
fn a_case_with_a_field_that_the_runner_does_not_know_does_not_pass() {
    for (service, endpoint) in [(", shape: round", ""), ("", ", {ip: 10.1.0.3, shape: round}")] {
        let verdict = verdict("packet", service, endpoint, &packet("", HERE));
        assert_eq!(verdict, "unsupported: fields that the runner does not know: shape");
    }
}

#[test]
fn what_another_node_would_serve_is_missing_where_all_is_wanted() {
    let terms = Terms { wants_remote: true, kernel: None };
    let both = "outcome: dnat, endpoints: ['10.1.0.1:8080', '10.1.0.2:8080'], local_only: {LOCAL}";
    for (local, expected) in [
        ("outcome: dnat, endpoints: ['10.1.0.1:8080']", "not yet"),
        ("outcome: needs-remote-path", "FAIL"),
        ("outcome: dnat, endpoints: ['10.1.0.1:8080', '10.1.0.2:8080']", "FAIL"),
    ] {
        let text = filled("packet", "", "", &packet("", &both.replace("LOCAL", local)));
        let file = File::parse(&text).unwrap();
        let row = rows(&file, "*", &terms).next().unwrap().to_string();
        assert!(row.contains(expected), "{local}: {row}");
    }
}

#[test]
fn a_flow_to_another_node_is_kube_proxys_unless_all_is_wanted() {
    let flow = packet(", flow: {established_to: '10.1.0.2:8080'}", "outcome: dnat, endpoints: ['10.1.0.2:8080']");
    let entry = cleanup("UDP", 53, "10.1.0.2", false);
    for (kind, body) in [("packet", flow), ("flow_cleanup", entry)] {
        let own = verdict(kind, "", "", &body);
        assert_eq!(own, "pass (a flow to another node is kube-proxy's, and stays with it)", "{kind}");
        let file = File::parse(&filled(kind, "", "", &body)).unwrap();
        let row = rows(&file, "*", &Terms { wants_remote: true, kernel: None }).next().unwrap();
        assert!(row.to_string().ends_with("not yet     a case: remote delivery"), "{row}");
    }
}

#[test]
fn an_id_that_matches_nothing_is_no_success() {
    let (text, is_good) = run(&filled("packet", "", "", &packet("", HERE)), "X-*");
    assert_eq!((text.as_str(), is_good), ("scenarios: 0 passed, 0 failed, 0 not yet, 0 unsupported", false));
}

/// A client outside sends to the Service's port 80; later fields replace earlier ones.
fn packet(fields: &str, expect: &str) -> String {
    packet_fields(fields, expect).replace(", packet:", "\n    packet:").replace(", expect:", "\n    expect:")
}

fn packet_fields(fields: &str, expect: &str) -> String {
    let mut packet = vec![("proto", "TCP".to_owned()), ("dst", "192.0.2.10".to_owned()), ("dport", "80".to_owned())];
    for field in fields.split(", ").filter(|field| !field.is_empty()) {
        let (key, value) = field.split_once(": ").unwrap();
        packet.retain(|(known, _)| *known != key);
        packet.push((key, value.to_owned()));
    }
    let packet: Vec<String> = packet.into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("client: {{kind: external, ip: 203.0.113.2}}, packet: {{{}}}, expect: {{{expect}}}", packet.join(", "))
}

/// What follows the case's name in its line, without the name.
fn verdict(kind: &str, service: &str, endpoint: &str, body: &str) -> String {
    let file = File::parse(&filled(kind, service, endpoint, body)).unwrap();
    let row = rows(&file, "*", &Terms::default()).next().unwrap().to_string();
    let (word, why) = row.strip_prefix("T-1      ").unwrap().split_once("a case").unwrap();
    format!("{}{why}", word.trim())
}

fn filled(kind: &str, service: &str, endpoint: &str, body: &str) -> String {
    let words = [("KIND", kind), ("SERVICE", service), ("ENDPOINT", endpoint), ("BODY", body)];
    words.into_iter().fold(CASE.to_owned(), |text, (word, value)| text.replace(word, value))
}

/// All lines, and whether it is a success.
fn run(text: &str, glob: &str) -> (String, bool) {
    let file = File::parse(text).unwrap();
    let mut summary = Summary::default();
    let mut lines = Vec::new();
    for row in rows(&file, glob, &Terms::default()) {
        summary.add(&row);
        lines.push(row.to_string());
    }
    lines.push(summary.to_string());
    (lines.join("\n"), summary.is_good())
}
