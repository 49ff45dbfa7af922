//! The chart, filled with values: by default it is the kustomization, and each variant is one of those.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xlb_tests::deploy::{Chart, Release, Rendered, build, folder, identity, only, with_component};

use crate::container::container;

pub const RELEASE: Release = Release { name: "xlb", namespace: "xlb-system" };

/// Labels that Helm puts to what it installs.
const OF_HELM: [&str; 2] = ["app.kubernetes.io/managed-by", "helm.sh/chart"];

/// Values that the chart takes.
pub struct Case {
    pub name: &'static str,
    pub values: Value,
    /// Of the DaemonSet's container: a pointer, and what is there.
    pub expected: Vec<(&'static str, Value)>,
}

pub fn cases() -> Vec<Case> {
    let case = |name, values, expected: &[(&'static str, Value)]| Case { name, values, expected: expected.to_vec() };
    vec![
        case("nothing", json!({}), &[]),
        case(
            "flags",
            json!({ "flags": {
                "uplink": ["ens3", "ens4"], "xdp": "native", "max-flows": 4_194_304, "handover": 0, "flow-timeout-udp": "45s",
                "cgroup": "/host/cgroup/unified", "keep-dataplane": false, "ip-mode-proxy": true, "vip-echo": false,
                "clients-inside": true, "cluster-cidrs": ["10.0.0.0/8", "fd00::/8"], "pod-ips": "cluster-only",
                "load-balancer-class": [],
            } }),
            &[(
                "/args",
                json!([
                    "run",
                    "--kube",
                    "--node-name=$(NODE_NAME)",
                    "--cgroup=/host/cgroup/unified",
                    "--clients-inside=on",
                    "--cluster-cidrs=10.0.0.0/8,fd00::/8",
                    "--flow-timeout-udp=45s",
                    "--handover=0",
                    "--ip-mode-proxy",
                    "--max-flows=4194304",
                    "--pod-ips=cluster-only",
                    "--uplink=ens3,ens4",
                    "--vip-echo=off",
                    "--xdp=native",
                ]),
            )],
        ),
        case(
            "an image and a log",
            json!({ "image": { "repository": "registry.example:5000/a/xlb", "tag": "v1" }, "log": "debug" }),
            &[("/image", json!("registry.example:5000/a/xlb:v1")), ("/env/1/value", json!("debug"))],
        ),
        case(
            "privileged",
            json!({ "privileged": true }),
            &[
                ("/securityContext/privileged", json!(true)),
                ("/volumeMounts/0/mountPropagation", json!("Bidirectional")),
            ],
        ),
        case("XDP", json!({ "xdpIntoPods": true }), &[("/securityContext/capabilities/add/3", json!("SYS_ADMIN"))]),
        case(
            "metrics",
            json!({ "metricsService": { "enabled": true }, "flags": { "metrics-address": "$(NODE_IP):10349" } }),
            &[("/env/1/valueFrom/fieldRef/fieldPath", json!("status.hostIP"))],
        ),
        case(
            "metrics of an IPv6 node, another port, an operator",
            json!({
                "podMonitor": { "enabled": true, "labels": { "release": "p" } },
                "flags": { "metrics-address": "[$(NODE_IP)]:9000", "health-address": "[::]:10356" },
            }),
            &[("/ports/1/containerPort", json!(9000)), ("/livenessProbe/httpGet/host", Value::Null)],
        ),
        case(
            "health at one address",
            json!({ "flags": { "health-address": "127.0.0.1:10256" } }),
            &[("/readinessProbe/httpGet/host", json!("127.0.0.1")), ("/ports/0/containerPort", json!(10256))],
        ),
        case(
            "no health",
            json!({ "flags": { "health-address": "off" } }),
            &[("/ports", Value::Null), ("/livenessProbe", Value::Null)],
        ),
        case(
            "where pods go",
            json!({
                "nodeSelector": { "kubernetes.io/os": null, "pool": "edge" }, "tolerations": [], "priorityClassName": "",
                "maxUnavailable": "10%", "podAnnotations": { "a": "b" }, "imagePullSecrets": [{ "name": "s" }],
                "seLinuxOptions": { "type": "spc_t" }, "resources": { "limits": { "memory": "2Gi" } },
            }),
            &[("/resources/limits/memory", json!("2Gi")), ("/resources/requests/cpu", json!("100m"))],
        ),
    ]
}

pub fn rendered(values: &Value) -> Result<Rendered> {
    Chart::load(&folder().join("helm/xlb"))?.render(RELEASE, values)
}

#[test]
fn values_become_what_they_say() -> Result<()> {
    for Case { name, values, expected } in cases() {
        let rendered = rendered(&values).with_context(|| name)?;
        let container = container(only(&rendered.objects, "DaemonSet")?);
        for (pointer, value) in expected {
            let found = container.pointer(pointer).unwrap_or(&Value::Null);
            assert_eq!(*found, value, "{name}: {pointer}");
        }
        assert!(rendered.notes.contains("rollout status daemonset/xlb"), "{}", rendered.notes);
    }
    Ok(())
}

#[test]
fn the_defaults_are_the_base_and_each_variant_is_its_kustomization() -> Result<()> {
    let kustomize = folder().join("kustomize");
    let component = |name: &str| with_component(&kustomize.join("base"), &kustomize.join("components").join(name));
    let metrics = json!({ "metricsService": { "enabled": true }, "flags": { "metrics-address": "$(NODE_IP):10349" } });
    for (values, expected) in [
        (json!({}), build(&kustomize.join("base"))?),
        (json!({ "privileged": true }), build(&kustomize.join("privileged"))?),
        (json!({ "xdpIntoPods": true }), component("xdp")?),
        (metrics, component("metrics")?),
    ] {
        let mut expected = expected;
        expected.retain(|object| object["kind"] != "Namespace");
        let (chart, kustomization) = (sorted(rendered(&values)?.objects), sorted(expected));
        let names = |objects: &[Value]| objects.iter().map(identity).collect::<Vec<_>>();
        assert_eq!(names(&chart), names(&kustomization));
        for (of_chart, of_kustomization) in chart.iter().zip(&kustomization) {
            assert_eq!(of_chart, of_kustomization, "{values}: {}", identity(of_chart));
        }
    }
    Ok(())
}

/// By name, without the labels of Helm, and with flags in one order, which does not count.
fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    for object in &mut objects {
        if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.retain(|key, _| !OF_HELM.contains(&key.as_str()));
        }
        let arguments = object.pointer_mut("/spec/template/spec/containers/0/args").and_then(Value::as_array_mut);
        if let Some(arguments) = arguments {
            arguments.sort_by_key(ToString::to_string);
        }
    }
    objects.sort_by_key(identity);
    objects
}

#[test]
fn another_release_has_names_of_its_own() -> Result<()> {
    let chart = Chart::load(&folder().join("helm/xlb"))?;
    let rendered = chart.render(Release { name: "edge", namespace: "lb" }, &json!({}))?;
    for object in &rendered.objects {
        assert_eq!(object["metadata"]["name"], "edge", "{}", identity(object));
    }
    let subject = &only(&rendered.objects, "ClusterRoleBinding")?["subjects"][0];
    assert_eq!(*subject, json!({ "kind": "ServiceAccount", "name": "edge", "namespace": "lb" }));
    Ok(())
}
