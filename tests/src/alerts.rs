//! What of `deploy/` asks Prometheus: alert rules and the dashboard.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use promql_parser::parser::Expr;
use serde::Deserialize;
use serde_json::Value;

use crate::openmetrics::Metrics;
use crate::promql::{asks_for, query, words};

/// Labels that a scraper adds.
const SCRAPER: [&str; 2] = ["instance", "job"];
/// The series that a scraper makes itself.
const UP: &str = "up";

/// An alert.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    /// Its name.
    pub alert: String,
    /// Its query.
    pub expr: String,
    /// How long it has to hold.
    #[serde(rename = "for")]
    pub holds: String,
    /// Its labels.
    pub labels: Value,
    /// What it says.
    pub annotations: Value,
}

/// The alerts of `deploy/prometheus/rules.yaml`.
///
/// # Errors
/// When the file is no PrometheusRule.
pub fn alerts() -> Result<Vec<Alert>> {
    let path = root().join("deploy/prometheus/rules.yaml");
    let file: Value = serde_yaml_ng::from_str(&read(&path)?).with_context(|| format!("reading {}", path.display()))?;
    let groups = file["spec"]["groups"].as_array().context("no groups")?;
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    rules.map(|rule| serde_json::from_value(rule.clone()).with_context(|| format!("reading the rule {rule}"))).collect()
}

/// The panels of `deploy/grafana/xlb.json` that ask something, with their queries.
///
/// # Errors
/// When the file is no dashboard.
pub fn panels() -> Result<Vec<(String, Vec<String>)>> {
    let path = root().join("deploy/grafana/xlb.json");
    let file: Value = serde_json::from_str(&read(&path)?).with_context(|| format!("reading {}", path.display()))?;
    let panels = file["panels"].as_array().context("no panels")?.iter().filter(|panel| panel["type"] != "row");
    let panel = |panel: &Value| {
        let targets = panel["targets"].as_array().context("a panel without targets")?;
        let queries =
            targets.iter().map(|target| target["expr"].as_str().map(filled_in).context("a target without a query"));
        Ok((panel["title"].as_str().context("a panel without a title")?.to_owned(), queries.collect::<Result<_>>()?))
    };
    panels.map(panel).collect()
}

/// Grafana's variables, as it would fill them in.
fn filled_in(query: &str) -> String {
    query.replace("$__rate_interval", "5m").replace("$instance", ".*")
}

/// What a query asks for that these metrics do not have: a name, a label, or a label's value.
///
/// # Errors
/// When it is no query.
pub fn lacks(text: &str, metrics: &Metrics) -> Result<Vec<String>> {
    let parsed: Expr = query(text)?;
    let (selected, grouping) = asks_for(&parsed);
    let mut lacks = Vec::new();
    let mut known = SCRAPER.map(String::from).to_vec();
    for of in &selected {
        let samples: Vec<_> = metrics.samples.iter().filter(|sample| sample.name == of.metric).collect();
        if samples.is_empty() && of.metric != UP {
            lacks.push(of.metric.clone());
            continue;
        }
        known.extend(samples.iter().flat_map(|sample| sample.labels.keys().cloned()));
        for matcher in of.matchers.iter().filter(|matcher| !SCRAPER.contains(&matcher.name.as_str())) {
            let values: Vec<_> = samples.iter().filter_map(|sample| sample.labels.get(&matcher.name)).collect();
            let is_met = values.iter().any(|value| matcher.is_match(value));
            if !is_met {
                lacks.push(format!("{}{{{matcher}}}", of.metric));
            }
            let absent = words(matcher).into_iter().filter(|word| !values.contains(&word));
            lacks.extend(absent.map(|word| format!("{}{{{}=\"{word}\"}}", of.metric, matcher.name)));
        }
    }
    lacks.extend(grouping.into_iter().filter(|label| !known.contains(label)));
    Ok(lacks)
}

/// The anchors of a page of the docs, as they are made of its headings.
///
/// # Errors
/// When there is no such page.
pub fn anchors(page: &str) -> Result<Vec<String>> {
    let text = read(&root().join(page))?;
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    Ok(headings.map(anchor).collect())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
