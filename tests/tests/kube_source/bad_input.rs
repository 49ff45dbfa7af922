//! Bad input: nothing panics, what can be read is served, the rest is told, and nobody else notices.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use xlb_tests::api::{ApiServer, BadCase, Fault, MANY_PORTS, Target, bad_cases};
use xlb_userspace::plan::desired::{Desired, Refusal};
use xlb_userspace::plan::{Limits, Observed, plan};

use crate::served::{lines, served};
use crate::stage::{AT_ONCE, Cluster, KINDS, service};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn bad_objects_are_read_as_far_as_they_make_sense_and_others_are_served() {
    for case in bad_cases() {
        let Some(server) = ApiServer::for_faults() else { return };
        good(&server);
        let mut cluster = Cluster::of(server.clone());
        // Half of them meet it in its list, the others as changes.
        let (listed, changed) = case.objects.split_at(case.objects.len() / 2);
        server.apply_all(listed);
        cluster.pass(SECOND).await;
        server.apply_all(changed);
        cluster.pass(SECOND).await;
        check(&case, &cluster);
        planned(&case, &served(&cluster.model, None));
    }
}

#[tokio::test(start_paused = true)]
async fn all_bad_objects_together_change_nothing_for_each_other() {
    let Some(server) = ApiServer::for_faults() else { return };
    good(&server);
    let cases = bad_cases();
    server.apply_all(cases.iter().flat_map(|case| &case.objects));
    let mut cluster = Cluster::of(server);
    cluster.pass(SECOND).await;
    for case in &cases {
        check(case, &cluster);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slice_may_come_before_its_service() {
    let Some(server) = ApiServer::for_faults() else { return };
    let mut cluster = Cluster::of(server.clone());
    server.apply(&slice("web", "web-1", &["10.1.0.1"]));
    cluster.pass(SECOND).await;
    assert_eq!(lines(&served(&cluster.model, None), "default"), Vec::<String>::new());
    server.apply(&service("web", json!({})));
    cluster.pass(AT_ONCE).await;
    assert_eq!(lines(&served(&cluster.model, None), "default"), ["web 192.0.2.10:80 10.1.0.1:8080"]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_asks_for_more_ports_than_fit_takes_nothing_from_those_served_before() {
    let Some(server) = ApiServer::for_faults() else { return };
    good(&server);
    let mut cluster = Cluster::of(server.clone());
    cluster.pass(SECOND).await;
    let limits = Limits { frontends: 64, ..Limits::default() };
    let mut observed = Observed::default();
    apply(&served(&cluster.model, None), &mut observed, &limits);
    let before = observed.frontends.clone();

    server.apply_all(bad_cases().into_iter().flat_map(|case| case.objects));
    cluster.pass(SECOND).await;
    let refusals = apply(&served(&cluster.model, None), &mut observed, &limits);
    assert!(before.iter().all(|(key, frontend)| observed.frontends.get(key) == Some(frontend)));
    assert_eq!(observed.frontends.len(), 64);
    let told = refusals.iter().filter(|refusal| refusal.object.contains("/greedy") && refusal.why.contains("full"));
    assert!(told.count() > usize::from(MANY_PORTS) - 64);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_not_accepted_are_told_with_verb_and_resource() {
    for kind in KINDS {
        for (code, sentence) in [
            (401, format!("{kind}: the API server does not accept the agent's credentials to watch {kind}: ")),
            (
                403,
                format!(
                    "{kind}: the API server does not allow it; the agent's ClusterRole needs the verb watch on {kind} "
                ),
            ),
        ] {
            let Some(mut cluster) = Cluster::synced().await else { return };
            let before = served(&cluster.model, None);
            let fault = Fault::Status { code, retry_after_s: None };
            cluster.server.inject(fault, Target::any().resource(kind).verb("watch"));
            cluster.server.drop_connections();
            cluster.pass(10 * SECOND).await;
            let refusals = cluster.refusals();
            assert!(refusals.len() == 1 && refusals[0].starts_with(&sentence), "{refusals:?}");
            assert_eq!(served(&cluster.model, None), before);

            cluster.server.lift_faults();
            cluster.pass(10 * SECOND).await;
            assert_eq!(cluster.refusals(), Vec::<String>::new(), "{kind} {code}");
        }
    }
}

/// A jump of the wall clock can then change nothing but what is shown: the loop, pauses, quarantines and limits of time
/// count on the monotonic clock.
#[test]
fn only_what_is_shown_to_people_reads_the_wall_clock() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xlb-userspace/src");
    let readers: BTreeSet<String> = files_below(&sources)
        .into_iter()
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("SystemTime::now")))
        .map(|path| path.strip_prefix(&sources).unwrap_or(&path).display().to_string())
        .collect();
    let allowed = ["agent/report.rs", "health", "metrics", "maps/watching.rs"];
    let others: Vec<_> = readers.iter().filter(|path| !allowed.iter().any(|start| path.starts_with(start))).collect();
    assert!(others.is_empty(), "{others:?} read the wall clock; count on std::time::Instant");
}

/// What everybody else needs: it is there before and after.
fn good(server: &ApiServer) {
    server.apply(&service("good", json!({})));
    server.apply(&slice("good", "good-1", &["10.1.0.1", "10.1.0.2"]));
}

fn check(case: &BadCase, cluster: &Cluster) {
    let desired = served(&cluster.model, None);
    assert!(cluster.model.is_synced(), "{}", case.case);
    assert_eq!(lines(&desired, "default"), ["good 192.0.2.10:80 10.1.0.1:8080 10.1.0.2:8080"], "{}", case.case);
    let namespace = case.objects[0]["metadata"]["namespace"].as_str().unwrap();
    if let Some(expected) = &case.served {
        let mut expected = expected.clone();
        let mut found = lines(&desired, namespace);
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{}", case.case);
    }
    let shown = |refusal: &Refusal| format!("{}: {}", refusal.object, refusal.why);
    let told: Vec<String> = cluster.kube.refusals().iter().chain(&desired.refusals).map(shown).collect();
    for part in &case.told {
        assert!(told.iter().any(|told| told.contains(part)), "{}: {part:?} is not told in {told:#?}", case.case);
    }
}

/// All that is wanted fits into maps of the usual sizes, names apart.
fn planned(case: &BadCase, desired: &Desired) {
    let refusals = apply(desired, &mut Observed::default(), &Limits::default());
    let names_only = refusals.iter().all(|refusal| refusal.why.contains("its name is longer than"));
    assert!(names_only, "{}: {refusals:?}", case.case);
}

/// Does what is planned, and returns what is not done.
fn apply(desired: &Desired, observed: &mut Observed, limits: &Limits) -> Vec<Refusal> {
    let plan = plan(desired, observed, limits, 0);
    plan.ops.iter().for_each(|op| observed.apply(op, 0));
    [plan.refusals, plan.waiting].concat()
}

/// A slice of a Service of the namespace `default`, with pods on this node.
pub fn slice(service: &str, name: &str, pods: &[&str]) -> Value {
    let endpoints: Vec<Value> = pods.iter().map(|pod| json!({ "addresses": [pod], "nodeName": "node" })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": name, "namespace": "default", "labels": { "kubernetes.io/service-name": service } },
        "ports": [{ "name": "", "port": 8080 }], "endpoints": endpoints,
    })
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
