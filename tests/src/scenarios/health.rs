//! Cases about health: what a Service's health port answers, and what the agent says of itself.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use serde_yaml_ng::Value as Yaml;
use xlb_userspace::health::answer::{Moment, of_agent, of_service};
use xlb_userspace::health::judge::FamilySync;
use xlb_userspace::health::{HealthState, NodeState, judge, wanted};
use xlb_userspace::model::{Event, Model, Object, Policy};
use xlb_userspace::plan::desired::Family;

use super::case::Case;
use super::objects::translated;
use super::run::NotUnderstood;

/// When the agent of a case is asked; it has run for long.
const NOW_S: u64 = 1_000_000;

/// Of a case about health: who is asked for what, and in which state.
#[derive(Clone, Debug, Default, Deserialize)]
#[allow(missing_docs)]
pub struct Asked {
    pub health_of: Option<String>,
    pub probe: Option<Probe>,
    pub proxy_healthy: Option<bool>,
    pub state: Option<State>,
}

/// A request.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Probe {
    pub path: String,
    /// The family by which it comes; IPv4 if it does not say.
    pub over: Option<String>,
}

/// What the agent's health is made of.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct State {
    pub timeout_s: u64,
    pub families: BTreeMap<String, Ages>,
    pub node: NodeFacts,
}

/// A family's rounds.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct Ages {
    pub oldest_queued_age_s: Option<u64>,
    pub last_synced_age_s: Option<u64>,
    /// True if it does not say.
    pub ever_synced: Option<bool>,
}

/// The Node object.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs)]
pub struct NodeFacts {
    pub exists: bool,
    #[serde(default)]
    pub deleting: bool,
    #[serde(default)]
    pub taints: Vec<String>,
}

/// What a health port answers.
pub fn service_health(case: &Case, this_node: &str) -> Result<()> {
    let of = case.asked.health_of.as_deref().ok_or_else(|| NotUnderstood("it has no `health_of`".into()))?;
    let expect = case.expect.as_ref().ok_or_else(|| NotUnderstood("it has no `expect`".into()))?;
    check_port(translated(&case.services, &case.slices)?, this_node, of, &case.asked, expect)
}

/// What the health port of a Service answers, if there is one.
pub fn check_port(objects: Vec<Object>, this_node: &str, of: &str, asked: &Asked, expect: &Yaml) -> Result<()> {
    let mut model = Model::default();
    for object in objects {
        model.apply(Event::Applied(object));
    }
    let (ports, _) = wanted(&model, &Policy::default(), this_node);
    let found = ports.iter().find(|(_, port)| port.service.to_string() == of);
    let is_listening =
        expect["listening"].as_bool().ok_or_else(|| NotUnderstood("its `expect` has no `listening`".into()))?;
    ensure!(found.is_some() == is_listening, "listening is {}", found.is_some());
    let Some((number, port)) = found else { return Ok(()) };
    ensure!(expect["port"] == *number, "the port is {number}");
    let over = asked.probe.as_ref().and_then(|probe| probe.over.as_deref());
    let answer = of_service(port, family(over.unwrap_or("IPv4"))?, asked.proxy_healthy.unwrap_or(true));
    let body: Value = serde_json::from_str(&answer.body)?;
    let is_expected = expect["http"] == answer.status
        && expect["local_endpoints"].as_u64() == body["localEndpoints"].as_u64()
        && expect["service_proxy_healthy"].as_bool() == body["serviceProxyHealthy"].as_bool();
    ensure!(is_expected, "{answer:?}");
    Ok(())
}

/// What the agent says of itself.
pub fn proxy_health(case: &Case) -> Result<()> {
    let expect = case.expect.as_ref().ok_or_else(|| NotUnderstood("it has no `expect`".into()))?;
    let state = case.asked.state.as_ref().ok_or_else(|| NotUnderstood("it has no `state`".into()))?;
    let probe = case.asked.probe.as_ref().ok_or_else(|| NotUnderstood("it has no `probe`".into()))?;
    let verdict = judge(&state.health()?, NOW_S * 1000);
    let moment = Moment { now_ms: NOW_S * 1000, wall: k8s_openapi::jiff::Timestamp::UNIX_EPOCH };
    let answer = of_agent(&probe.path, &verdict, moment).context("nothing is there")?;
    let is_expected = expect["http"] == answer.status
        && expect.get("healthy").is_none_or(|healthy| *healthy == verdict.is_healthy)
        && expect.get("node_eligible").is_none_or(|eligible| *eligible == verdict.is_node_eligible);
    ensure!(is_expected, "{answer:?}, {verdict:?}");
    Ok(())
}

impl State {
    fn health(&self) -> Result<HealthState> {
        let ago = |age_s: u64| NOW_S.saturating_sub(age_s) * 1000;
        let families = self.families.iter().map(|(name, ages)| {
            let synced_age_s = ages.ever_synced.unwrap_or(true).then(|| ages.last_synced_age_s.unwrap_or(0));
            let queued_since_ms = ages.oldest_queued_age_s.map(ago);
            Ok((family(name)?, FamilySync { queued_since_ms, synced_at_ms: synced_age_s.map(ago) }))
        });
        let NodeFacts { exists, deleting, taints } = self.node.clone();
        Ok(HealthState {
            families: families.collect::<Result<_>>()?,
            node: NodeState { exists, is_deleting: deleting, taints },
            timeout_ms: self.timeout_s * 1000,
            are_programs_refused: false,
        })
    }
}

fn family(name: &str) -> Result<Family> {
    Family::ALL
        .into_iter()
        .find(|family| family.to_string() == name)
        .ok_or_else(|| NotUnderstood(format!("{name} is no family")).into())
}
