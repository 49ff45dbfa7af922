//! Pods with connections that the kernel of their namespace does not know.

use anyhow::Result;
use serde_json::Value;
use xlb_tests::lab::{Greeting, Lab, LabSpec, Manifests, Namespace};

use crate::stage::{Held, Stage, TARGET_PORT, backend, lab, service, socket, takers};

/// Where a pod's proxy listens, as Istio's does.
const PROXY_PORT: u16 = 15_006;
const CONNECTIONS: usize = 24;

/// What comes for the pod's port is taken by its proxy: the pod's kernel has the connections by the proxy's port.
fn redirect(pod: &Namespace) -> Result<()> {
    let hook = "type nat hook prerouting priority dstnat;";
    let rules = format!(
        "table ip proxy {{\nchain prerouting {{\n{hook}\ntcp dport {TARGET_PORT} redirect to :{PROXY_PORT}\n}}\n}}"
    );
    pod.output("nft", &[&rules]).map(drop)
}

/// Whether the first pod's kernel is not asked any more.
fn is_found_out(maps: &Value, lab: &Lab) -> bool {
    backend(maps, lab, 0).is_some_and(|backend| backend["netns_id"].is_null())
}

#[test]
fn connections_that_a_proxy_in_the_pod_takes_stay_with_their_pod() -> Result<()> {
    let mut lab = lab(LabSpec { pod_count: 3, ..LabSpec::default() })?;
    for pod in lab.pods() {
        lab.serve_tcp(pod, PROXY_PORT, Greeting::OnRequest)?;
        redirect(lab.pod(pod))?;
    }
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    // A short time-out makes sweeps frequent.
    let mut stage = Stage::start(lab, manifests, &["--flow-timeout-udp", "2s"])?;
    let mut held = (0..CONNECTIONS).map(|_| stage.hold(0)).collect::<Result<Vec<_>>>()?;
    held.iter_mut().try_for_each(Held::answers)?;
    let counters = stage.agent.inspect()?["counters"].clone();
    // A slow machine has the pod found out while they still come: those after that are admitted by their client.
    let count = |reason: &str| counters[reason].as_u64().unwrap_or(0);
    assert!(count("replied_admitted") > 0, "{counters}");
    assert_eq!(count("replied_admitted") + count("client_acknowledged"), CONNECTIONS as u64, "{counters}");

    stage.later(|maps| is_found_out(maps, &stage.lab))?;

    stage.serve_pods(&[1, 2])?;
    let others = [1, 2].map(|pod| socket(&stage.lab, pod));
    stage.until(|maps| takers(maps, "web") == others);
    held.iter_mut().try_for_each(Held::answers)?;

    // The next agent knows it of the one before.
    stage.agent.kill()?;
    let Stage { lab, manifests, .. } = stage;
    let stage = Stage::start(lab, manifests, &[])?;
    held.iter_mut().try_for_each(Held::answers)?;
    let maps = stage.agent.inspect()?;
    assert!(is_found_out(&maps, &stage.lab), "{maps:#}");
    Ok(())
}
