//! What alerts and dashboard ask for, beside what a real agent tells.

use std::time::Instant;

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use xlb_tests::alerts::{alerts, lacks, panels};
use xlb_tests::openmetrics::{Metrics, parse};
use xlb_tests::promql::{Answer, Scrapes, query};
use xlb_userspace::metrics::{Facts, text};

use crate::ask::{metrics, soon, status};
use crate::stage::Stage;

#[test]
fn every_query_asks_for_what_an_agent_tells() -> Result<()> {
    let stage = Stage::up()?;
    stage.hold(0)?.answers()?;
    assert_eq!(status(stage.lab.node(), "/livez"), Some(200));
    let mut told = soon("sweeps are told, too", || {
        metrics(stage.lab.node()).ok().filter(|told| told.sum("xlb_flow_sweeps_total") > 0.0)
    })?;
    told.samples.extend(in_trouble().samples);
    for alert in alerts()? {
        assert_eq!(lacks(&alert.expr, &told)?, [] as [String; 0], "{}", alert.alert);
    }
    for (title, queries) in panels()? {
        for query in queries {
            assert_eq!(lacks(&query, &told)?, [] as [String; 0], "{title}");
        }
    }
    // A name, a label and a value that nobody tells are found.
    for query in [
        "xlb_nothing > 0",
        "xlb_refusals{sort=\"contested\"}",
        "rate(xlb_packets_total{reason=\"eaten\"}[5m])",
        "sum by (node) (xlb_services)",
    ] {
        assert!(!lacks(query, &told)?.is_empty(), "{query}");
    }
    Ok(())
}

#[test]
fn no_alert_fires_on_a_node_that_is_well() -> Result<()> {
    let stage = Stage::up()?;
    let before = metrics(stage.lab.node())?;
    let begun = Instant::now();
    let mut held: Vec<_> = (0..20).map(|_| stage.hold(0)).collect::<Result<_>>()?;
    let after = soon("the connections are counted", || {
        held.iter_mut().try_for_each(|held| held.answers()).ok()?;
        let told = metrics(stage.lab.node()).ok()?;
        let replies = |told: &Metrics| {
            let is_reply =
                |labels: &xlb_tests::openmetrics::Labels| labels.get("direction").is_some_and(|it| it == "return");
            let samples =
                told.samples.iter().filter(|it| it.name == "xlb_service_packets_total" && is_reply(&it.labels));
            samples.map(|it| it.value).sum::<f64>()
        };
        (replies(&told) > replies(&before)).then_some(told)
    })?;
    let now_s = Timestamp::now().as_millisecond() as f64 / 1000.0;
    let scrapes = Scrapes { before, after, seconds: begun.elapsed().as_secs_f64(), now_s };
    for alert in alerts()? {
        let answer = scrapes.ask(&query(&alert.expr)?).with_context(|| format!("asking {}", alert.alert))?;
        assert_eq!(answer, Answer::Vector(Vec::new()), "{}", alert.alert);
    }
    Ok(())
}

/// The series that only an agent in trouble has, or one that follows an API server, by the code that writes them.
fn in_trouble() -> Metrics {
    let mut facts =
        Facts { refused_program: Some("pod".into()), watches: vec![("services", 1, 1)], ..Facts::default() };
    facts.answers.insert(("/livez", 503), 1);
    parse(&text::text(&facts, None).expect("text")).expect("OpenMetrics")
}
