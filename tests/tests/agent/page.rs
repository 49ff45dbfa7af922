//! The page's state, over HTTP, beside what `xlb inspect` and `/metrics` say at the same time.

use std::net::TcpListener;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_tests::lab::{EndpointSpec, LabSpec, Manifests, wait_for};

use crate::ask::{METRICS_PORT, ask, get, metrics, soon};
use crate::stage::{LATER, Stage, lab, service, service_with, with_sizes};
use xlb_tests::lab::Agent;

const STATE: &str = "/api/v1/state";

fn state(stage: &Stage, query: &str) -> Result<Value> {
    let answer = get(stage.lab.node(), METRICS_PORT, &format!("{STATE}{query}"))?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    anyhow::ensure!(answer.head.contains("content-type: application/json"), "{answer:?}");
    Ok(answer.json())
}

fn row<'a>(state: &'a Value, name: &str) -> Option<&'a Value> {
    state["services"]["rows"].as_array()?.iter().find(|row| row["name"] == name)
}

/// A Service that serves, one without a pod here, one whose address another has.
fn with_trouble() -> Result<Stage> {
    let stage = Stage::up()?;
    let elsewhere = EndpointSpec { node: "other".into(), ..EndpointSpec::ready([10, 9, 0, 1]) };
    let local = service_with(&stage.lab, "far", 1, &[elsewhere]).replace("Policy: Cluster", "Policy: Local");
    stage.manifests.write("far.yaml", &local)?;
    stage.manifests.write("zweb.yaml", &service(&stage.lab, "zweb", 0, &[0]))?;
    Ok(stage)
}

#[test]
fn the_page_says_what_inspect_and_metrics_say() -> Result<()> {
    let mut stage = with_trouble()?;
    let mut held = [stage.hold(0)?, stage.hold(0)?, stage.hold(0)?];
    held.iter_mut().try_for_each(|held| held.answers())?;
    stage.until(|maps| maps["refusals"].as_array().is_some_and(|refusals| !refusals.is_empty()));
    // All three read counters that stand still: late acknowledgements have come, and what was read before them is not told again.
    let (state, told, maps) = soon("all three tell of one moment, with three flows and a refusal", || {
        let before = stage.agent.inspect().ok()?;
        let (state, told) = (state(&stage, "").ok()?, metrics(stage.lab.node()).ok()?);
        let web = row(&state, "default/web:http")?;
        let flows: u64 = web["backends"].as_array()?.iter().filter_map(|it| it["flows"].as_u64()).sum();
        let shown: u64 = state["reasons"].as_array()?.iter().filter_map(|it| it["count"].as_u64()).sum();
        let counted: u64 = before["counters"].as_object()?.values().filter_map(Value::as_u64).sum();
        // What is counted over all Services follows a change when changes pause.
        let are_counted = state["agent"]["frontends"] == 2 && told.value("xlb_frontends", &[]) == Some(2.0);
        let is_whole = flows == 3 && state["refusals_total"] == 1 && row(&state, "default/far:http").is_some();
        let after = stage.agent.inspect().ok()?;
        (is_whole && are_counted && shown == counted && before == after).then_some((state, told, after))
    })?;
    for service in maps["services"].as_array().context("services")? {
        let name = service["name"].as_str().context("a name")?;
        let shown = row(&state, name).with_context(|| format!("{name} is not shown"))?;
        for field in ["frontends", "when_empty", "slots", "traffic"] {
            assert_eq!(shown[field], service[field], "{field} of {name}");
        }
        let shares = |of: &Value| {
            let all = of["backends"].as_array().into_iter().flatten();
            all.map(|it| ["address", "slots", "former_slots"].map(|field| it[field].clone())).collect::<Vec<_>>()
        };
        assert_eq!(shares(shown), shares(service), "{name}");
    }
    for backend in maps["backends"].as_array().context("backends")? {
        let rows = state["services"]["rows"].as_array().into_iter().flatten();
        let shown = rows.flat_map(|row| row["backends"].as_array().into_iter().flatten());
        let shown = shown.clone().find(|it| it["address"] == backend["address"]).context("a backend")?;
        assert_eq!((&shown["delivery"], &shown["interface"]), (&backend["delivery"], &backend["interface"]));
    }
    let accepted = maps["flows"].as_array().into_iter().flatten().filter(|flow| flow["state"] == "accepted").count();
    assert_eq!(accepted, 3);
    let without_kind = |refusal: &Value| [refusal["object"].clone(), refusal["why"].clone()];
    assert_eq!(without_kind(&state["refusals"][0]), without_kind(&maps["refusals"][0]));
    assert_eq!((&state["agent"]["uplinks"], &state["agent"]["node_name"]), (&maps["agent"]["uplinks"], &"node".into()));
    for reason in state["reasons"].as_array().context("reasons")? {
        let label = reason["reason"].as_str().context("a reason")?;
        assert_eq!(reason["count"], maps["counters"][label], "{label}");
        let samples = told.samples.iter().filter(|it| it.name == "xlb_packets_total");
        let counted = samples.clone().find(|it| it.labels.get("reason").is_some_and(|reason| reason == label));
        assert_eq!(reason["count"].as_f64(), counted.map(|sample| sample.value), "{label}");
    }
    assert_eq!(state["reasons"].as_array().map(Vec::len), maps["counters"].as_object().map(serde_json::Map::len));
    for map in state["maps"].as_array().context("maps")? {
        let name = map["map"].as_str().context("a map")?;
        assert_eq!(map["capacity"].as_f64(), told.value("xlb_map_capacity", &[("map", name)]), "{name}");
        let entries = told.value("xlb_map_entries", &[("map", name)]);
        assert_eq!(map["entries"].as_f64(), entries, "{name}");
    }
    for (field, metric) in [("services", "xlb_services"), ("frontends", "xlb_frontends"), ("backends", "xlb_backends")]
    {
        assert_eq!(state["agent"][field].as_f64(), told.value(metric, &[]), "{field}");
    }
    Ok(())
}

