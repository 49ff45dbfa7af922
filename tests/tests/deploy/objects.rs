//! The check of objects itself, and that it is passed by all that `deploy/` holds.

use anyhow::Result;
use serde_json::{Value, json};
use xlb_tests::deploy::{build, check, documents, folder, read, with_component};

use crate::chart::{Case, cases, rendered};

/// Everything that is applied to a cluster, but for what the chart makes.
pub fn all() -> Result<Vec<(String, Vec<Value>)>> {
    let kustomize = folder().join("kustomize");
    let base = kustomize.join("base");
    let mut all =
        vec![("base".to_owned(), build(&base)?), ("privileged".into(), build(&kustomize.join("privileged"))?)];
    for component in ["xdp", "metrics"] {
        all.push((component.into(), with_component(&base, &kustomize.join("components").join(component))?));
    }
    for file in ["examples/ingress-nginx.yaml", "examples/istio-gateway.yaml", "systemd/manifests/web.yaml"] {
        all.push((file.into(), documents(&read(&folder().join(file))?)?));
    }
    Ok(all)
}

#[test]
fn every_object_is_one_that_the_api_takes() -> Result<()> {
    for (name, objects) in all()? {
        assert!(!objects.is_empty(), "{name}");
        objects.iter().try_for_each(check)?;
    }
    for Case { name, values, .. } in cases() {
        println!("{name}");
        // Kinds of the Prometheus operator are none of the API's own.
        let own = rendered(&values)?.objects.into_iter().filter(|object| object["kind"] != "PodMonitor");
        own.collect::<Vec<_>>().iter().try_for_each(check)?;
    }
    Ok(())
}

#[test]
fn a_field_that_is_unknown_or_has_the_wrong_type_is_named() {
    for (pointer, value, expected) in [
        (
            "/spec/template/spec/containers/0/securityContext/capabilites",
            json!({}),
            "/capabilites is a field that the API",
        ),
        ("/spec/template/spec/hostNetwork", json!("true"), "wrong type"),
        ("/spec/updateStrategy/rollingUpdate/maxUnavailible", json!(1), "/maxUnavailible is a field that the API"),
        ("/kind", json!("Daemonset"), "no kind that is checked"),
    ] {
        let mut objects = build(&folder().join("kustomize/base")).unwrap();
        let daemonset = objects.iter_mut().find(|object| object["kind"] == "DaemonSet").unwrap();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        daemonset.pointer_mut(parent).unwrap()[key] = value;
        let error = format!("{:#}", check(daemonset).unwrap_err());
        assert!(error.contains(expected), "{pointer}: {error}");
    }
}
