//! The agent's metrics as text, read by a strict reader; and that reader's own strictness.

use prometheus_client::registry::Registry;
use xlb_common::Reason;
use xlb_common::abi::ServiceStats;
use xlb_tests::openmetrics::parse;
use xlb_userspace::events::RefusalKind;
use xlb_userspace::maps::fill::Fill;
use xlb_userspace::maps::stats::ServiceNumbers;
use xlb_userspace::metrics::facts::{Facts, MapFacts, by_kind};
use xlb_userspace::metrics::model::EndpointState;
use xlb_userspace::metrics::text;
use xlb_userspace::plan::desired::Refusal;

#[test]
fn everything_that_the_agent_can_tell_is_openmetrics() {
    let metrics = parse(&text::text(&facts(), Some(&maps())).expect("text")).expect("OpenMetrics");
    for (name, labels, expected) in [
        ("xlb_build_info", &[("version", env!("CARGO_PKG_VERSION"))][..], 1.0),
        ("xlb_sync_duration_seconds_count", &[], 2.0),
        ("xlb_sync_duration_seconds_bucket", &[("le", "0.001")], 1.0),
        ("xlb_network_programming_duration_seconds_count", &[], 1.0),
        ("xlb_sync_failures_total", &[], 3.0),
        ("xlb_last_sync_timestamp_seconds", &[], 1.7e9),
        ("xlb_last_queued_timestamp_seconds", &[], 1.8e9),
        ("xlb_endpoints", &[("state", "ready"), ("place", "local")], 5.0),
        ("xlb_endpoints", &[("state", "terminating_serving"), ("place", "elsewhere")], 0.0),
        ("xlb_services_without_local_endpoints", &[("traffic_policy", "external")], 2.0),
        ("xlb_refusals", &[("kind", "contested")], 0.0),
        ("xlb_refusals", &[("kind", "external_ip")], 1.0),
        ("xlb_watch_lists_total", &[("resource", "services")], 2.0),
        ("xlb_watch_errors_total", &[("resource", "services")], 7.0),
        ("xlb_events_total", &[("outcome", "failed")], 1.0),
        ("xlb_health_answers_total", &[("path", "/healthz"), ("code", "503")], 4.0),
        ("xlb_packets_total", &[("reason", "accepted"), ("direction", "socket")], 9.0),
        ("xlb_generation", &[], 12.0),
        ("xlb_map_entries", &[("map", "FLOWS_V4")], 10.0),
        ("xlb_map_capacity", &[("map", "FLOWS_V4")], 100.0),
        ("xlb_map_entries", &[("map", "SLOTS")], 251.0),
    ] {
        assert_eq!(metrics.value(name, labels), Some(expected), "{name} {labels:?}");
    }
    let web = [("namespace", "default"), ("service", "web"), ("port", "udp"), ("protocol", "udp"), ("family", "ipv6")];
    let others = ["namespace", "service", "port", "protocol", "family"].map(|label| (label, "_other"));
    for (name, labels, last, expected) in [
        ("xlb_service_packets_total", &web, ("direction", "forward"), 3.0),
        ("xlb_service_packets_total", &web, ("direction", "return"), 0.0),
        ("xlb_service_bytes_total", &web, ("direction", "return"), 180.0),
        ("xlb_service_new_flows_total", &web, ("client", "outside"), 2.0),
        ("xlb_service_new_flows_total", &web, ("client", "inside"), 0.0),
        ("xlb_service_packets_total", &others, ("direction", "forward"), 6.0),
    ] {
        let labels = [&labels[..], &[last]].concat();
        assert_eq!(metrics.value(name, &labels), Some(expected), "{name} {labels:?}");
    }
}

#[test]
fn before_there_are_maps_the_rest_is_told() {
    let metrics = parse(&text::text(&Facts::default(), None).expect("text")).expect("OpenMetrics");
    assert_eq!(metrics.value("xlb_last_sync_timestamp_seconds", &[]), Some(0.0));
    assert_eq!(metrics.value("xlb_generation", &[]), None);
    assert_eq!(metrics.sum("xlb_refusals"), 0.0);
}

#[test]
fn every_reason_has_a_counter() {
    let mut registry = Registry::with_prefix("xlb");
    let counts: Vec<_> = Reason::ALL.iter().map(|&reason| (reason, 1)).collect();
    text::packets(&mut registry, &counts);
    let metrics = parse(&text::written(&registry).expect("text")).expect("OpenMetrics");
    assert_eq!(metrics.sum("xlb_packets_total"), Reason::ALL.len() as f64);
}

