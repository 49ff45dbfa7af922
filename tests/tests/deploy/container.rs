//! Promises of the DaemonSet that no type checks, for each way to make it.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_tests::deploy::only;

use crate::chart::{Case, cases, rendered};
use crate::objects::all;

/// Each DaemonSet, by the name of what made it.
fn daemonsets() -> Result<Vec<(String, Value)>> {
    let mut objects = all()?;
    for Case { name, values, .. } in cases() {
        objects.push((format!("chart: {name}"), rendered(&values)?.objects));
    }
    objects.retain(|(_, objects)| objects.iter().any(|object| object["kind"] == "DaemonSet"));
    objects.into_iter().map(|(name, objects)| Ok((name, only(&objects, "DaemonSet")?.clone()))).collect()
}

/// The API server refuses `allowPrivilegeEscalation: false` with CAP_SYS_ADMIN, and in a privileged container.
#[test]
fn what_the_api_server_refuses_together_is_not_said_together() -> Result<()> {
    for (name, daemonset) in daemonsets()? {
        let context = &container(&daemonset)["securityContext"];
        let added = strings(&context["capabilities"]["add"]);
        let gains = context["privileged"] == true || added.contains("SYS_ADMIN");
        assert!(!gains || context["allowPrivilegeEscalation"] != false, "{name}: {context:#}");
        let propagations = container(&daemonset)["volumeMounts"].as_array().context("no mounts")?;
        let is_bidirectional = propagations.iter().any(|mount| mount["mountPropagation"] == "Bidirectional");
        assert!(
            !is_bidirectional || context["privileged"] == true,
            "{name}: only a privileged container may mount for the node"
        );
    }
    Ok(())
}

#[test]
fn every_mount_has_its_volume_and_every_port_its_probe() -> Result<()> {
    for (name, daemonset) in daemonsets()? {
        let (pod, container) = (&daemonset["spec"]["template"]["spec"], container(&daemonset));
        let names = |list: &Value| {
            list.as_array().into_iter().flatten().map(|item| item["name"].to_string()).collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&pod["volumes"]), names(&container["volumeMounts"]), "{name}");
        let ports = names(&container["ports"]);
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let probe = &container[probe]["httpGet"];
            assert!(probe.is_null() || ports.contains(&probe["port"].to_string()), "{name}: {probe}");
        }
        let selected = daemonset["spec"]["selector"]["matchLabels"].as_object().context("no selector")?;
        let labels = &daemonset["spec"]["template"]["metadata"]["labels"];
        assert!(selected.iter().all(|(key, value)| labels[key] == *value), "{name}");
    }
    Ok(())
}

#[test]
fn a_variable_that_an_argument_names_is_there() -> Result<()> {
    for (name, daemonset) in daemonsets()? {
        let container = container(&daemonset);
        let known: BTreeSet<&str> = container["env"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|variable| variable["name"].as_str())
            .collect();
        for argument in strings(&container["args"]) {
            let mut rest = argument.as_str();
            while let Some((_, named)) = rest.split_once("$(") {
                let (variable, behind) = named.split_once(')').with_context(|| format!("{name}: {argument}"))?;
                assert!(known.contains(variable), "{name}: {argument} names {variable}");
                rest = behind;
            }
        }
    }
    Ok(())
}

/// The only container of a DaemonSet.
pub fn container(daemonset: &Value) -> &Value {
    &daemonset["spec"]["template"]["spec"]["containers"][0]
}

fn strings(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
}
