//! The chart's flags are those of `xlb run`, by name, kind of value, choice and default.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use clap::Arg;
use serde_json::{Value, json};
use xlb_tests::deploy::{Chart, folder, only};

use crate::chart::rendered;
use crate::container::container;

/// Flags that are no values of the chart: a pod's source is its cluster, its node's name is Kubernetes' to say, and files of
/// the node are not in it. What is logged is the value `log`.
const OF_THE_CHART: [&str; 6] = ["kube", "kubeconfig", "manifests", "node-name", "config", "log"];
/// Flags that the chart always says; their defaults are the chart's.
const ALWAYS_SAID: [&str; 3] = ["uplink", "cgroup", "keep-dataplane"];

#[test]
fn the_values_are_the_flags_that_the_command_line_knows() -> Result<()> {
    let chart = chart()?;
    let known: BTreeSet<String> = flags()?.into_keys().collect();
    assert_eq!(keys(&chart.schema["properties"]["flags"]["properties"]), known);
    assert_eq!(keys(&chart.values["flags"]), known, "values.yaml lists each");
    Ok(())
}

#[test]
fn a_default_of_the_schema_is_that_of_the_command_line() -> Result<()> {
    let schema = chart()?.schema["properties"]["flags"]["properties"].clone();
    for (name, flag) in flags()? {
        let of_clap = flag.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let of_schema = match &schema[&name]["default"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        // A flag that needs no value is off unless it is said.
        let of_clap = of_clap.filter(|_| !is_bare(&flag) && !ALWAYS_SAID.contains(&name.as_str()));
        assert_eq!(of_schema, of_clap, "{name}");
    }
    Ok(())
}

/// Also what YAML makes of on and off.
#[test]
fn each_choice_of_the_command_line_is_one_of_the_schema() -> Result<()> {
    let schema = chart()?.schema["properties"]["flags"]["properties"].clone();
    for (name, flag) in flags()?.into_iter().filter(|(_, flag)| !is_bare(flag)) {
        let choices: BTreeSet<String> =
            flag.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let of_schema: Vec<Value> = schema[&name]["enum"].as_array().cloned().unwrap_or_default();
        let words: BTreeSet<String> = of_schema.iter().filter_map(Value::as_str).map(String::from).collect();
        assert_eq!(words, choices, "{name}");
        for (word, meant) in [("on", true), ("off", false)] {
            assert_eq!(of_schema.contains(&json!(meant)), choices.contains(word), "{name}: {word}");
        }
    }
    Ok(())
}

/// The values that a schema takes are those that clap takes, in what the template makes of them.
#[test]
fn what_the_chart_makes_of_any_value_is_taken_by_the_command_line() -> Result<()> {
    let schema = chart()?.schema["properties"]["flags"]["properties"].clone();
    for (name, flag) in flags()? {
        for value in samples(&name, &flag, &schema[&name]) {
            let mut flags = json!({ &name: value });
            if value == "cluster-only" {
                flags["cluster-cidrs"] = json!(["10.0.0.0/8"]);
            }
            let objects = rendered(&json!({ "flags": flags })).with_context(|| format!("{name}: {value}"))?.objects;
            let arguments = container(only(&objects, "DaemonSet")?)["args"].clone();
            let arguments: Vec<String> = serde_json::from_value(arguments)?;
            let arguments = arguments.iter().map(|argument| argument.replace("$(NODE_IP)", "192.0.2.1"));
            let words = std::iter::once("xlb".to_owned()).chain(arguments);
            let taken = xlb_userspace::cli::command().try_get_matches_from(words);
            assert!(taken.is_ok(), "{name}: {value}: {}", taken.unwrap_err());
        }
    }
    Ok(())
}

/// Each choice, each end of a range, and one of the rest.
fn samples(name: &str, flag: &Arg, schema: &Value) -> Vec<Value> {
    if let Some(choices) = schema["enum"].as_array() {
        return choices.clone();
    }
    if is_bare(flag) {
        return vec![json!(true), json!(false), Value::Null];
    }
    if schema["minimum"].is_number() {
        return vec![schema["minimum"].clone(), schema["maximum"].clone()];
    }
    match name {
        "uplink" => vec![json!(["eth0"]), json!(["ens3", "bond0.100"])],
        "cgroup" => vec![json!("/host/cgroup/unified")],
        "bpffs-dir" => vec![json!("/sys/fs/bpf/other")],
        "load-balancer-class" => vec![json!(["example.com/xlb", "other"])],
        "health-address" | "metrics-address" => {
            vec![json!("off"), json!(false), json!("[::]:1"), json!("127.0.0.1:9"), json!("$(NODE_IP):10349")]
        }
        _ if name.ends_with("cidrs") => vec![json!(["203.0.113.0/24", "2001:db8::/64"]), json!([])],
        _ => ["0", "90s", "15m", "24h"].map(Value::from).into_iter().chain([json!(0)]).collect(),
    }
}

fn chart() -> Result<Chart> {
    Chart::load(&folder().join("helm/xlb"))
}

/// The flags that are values of the chart, by name.
fn flags() -> Result<BTreeMap<String, Arg>> {
    let command = xlb_userspace::cli::command();
    let run = command.find_subcommand("run").context("there is no command run")?;
    let named = run.get_arguments().filter_map(|flag| Some((flag.get_long()?.to_owned(), flag.clone())));
    Ok(named
        .filter(|(name, _)| !OF_THE_CHART.contains(&name.as_str()) && name != "help" && name != "version")
        .collect())
}

/// Whether its name alone says all.
fn is_bare(flag: &Arg) -> bool {
    flag.get_num_args().is_some_and(|values| values.min_values() == 0)
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}
