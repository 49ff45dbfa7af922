//! The ingress gateways: what the text beside them says is in each.

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_tests::deploy::{documents, folder, only, read};

const EXAMPLES: [&str; 2] = ["ingress-nginx.yaml", "istio-gateway.yaml"];

#[test]
fn a_gateway_drains_before_its_node_is_withdrawn_and_its_grace_period_ends() -> Result<()> {
    for file in EXAMPLES {
        let objects = documents(&read(&folder().join("examples").join(file))?)?;
        let service = only(&objects, "Service")?;
        assert_eq!(service["spec"]["externalTrafficPolicy"], "Local", "{file}");
        let deployment = &only(&objects, "Deployment")?["spec"];
        let pod = &deployment["template"]["spec"];
        let grace_s = pod["terminationGracePeriodSeconds"].as_u64().context("no grace period")?;
        let sleep_s = pre_stop_s(&pod["containers"][0]["lifecycle"]["preStop"]).context("no sleep")?;
        // Time for connections is what is left.
        assert!(sleep_s >= 10 && grace_s >= sleep_s + 240, "{file}: {sleep_s} of {grace_s}");
        assert_eq!(deployment["strategy"]["rollingUpdate"]["maxUnavailable"], 0, "{file}");

        let labels = &deployment["template"]["metadata"]["labels"];
        let budget = &only(&objects, "PodDisruptionBudget")?["spec"];
        let spread = &pod["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "kubernetes.io/hostname", "{file}");
        for selector in [
            &service["spec"]["selector"],
            &deployment["selector"]["matchLabels"],
            &budget["selector"]["matchLabels"],
            &spread["labelSelector"]["matchLabels"],
        ] {
            let selector = selector.as_object().with_context(|| format!("{file}: a selector is missing"))?;
            assert!(!selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value), "{file}");
        }
    }
    Ok(())
}

/// What a pod waits before it is told to stop.
fn pre_stop_s(hook: &Value) -> Option<u64> {
    let of_command = || {
        let words = hook["exec"]["command"].as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        words.split_once("sleep ")?.1.split(' ').next()?.parse().ok()
    };
    hook["sleep"]["seconds"].as_u64().or_else(of_command)
}
