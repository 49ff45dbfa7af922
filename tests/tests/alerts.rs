//! Alerts and dashboard in `deploy/`: well-formed, and each alert fires on its trouble. That what they ask for is what agents
//! tell is shown with a real one (`agent/alerts.rs`).

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_common::abi::ServiceStats;
use xlb_tests::alerts::{alerts, anchors, panels};
use xlb_tests::openmetrics::{Metrics, parse};
use xlb_tests::promql::{Answer, Scrapes, asks_for, query};
use xlb_userspace::maps::fill::Fill;
use xlb_userspace::maps::stats::ServiceNumbers;
use xlb_userspace::metrics::text;
use xlb_userspace::metrics::{Facts, MapFacts};

/// From one scrape to the next.
const SECONDS: f64 = 60.0;
const NOW_S: f64 = 1_800_000_000.0;

/// The sample that is another one at the second scrape: its name, labels of it, and what it is then more than before.
type Change = (&'static str, &'static [(&'static str, &'static str)], f64);

/// Every alert, with what makes it fire.
const TROUBLE: [(&str, &[Change]); 22] = [
    ("XlbAgentDown", &[]),
    ("XlbChangeWaits", &[("xlb_last_queued_timestamp_seconds", &[], 40.0)]),
    (
        "XlbNotInSync",
        &[("xlb_last_sync_timestamp_seconds", &[], -61.0), ("xlb_last_queued_timestamp_seconds", &[], -62.0)],
    ),
    ("XlbRoundsFail", &[("xlb_sync_failures_total", &[], 1.0)]),
    ("XlbRoundsSlow", &[("xlb_sync_duration_seconds_bucket", &[("le", "+Inf")], 100.0)]),
    ("XlbProgrammingSlow", &[("xlb_network_programming_duration_seconds_bucket", &[("le", "+Inf")], 100.0)]),
    ("XlbProgramsRefused", &[("xlb_programs_refused", &[], 1.0)]),
    ("XlbChangesMissed", &[("xlb_missed_changes_total", &[], 1.0)]),
    ("XlbCannotFollowCluster", &[("xlb_watch_errors_total", &[("resource", "services")], 1.0)]),
    ("XlbUnhealthy", &[("xlb_health_answers_total", &[("path", "/livez"), ("code", "503")], 1.0)]),
    ("XlbRefusals", &[("xlb_refusals", &[("kind", "contested")], 1.0)]),
    ("XlbDropsForWantOfPods", &[("xlb_packets_total", &[("reason", "empty_dropped")], 100.0)]),
    ("XlbRefusalsForWantOfPods", &[("xlb_packets_total", &[("reason", "empty_rejected")], 100.0)]),
    ("XlbStaleReferences", &[("xlb_packets_total", &[("reason", "stale_reference")], 1.0)]),
    ("XlbRepliesUnknown", &[("xlb_packets_total", &[("reason", "reply_unknown")], 6000.0)]),
    ("XlbConnectionsForgotten", &[("xlb_packets_total", &[("reason", "closed_unknown")], 100.0)]),
    ("XlbServiceSilent", &[("xlb_service_packets_total", &[("service", "web"), ("direction", "forward")], 100.0)]),
    (
        "XlbServicesNotCounted",
        &[("xlb_service_packets_total", &[("service", "_other"), ("direction", "forward")], 1.0)],
    ),
    ("XlbNoLocalPod", &[("xlb_services_without_local_endpoints", &[], 1.0)]),
    ("XlbFlowTableFilling", &[("xlb_map_entries", &[("map", "FLOWS_V4")], 85.0)]),
    ("XlbFlowTableFull", &[("xlb_map_entries", &[("map", "FLOWS_V6")], 97.0)]),
    ("XlbMapFilling", &[("xlb_map_entries", &[("map", "BACKENDS")], 91.0)]),
];

#[test]
fn each_alert_fires_on_its_trouble_and_on_nothing_else() -> Result<()> {
    let all = alerts()?;
    let names: Vec<&str> = all.iter().map(|alert| alert.alert.as_str()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>(), TROUBLE.iter().map(|(name, _)| name).collect::<BTreeSet<_>>());
    for (name, changes) in TROUBLE.iter().filter(|(_, changes)| !changes.is_empty()) {
        let scrapes = Scrapes { before: healthy(), after: changed(changes)?, seconds: SECONDS, now_s: NOW_S };
        let mut firing = BTreeSet::new();
        for alert in &all {
            if fires(&scrapes, &alert.expr).with_context(|| format!("asking {}", alert.alert))? {
                firing.insert(alert.alert.as_str());
            }
        }
        // What is full is filling, too.
        let also = if *name == "XlbFlowTableFull" { Some("XlbFlowTableFilling") } else { None };
        assert_eq!(firing, [*name].into_iter().chain(also).collect(), "{changes:?}");
    }
    Ok(())
}

