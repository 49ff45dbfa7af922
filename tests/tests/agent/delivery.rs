//! How packets reach pods, and what a NetworkPolicy does to that.

use anyhow::Result;
use serde_json::Value;
use xlb_tests::lab::{Greeting, LabSpec};

use crate::stage::{Stage, TARGET_PORT, backend, socket, takers, waiting};

const RESTRICTS_INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}
";

#[test]
fn a_policy_that_restricts_ingress_sends_new_backends_through_the_stack() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    assert_eq!(modes(&stage.agent.inspect()?, &stage, &[0, 1]), ["direct", "direct"]);

    // None of these restricts what reaches the pods of this namespace.
    let egress = RESTRICTS_INGRESS.replace("[Ingress]", "[Egress]").replace("closed", "outward");
    let elsewhere = RESTRICTS_INGRESS.replace("namespace: default", "namespace: elsewhere");
    stage.manifests.write("others.yaml", &format!("{egress}---{elsewhere}"))?;
    let new = add_pod(&mut stage)?;
    let maps = stage.until(|maps| takers(maps, "web").len() == 3);
    assert_eq!(modes(&maps, &stage, &[0, 1, new]), ["direct", "direct", "direct"]);
    assert_eq!(waiting(&maps, &[]), None);

    stage.manifests.write("policy.yaml", RESTRICTS_INGRESS)?;
    for pod in [0, 1, new] {
        let address = socket(&stage.lab, pod);
        stage.until(|maps| waiting(maps, &[&address, "direct", "connections end", "restart"]).is_some());
    }
    let newest = add_pod(&mut stage)?;
    let maps = stage.until(|maps| takers(maps, "web").len() == 4);
    assert_eq!(modes(&maps, &stage, &[0, 1, new, newest]), ["direct", "direct", "direct", "stack"]);
    assert_eq!(waiting(&maps, &[&socket(&stage.lab, newest)]), None);
    drop(stage.hold_at(0, &format!("pod-{newest}"))?);
    held.answers()?;

    stage.manifests.remove("policy.yaml")?;
    let address = socket(&stage.lab, newest);
    let maps = stage.until(|maps| waiting(maps, &[&address, "stack", "restart"]).is_some());
    assert_eq!(waiting(&maps, &[&socket(&stage.lab, 0)]), None);
    held.answers()
}

#[test]
fn a_backend_that_left_and_comes_back_has_the_new_mode() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.manifests.write("policy.yaml", RESTRICTS_INGRESS)?;
    let address = socket(&stage.lab, 1);
    stage.until(|maps| waiting(maps, &[&address]).is_some());
    stage.lab.remove_pod(1)?;
    stage.until(|maps| takers(maps, "web").len() == 1);
    stage.lab.add_pod_again(1)?;
    stage.lab.serve_tcp(1, TARGET_PORT, Greeting::OnRequest)?;
    let maps = stage.until(|maps| takers(maps, "web").len() == 2);
    assert_eq!(modes(&maps, &stage, &[0, 1]), ["direct", "stack"]);
    drop(stage.hold_at(0, "pod-1")?);
    Ok(())
}

#[test]
fn the_operator_may_choose_the_way() -> Result<()> {
    for mode in ["direct", "stack"] {
        let mut stage = Stage::with(LabSpec { pod_count: 2, ..LabSpec::default() }, &["--delivery", mode])?;
        stage.manifests.write("policy.yaml", RESTRICTS_INGRESS)?;
        let new = add_pod(&mut stage)?;
        let maps = stage.until(|maps| takers(maps, "web").len() == 3);
        assert_eq!(modes(&maps, &stage, &[0, 1, new]), [mode; 3]);
        assert_eq!(waiting(&maps, &[]), None);
        stage.hold(0)?.answers()?;
    }
    Ok(())
}

/// One more pod behind `default/web`.
fn add_pod(stage: &mut Stage) -> Result<usize> {
    let pod = stage.lab.add_pod()?;
    stage.lab.serve_tcp(pod, TARGET_PORT, Greeting::OnRequest)?;
    stage.serve_pods(&stage.lab.pods().collect::<Vec<_>>())?;
    Ok(pod)
}

fn modes<'a>(maps: &'a Value, stage: &Stage, pods: &[usize]) -> Vec<&'a str> {
    let mode = |&pod: &usize| backend(maps, &stage.lab, pod).and_then(|backend| backend["delivery"].as_str());
    pods.iter().map(|pod| mode(pod).unwrap_or("none")).collect()
}
