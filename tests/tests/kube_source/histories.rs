//! After any history of changes and faults, all that was told and all that is served equals that of a fresh start.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use xlb_tests::api::{ApiServer, Backup, Fault, Target};

use crate::bad_input::slice;
use crate::served::served;
use crate::stage::{CHECKED, Cluster, LISTED_AGAIN, service, status};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn after_any_history_what_is_served_is_that_of_a_fresh_start(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let Some(mut cluster) = Cluster::new() else { return };
            let backup = cluster.server.backup();
            let is_restored = steps.iter().any(|(step, _)| matches!(step, Step::Restore));
            for (step, pause_ms) in steps {
                take(&cluster.server, step, &backup);
                cluster.pass(Duration::from_millis(pause_ms)).await;
            }
            repair(&cluster.server);
            cluster.pass(if is_restored { LISTED_AGAIN } else { 2 * CHECKED }).await;
            vanish_behind_a_compaction(&mut cluster).await;
            assert_as_fresh(&cluster).await;
        });
    }
}

fn take(server: &ApiServer, step: Step, backup: &Backup) {
    match step {
        Step::Put(name, vip) => {
            let mut service = service(&name.to_string(), json!({}));
            service["status"]["loadBalancer"]["ingress"][0]["ip"] = json!(format!("192.0.2.{vip}"));
            server.apply_all([service]);
        }
        Step::Remove(name) => remove(server, "services", "default", &name.to_string()),
        Step::PutSlice(name, pods) => {
            let pods: Vec<String> = pods.iter().map(|pod| format!("10.1.0.{pod}")).collect();
            let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
            server.apply_all([slice(&(name / 2).to_string(), &format!("slice-{name}"), &pods)]);
        }
        Step::RemoveSlice(name) => remove(server, "endpointslices", "default", &format!("slice-{name}")),
        Step::Policy(true) => server.apply_all([json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"}, "spec": {},
        })]),
        Step::Policy(false) => remove(server, "networkpolicies", "default", "deny"),
        Step::Fault(fault, times) => server.inject(fault, Target::any().times(times)),
        Step::Forbid => server.forbid(Target::any()),
        Step::Allow => server.allow_all(),
        Step::Drop => server.drop_connections(),
        Step::Restart => server.restart(),
        Step::Compact => server.compact(),
        Step::BlackHole(is) => server.set_black_hole(is),
        Step::Streaming(is) => server.set_streaming_lists(is),
        Step::Restore => server.restore(backup),
    }
}

/// It may not be there.
fn remove(server: &ApiServer, plural: &str, namespace: &str, name: &str) {
    server.delete(plural, namespace, name);
}

fn repair(server: &ApiServer) {
    server.lift_faults();
    server.allow_all();
    server.set_black_hole(false);
}

/// Objects go while the server cannot be heard, and it forgets that they went: only a new list can tell.
async fn vanish_behind_a_compaction(cluster: &mut Cluster) {
    let server = cluster.server.clone();
    server.apply(&service("doomed", json!({})));
    server.apply(&slice("doomed", "doomed-1", &["10.1.0.9"]));
    cluster.pass(CHECKED).await;
    assert!(cluster.text().contains("default/doomed ") && cluster.text().contains("default/doomed-1"));

    server.inject(Fault::Refuse, Target::any());
    server.drop_connections();
    server.delete("services", "default", "doomed");
    server.delete("endpointslices", "default", "doomed-1");
    server.forget_requests();
    cluster.pass(Duration::from_secs(5)).await;
    assert!(cluster.text().contains("default/doomed "), "an outage takes nothing away");
    server.compact();
    repair(&server);
    cluster.pass(CHECKED).await;
    assert!(!cluster.text().contains("doomed"), "{}", cluster.text());
    for kind in ["services", "endpointslices"] {
        let streamed = server.requests_of("watch", kind).iter().any(|watch| watch.is_set("sendInitialEvents"));
        let listed = server.requests_of("list", kind).iter().any(|list| list.parameter("limit") != "1");
        assert!(streamed || listed, "{kind} were not listed again");
    }
}

async fn assert_as_fresh(cluster: &Cluster) {
    let mut fresh = Cluster::of(cluster.server.clone());
    fresh.pass(CHECKED).await;
    assert!(fresh.model.is_synced());
    assert_eq!(cluster.model, fresh.model);
    assert_eq!(cluster.refusals(), fresh.refusals());
    let zone = |cluster: &Cluster| cluster.kube.node().and_then(|node| node.zone.clone());
    assert_eq!(served(&cluster.model, zone(cluster).as_deref()), served(&fresh.model, zone(&fresh).as_deref()));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Remove(u8),
    PutSlice(u8, Vec<u8>),
    RemoveSlice(u8),
    Policy(bool),
    Fault(Fault, usize),
    Forbid,
    Allow,
    Drop,
    Restart,
    Compact,
    BlackHole(bool),
    Streaming(bool),
    Restore,
}

/// What happens, and the milliseconds after it.
fn step() -> impl Strategy<Value = (Step, u64)> {
    let fault = prop_oneof![
        Just(Fault::Refuse),
        Just(Fault::Hang),
        Just(Fault::Slow(Duration::from_secs(3))),
        Just(Fault::Slow(Duration::from_secs(30))),
        Just(status(410)),
        Just(status(429)),
        Just(status(500)),
        (0..5usize).prop_map(|after_lines| Fault::Cut { after_lines }),
        Just(Fault::NoBookmarks),
    ];
    let step = prop_oneof![
        5 => (0..6u8, 10..13u8).prop_map(|(name, vip)| Step::Put(name, vip)),
        5 => (0..12u8, vec(1..6u8, 0..4)).prop_map(|(name, pods)| Step::PutSlice(name, pods)),
        3 => (0..12u8).prop_map(Step::RemoveSlice),
        1 => any::<bool>().prop_map(Step::Policy),
        3 => (0..6u8).prop_map(Step::Remove),
        4 => (fault, 1..12usize).prop_map(|(fault, times)| Step::Fault(fault, times)),
        1 => Just(Step::Forbid),
        1 => Just(Step::Allow),
        2 => Just(Step::Drop),
        1 => Just(Step::Restart),
        1 => Just(Step::Compact),
        1 => any::<bool>().prop_map(Step::BlackHole),
        1 => any::<bool>().prop_map(Step::Streaming),
        1 => Just(Step::Restore),
    ];
    (step, prop_oneof![Just(0), 1..500u64, 500..60_000u64])
}
