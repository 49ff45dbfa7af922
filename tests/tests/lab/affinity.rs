//! `sessionAffinity: ClientIP`: a client comes back to its pod for as long as its last connection is young enough.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use xlb_tests::lab::{EndpointSpec, LabSpec, LineClient};

use crate::scene::{Delivery, Door, Scene, list, pod_number, ready};

/// With two pods, all twelve at the same one is one case in two thousand.
const CLIENTS: usize = 12;
const PODS_BEFORE: usize = 2;
/// Each client's slot is a new pod's in three of four cases; that none is happens once in 16 million.
const PODS_AFTER: usize = 8;
const RECONNECTS: usize = 3;
/// The time-out that is waited for, and more than that.
const SHORT_S: u64 = 2;
const LONGER: Duration = Duration::from_secs(SHORT_S + 3);

#[test]
fn clients_return_to_their_pods_while_pods_come() -> Result<()> {
    for (dual_stack, delivery) in [(false, Delivery::Direct), (true, Delivery::Direct), (true, Delivery::Stack)] {
        let mut scene = start(dual_stack, delivery, 10_800)?;
        let homes = visit_all(&scene)?;
        assert!(homes.iter().collect::<BTreeSet<_>>().len() > 1, "all clients go to one pod: {homes:?}");
        grow(&mut scene)?;
        for _ in 0..RECONNECTS {
            assert_eq!(visit_all(&scene)?, homes, "over {:?}", scene.version);
        }
        // The other port has met none of them yet.
        let strangers = (0..CLIENTS).map(|client| visit_banner(&scene, client)).collect::<Result<Vec<_>>>()?;
        assert_ne!(strangers, homes);
        assert!(strangers.iter().any(|&pod| pod >= PODS_BEFORE), "no new pod is met: {strangers:?}");
    }
    Ok(())
}

#[test]
fn a_client_whose_pod_is_not_ready_goes_elsewhere_and_stays_there() -> Result<()> {
    for dual_stack in [false, true] {
        let mut scene = start(dual_stack, Delivery::Direct, 10_800)?;
        grow(&mut scene)?;
        let homes = visit_all(&scene)?;
        let unready = homes[0];
        let left: Vec<usize> = (0..PODS_AFTER).filter(|&pod| pod != unready).collect();
        let mut endpoints = ready(&scene.lab, &left);
        let ip = scene.pod_address(unready);
        endpoints.push(EndpointSpec { ready: false, serving: false, ..EndpointSpec::ready(ip) });
        scene.set_endpoints(&endpoints, &left)?;

        let moved = visit_all(&scene)?;
        for (home, now) in homes.iter().zip(&moved) {
            assert!(if *home == unready { now != home } else { now == home }, "{homes:?} became {moved:?}");
        }
        assert_eq!(visit_all(&scene)?, moved);
    }
    Ok(())
}

#[test]
fn a_record_that_is_too_old_binds_nobody() -> Result<()> {
    let mut scene = start(true, Delivery::Direct, SHORT_S)?;
    let homes = visit_all(&scene)?;
    grow(&mut scene)?;
    sleep(LONGER);
    let moved = visit_all(&scene)?;
    assert!(moved.iter().any(|&pod| pod >= PODS_BEFORE), "{homes:?} became {moved:?}");
    Ok(())
}

fn start(dual_stack: bool, delivery: Delivery, timeout_s: u64) -> Result<Scene> {
    let spec = LabSpec { clients: CLIENTS, pod_count: PODS_BEFORE, dual_stack, ..LabSpec::default() };
    let mut scene = Scene::new(spec, delivery, Door::Tc)?;
    let timeout = format!("sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {timeout_s}}}}}");
    scene.set_service(false, &["sessionAffinity: ClientIP", &timeout])?;
    scene.agent.wait_until(|maps| list(maps, "services").all(|service| service["affinity_s"] == timeout_s));
    Ok(scene)
}

/// More pods become ready.
fn grow(scene: &mut Scene) -> Result<()> {
    while scene.lab.pods().count() < PODS_AFTER {
        scene.add_pod()?;
    }
    let pods: Vec<usize> = scene.lab.pods().collect();
    scene.set_endpoints(&ready(&scene.lab, &pods), &pods)
}

/// The pod that each client meets.
fn visit_all(scene: &Scene) -> Result<Vec<usize>> {
    (0..CLIENTS).map(|client| scene.check_connection(client).with_context(|| format!("client {client}"))).collect()
}

fn visit_banner(scene: &Scene, client: usize) -> Result<usize> {
    pod_number(&LineClient::connect(scene.lab.client(client), scene.banner_vip())?.greeting()?.server)
}