#[test]
fn what_is_not_served_says_why_and_what_settles_is_told() -> Result<()> {
    let stage = with_trouble()?;
    let told = soon("the trouble is shown", || {
        let state = state(&stage, "").ok()?;
        (row(&state, "default/far:http").is_some() && state["refusals_total"] == 1).then_some(state)
    })?;
    let far = row(&told, "default/far:http").context("far")?;
    assert_eq!((&far["state"], &far["when_empty"]), (&"empty".into(), &"drop".into()));
    assert!(far["why"].as_str().is_some_and(|why| why.contains("externalTrafficPolicy Local")), "{far}");
    let refused = row(&told, "default/zweb").or_else(|| row(&told, "default/zweb:http")).context("the refused one")?;
    assert_eq!(refused["warnings"][0]["kind"], "contested", "{refused}");
    assert_eq!(told["services"]["rows"][0], *refused, "trouble comes first");
    stage.manifests.remove("zweb.yaml")?;
    let settled = soon("it is settled", || state(&stage, "").ok().filter(|state| state["refusals_total"] == 0))?;
    let events = settled["events"].as_array().context("events")?;
    let what: Vec<_> = events.iter().filter_map(|event| event["what"].as_str()).collect();
    assert_eq!(what, ["settled", "came"]);
    assert_eq!(events[0]["object"], events[1]["object"]);
    Ok(())
}

#[test]
fn drops_are_kept_by_time() -> Result<()> {
    let stage = with_trouble()?;
    // What happened before the first sample is no step.
    soon("a first step", || {
        state(&stage, "")
            .ok()
            .filter(|state| state["history"]["begun_s"].as_array().is_some_and(|steps| !steps.is_empty()))
    })?;
    let dropped = wait_for(LATER, || {
        assert!(stage.who(1).is_err(), "somebody answers where nobody is");
        let state = state(&stage, "").ok()?;
        let steps = state["history"]["drops"]["empty_dropped"].as_array()?.clone();
        Some((steps.iter().filter_map(Value::as_u64).sum::<u64>(), state))
    });
    let (dropped, state) = dropped.context("no drop was kept")?;
    assert!(dropped > 0);
    let history = &state["history"];
    let length = |name: &str| history[name].as_array().map(Vec::len);
    assert_eq!(length("delivered"), length("begun_s"));
    assert_eq!((history["interval_s"].as_u64(), history["kept_s"].as_u64()), (Some(10), Some(3600)));
    Ok(())
}

#[test]
fn the_page_only_reads_and_only_for_those_who_mean_it() -> Result<()> {
    let stage = Stage::up()?;
    let node = stage.lab.node();
    let loopback = std::net::Ipv4Addr::LOCALHOST;
    for path in ["/", STATE, "/metrics"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = ask(node, loopback, METRICS_PORT, method, path)?;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert!(answer.head.contains("allow: get, head"), "{answer:?}");
        }
        let (get, head) = (get(node, METRICS_PORT, path)?, ask(node, loopback, METRICS_PORT, "HEAD", path)?);
        assert_eq!((get.status, head.status), (200, 200), "{path}");
        assert!(head.body.is_empty() && !get.body.is_empty(), "{path}");
        assert!(get.head.contains("x-content-type-options: nosniff"), "{path}");
    }
    let page = get(node, METRICS_PORT, "/")?;
    assert!(page.head.contains("content-security-policy: default-src 'none'; script-src 'sha256-"), "{page:?}");
    assert!(page.head.contains("cache-control: no-store") && !page.head.contains("access-control"), "{page:?}");
    for (query, part) in
        [("?limit=5000", "at most 1000"), ("?limit=x", "expected a number"), ("?all", "expected limit, from or find")]
    {
        let answer = get(node, METRICS_PORT, &format!("{STATE}{query}"))?;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(part), "{answer:?}");
    }
    assert_eq!(get(node, METRICS_PORT, "/api/v2")?.status, 404);
    // Not at an address that others reach.
    let uplink = stage.lab.uplink(0).node_address;
    assert!(ask(stage.lab.client(0), uplink, METRICS_PORT, "GET", "/").is_err());
    Ok(())
}

#[test]
fn a_taken_port_is_said_before_anything_is_touched() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let taken = lab.node().run(|| TcpListener::bind(("127.0.0.1", METRICS_PORT)))?;
    let mut agent = Agent::start(&lab, manifests.path(), &with_sizes(&[]))?;
    soon("it ends", || agent.has_ended().then_some(()))?;
    assert!(!agent.stop()?.success());
    let log = agent.log();
    for part in ["listening at 127.0.0.1:10349 for metrics and the page", "--metrics-address", "ddress already in use"]
    {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!lab.pin_directory().join("links").exists(), "nothing was attached");
    drop(taken);
    Ok(())
}