#[test]
fn the_reader_accepts_what_the_specification_shows() {
    let text = "# TYPE foo_seconds counter\n# UNIT foo_seconds seconds\n# HELP foo_seconds a \\\\ b\\n\n\
                foo_seconds_total{path=\"C:\\\\DIR\",error=\"say \\\"x\\\"\\n\"} 1.5e3\n# EOF\n";
    let metrics = parse(text).expect("OpenMetrics");
    let labels = [("path", "C:\\DIR"), ("error", "say \"x\"\n")];
    assert_eq!(metrics.value("foo_seconds_total", &labels), Some(1500.0));
}

#[test]
fn the_reader_refuses_what_a_scraper_would() {
    let gauge = "# TYPE a gauge\n# HELP a b\n";
    let histogram = "# TYPE h histogram\n# HELP h b\n";
    for (text, why) in [
        ("", "does not end"),
        ("# EOF\n\n", "does not end"),
        ("# TYPE a gauge\n# HELP a b\na 1\n", "does not end"),
        (&format!("{gauge}\na 1\n# EOF\n"), "neither descriptor nor sample"),
        (&format!("{gauge}a 1\n# TYPE a gauge\n# EOF\n"), "behind a sample"),
        (&format!("{gauge}a 1\n# TYPE b gauge\n# HELP b b\nb 1\n# TYPE a gauge\n# EOF\n"), "was there before"),
        (&format!("{gauge}a 1\nb 1\n# EOF\n"), "another family"),
        (&format!("{gauge}a 1\na 1\n# EOF\n"), "same series twice"),
        (&format!("{gauge}a_total 1\n# EOF\n"), "no sample of a gauge"),
        (&format!("{gauge}a{{x=\"1\"}} one\n# EOF\n"), "no number"),
        (&format!("{gauge}a{{x=\"1\",x=\"2\"}} 1\n# EOF\n"), "twice"),
        (&format!("{gauge}a{{x=\"\\t\"}} 1\n# EOF\n"), "a backslash before"),
        (&format!("{gauge}a{{x:y=\"1\"}} 1\n# EOF\n"), "no name of a label"),
        (&format!("{gauge}a  1\n# EOF\n"), "no number"),
        ("# TYPE c counter\n# HELP c b\nc 1\n# EOF\n", "no sample of a counter"),
        ("# TYPE c counter\n# HELP c b\nc_total -1\n# EOF\n", "no sample of a counter"),
        ("# TYPE c_total counter\n# HELP c_total b\nc_total_total 1\n# EOF\n", "_total belongs"),
        ("# TYPE c gauge\n# UNIT c seconds\n# HELP c b\nc 1\n# EOF\n", "its unit"),
        ("# TYPE a gauge\na 1\n# EOF\n", "lacks TYPE or HELP"),
        (&format!("{histogram}h_bucket{{le=\"1.0\"}} 2\nh_count 2\nh_sum 1\n# EOF\n"), "do not grow"),
        (
            &format!("{histogram}h_bucket{{le=\"1.0\"}} 2\nh_bucket{{le=\"+Inf\"}} 1\nh_count 1\nh_sum 1\n# EOF\n"),
            "do not grow",
        ),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(why), "{text:?}: {error}");
    }
}

fn facts() -> Facts {
    let mut facts = Facts { sync_failures: 3, last_sync_s: 1.7e9, last_queued_s: 1.8e9, ..Facts::default() };
    facts.sync_duration.observe(0.000_8);
    facts.sync_duration.observe(40.0);
    facts.programming.observe(0.01);
    facts.asked.endpoints.insert((EndpointState::Ready, true), 5);
    facts.asked.without_local_endpoints = 2;
    let why = "externalIP 198.51.100.7 is not served: it is not in --external-ip-cidrs".to_owned();
    facts.refusals = by_kind(&[Refusal { object: "Service default/web".into(), why }]);
    assert_eq!(facts.refusals.get(&RefusalKind::ExternalIp), Some(&1));
    facts.watches = vec![("services", 2, 7), ("nodes", 1, 0)];
    facts.events = (5, 1);
    facts.answers.insert(("/healthz", 503), 4);
    facts.answers.insert(("other", 404), 1);
    facts.served.fills = vec![Fill { map: "SLOTS", entries: 251, capacity: 1 << 20 }];
    facts
}

fn maps() -> MapFacts {
    let fills = vec![Fill { map: "FLOWS_V4", entries: 10, capacity: 100 }];
    let stats = ServiceStats { packets_to_pods: 3, bytes_to_clients: 180, new_flows: 2, ..ServiceStats::default() };
    let services = ServiceNumbers { own: vec![("default/web:udp/udp/ipv6".into(), stats)], others: stats.plus(stats) };
    let counters = vec![(Reason::Accepted, 9), (Reason::Truncated, 0)];
    MapFacts { counters, generation: 12, services: Some(services), fills }
}
