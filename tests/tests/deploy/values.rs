//! Values that the chart does not take, and what is said of them.

use anyhow::Result;
use serde_json::{Value, json};

use crate::chart::rendered;

/// Values, and the parts of what is said.
fn bad() -> Vec<(Value, &'static [&'static str])> {
    let flag = |name: &str, value: Value| json!({ "flags": { name: value } });
    vec![
        (flag("max-flow", json!(1)), &["/flags", "'max-flow' was unexpected"]),
        (json!({ "flag": {} }), &["'flag' was unexpected"]),
        (flag("max-flows", json!("1M")), &["/flags/max-flows", "\"1M\" is not of types"]),
        (flag("max-flows", json!(100)), &["/flags/max-flows", "100 is less than the minimum of 1024"]),
        (flag("max-backends", json!(65_536)), &["/flags/max-backends", "maximum of 65535"]),
        (flag("flow-timeout-udp", json!("30")), &["/flags/flow-timeout-udp", "\"30\" does not match"]),
        (flag("handover", json!(3600)), &["/flags/handover", "3600 is greater than the maximum of 0"]),
        (flag("xdp", json!("hardware")), &["/flags/xdp", "\"hardware\" is not one of \"auto\""]),
        (flag("xdp", json!(true)), &["/flags/xdp", "true is not one of"]),
        (flag("vip-unowned", json!(false)), &["/flags/vip-unowned", "false is not one of"]),
        (flag("keep-dataplane", json!("yes")), &["/flags/keep-dataplane", "\"yes\" is not of types"]),
        (flag("uplink", json!("eth0")), &["/flags/uplink", "\"eth0\" is not of type \"array\""]),
        (flag("uplink", json!([])), &["/flags/uplink", "[] has less than 1 item"]),
        (flag("uplink", json!(["eth0,eth1"])), &["/flags/uplink/0", "does not match"]),
        (flag("uplink", Value::Null), &["/flags", "\"uplink\" is a required property"]),
        (flag("metrics-address", json!("10349")), &["/flags/metrics-address", "does not match"]),
        (flag("health-address", json!(true)), &["/flags/health-address"]),
        (flag("cluster-cidrs", json!(["10.0.0.0"])), &["/flags/cluster-cidrs/0", "does not match"]),
        (flag("bpffs-dir", json!("/run/xlb")), &["/flags/bpffs-dir", "does not match"]),
        (flag("cgroup", json!("/sys/fs/cgroup")), &["/flags/cgroup", "does not match"]),
        (flag("cgroup", Value::Null), &["/flags", "\"cgroup\" is a required property"]),
        (flag("manifests", json!("/etc/xlb")), &["'manifests' was unexpected"]),
        (json!({ "image": { "tag": 1 } }), &["/image/tag", "1 is not of type \"string\""]),
        (json!({ "image": { "registry": "x" } }), &["/image", "'registry' was unexpected"]),
        (json!({ "maxUnavailable": 0 }), &["/maxUnavailable"]),
        (json!({ "resources": { "limits": { "cpu": 1 } } }), &["/resources/limits/cpu", "is not of type \"string\""]),
        (json!({ "privileged": "true" }), &["/privileged", "is not of type \"boolean\""]),
        (
            json!({ "podMonitor": { "enabled": true } }),
            &["metrics are asked for at 127.0.0.1:10349", "set flags.metrics-address, for example to $(NODE_IP):10349"],
        ),
        (
            json!({ "metricsService": { "enabled": true }, "flags": { "metrics-address": false } }),
            &["metrics are asked for at off", "set flags.metrics-address"],
        ),
    ]
}

#[test]
fn a_value_that_is_not_taken_is_named_with_what_would_be() -> Result<()> {
    for (values, parts) in bad() {
        let Err(error) = rendered(&values) else { panic!("{values} is taken") };
        let error = format!("{error:#}");
        for part in parts {
            assert!(error.contains(part), "{values}: {part:?} is missing in {error}");
        }
    }
    Ok(())
}