#[test]
fn a_map_that_may_be_full_is_no_alert() -> Result<()> {
    let full = [("PENDING_V4", 100.0), ("UDP_PENDING_V6", 100.0), ("PLACES_V4", 100.0)];
    for (map, entries) in full {
        let mut after = healthy();
        let is_meant = |labels: &xlb_tests::openmetrics::Labels| labels.get("map").is_some_and(|it| it == map);
        let sample = after.samples.iter_mut().find(|it| it.name == "xlb_map_entries" && is_meant(&it.labels));
        sample.with_context(|| format!("{map} is not told"))?.value = entries;
        let scrapes = Scrapes { before: healthy(), after, seconds: SECONDS, now_s: NOW_S };
        for alert in alerts()? {
            assert!(!fires(&scrapes, &alert.expr)?, "{} on a full {map}", alert.alert);
        }
    }
    Ok(())
}

#[test]
fn each_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on() -> Result<()> {
    for alert in alerts()? {
        let name = &alert.alert;
        let severity = alert.labels["severity"].as_str().unwrap_or_default();
        assert!(["info", "warning", "critical"].contains(&severity), "{name}: {severity}");
        let minutes: Option<u32> = alert.holds.strip_suffix('m').and_then(|text| text.parse().ok());
        assert!(minutes.is_some_and(|minutes| minutes <= 30), "{name}: for {}", alert.holds);
        for part in ["summary", "description"] {
            let text = alert.annotations[part].as_str().unwrap_or_default();
            assert!(
                text.len() > 20 && text.matches("{{").count() == text.matches("}}").count(),
                "{name}: {part}: {text}"
            );
        }
        let runbook = alert.annotations["runbook"].as_str().with_context(|| format!("{name} has no runbook"))?;
        let (page, anchor) = runbook.split_once('#').with_context(|| format!("{name}: {runbook} has no anchor"))?;
        assert!(anchors(page)?.iter().any(|it| it == anchor), "{name}: {page} has no heading {anchor}");
    }
    Ok(())
}

#[test]
fn each_panel_of_the_dashboard_asks_a_query_and_groups_by_labels_that_it_shows() -> Result<()> {
    let panels = panels()?;
    assert!(panels.len() > 15);
    for (title, queries) in panels {
        assert!(!queries.is_empty(), "{title}");
        for text in queries {
            let (selected, _) = asks_for(&query(&text).with_context(|| format!("in the panel {title}"))?);
            assert!(selected.iter().all(|it| it.metric.starts_with("xlb_")), "{title}: {text}");
        }
    }
    Ok(())
}

fn fires(scrapes: &Scrapes, expr: &str) -> Result<bool> {
    match scrapes.ask(&query(expr)?)? {
        Answer::Vector(series) => Ok(!series.is_empty()),
        Answer::Scalar(_) => anyhow::bail!("an alert is about series"),
    }
}

/// An agent that is well, with every series that there can be.
fn healthy() -> Metrics {
    let mut facts = Facts {
        last_sync_s: NOW_S - 3.0,
        last_queued_s: NOW_S - 4.0,
        refused_program: Some("pod".into()),
        ..Facts::default()
    };
    facts.watches = vec![("services", 2, 1)];
    facts.answers.insert(("/livez", 503), 1);
    let fill = |map| Fill { map, entries: 0, capacity: 100 };
    facts.served.fills = ["BACKENDS", "PLACES_V4"].map(fill).to_vec();
    let maps = MapFacts {
        counters: Reason::ALL.iter().map(|&reason| (reason, 0)).collect(),
        generation: 1,
        services: Some(ServiceNumbers {
            own: vec![("shop/web:http".into(), ServiceStats::default())],
            ..Default::default()
        }),
        fills: ["FLOWS_V4", "FLOWS_V6", "PENDING_V4", "UDP_PENDING_V6"].map(fill).to_vec(),
    };
    let mut metrics = parse(&text::text(&facts, Some(&maps)).expect("text")).expect("OpenMetrics");
    // There are no such series while all is well.
    let refused = metrics.samples.iter_mut().filter(|sample| sample.name == "xlb_programs_refused");
    refused.for_each(|sample| sample.value = 0.0);
    metrics
}

fn changed(changes: &[Change]) -> Result<Metrics> {
    let mut metrics = healthy();
    for (name, labels, more) in changes {
        let is_meant = |sample: &&mut xlb_tests::openmetrics::Sample| {
            sample.name == *name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|it| it == value))
        };
        let sample = metrics.samples.iter_mut().find(is_meant);
        sample.with_context(|| format!("{name} {labels:?} is not told"))?.value += more;
    }
    Ok(metrics)
}
