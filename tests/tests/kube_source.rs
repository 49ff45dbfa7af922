//! Facts about following a cluster, against the test API server, in paused time: a minute passes in no time.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use xlb_tests::api::{ApiServer, Fault, Target};
use xlb_userspace::model::Model;
use xlb_userspace::source::Kube;

/// Within this time a reachable server is heard again: the longest pause, and a little for a list after it.
const RECOVERY: Duration = Duration::from_millis(3500);
/// Within this time a server whose version went back is noticed, or a connection that is dead: the longest watch, its
/// margin, a pause.
const CHECKED: Duration = Duration::from_secs(70);
/// Long enough for what happens at once.
const AT_ONCE: Duration = Duration::from_millis(10);

/// Within this time everything is listed again, whatever the version says.
const LISTED_AGAIN: Duration = Duration::from_secs(90 * 60);

const KINDS: [&str; 4] = ["services", "endpointslices", "networkpolicies", "nodes"];

#[tokio::test(start_paused = true)]
async fn a_cluster_is_read_and_a_change_is_seen_at_once() {
    for has_streaming_lists in [true, false] {
        let mut cluster = Cluster::new();
        cluster.server.set_streaming_lists(has_streaming_lists);
        cluster.pass(Duration::from_secs(1)).await;
        assert_eq!(cluster.text(), "services default/web | slices default/web-1 | policies default/deny");
        assert_eq!(cluster.kube.node().and_then(|node| node.zone.as_deref()), Some("z1"));
        assert_eq!((cluster.refusals(), cluster.kube.waiting().len()), (vec![], 0));

        cluster.server.apply(&service("shop", json!({})));
        cluster.server.delete("endpointslices", "default", "web-1");
        cluster.pass(AT_ONCE).await;
        assert_eq!(cluster.text(), "services default/shop default/web | slices | policies default/deny");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_read_in_pages_where_the_server_does_not_stream() {
    let mut cluster = Cluster::new();
    cluster.server.set_streaming_lists(false);
    for number in 0..1200 {
        cluster.server.apply(&service(&format!("web-{number}"), json!({})));
    }
    cluster.pass(Duration::from_secs(1)).await;
    assert_eq!(cluster.model.services().count(), 1201);
    assert_eq!(cluster.server.requests_of("list", "services").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_synced_before_every_kind_is() {
    for kind in KINDS {
        let mut cluster = Cluster::new();
        for verb in ["list", "watch"] {
            cluster.server.inject(Fault::Hang, Target::any().resource(kind).verb(verb));
        }
        cluster.pass(Duration::from_secs(300)).await;
        assert!(!cluster.model.is_synced(), "{kind}");
        assert_eq!(cluster.kube.waiting()[0].object, kind);
        assert_eq!(cluster.refusals().len(), 1, "{kind}: {:?}", cluster.refusals());

        cluster.server.lift_faults();
        cluster.pass(CHECKED).await;
        assert!(cluster.model.is_synced() && cluster.refusals().is_empty(), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_changes_nothing_and_what_happened_meanwhile_is_seen_soon_after() {
    for fault in [Fault::Refuse, Fault::Status { code: 503, retry_after_s: Some(30) }, status(429), status(500)] {
        let mut cluster = Cluster::synced().await;
        let before = cluster.text();
        cluster.server.inject(fault, Target::any());
        cluster.server.restart();
        cluster.server.apply(&service("shop", json!({})));
        cluster.server.delete("services", "default", "web");
        cluster.server.forget_requests();
        cluster.pass(Duration::from_secs(90)).await;
        assert_eq!(cluster.text(), before, "{fault:?}");
        assert!(cluster.model.is_synced());
        assert_eq!(cluster.refusals().len(), 4, "{fault:?}: one for each kind");
        let requests = cluster.server.requests().len();
        assert!((100..400).contains(&requests), "{fault:?}: {requests} requests in 90 s");

        cluster.server.lift_faults();
        cluster.pass(RECOVERY).await;
        assert_eq!(cluster.text(), "services default/shop | slices default/web-1 | policies default/deny", "{fault:?}");
        assert_eq!(cluster.refusals(), Vec::<String>::new(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_is_noticed_and_left() {
    let mut cluster = Cluster::synced().await;
    let before = cluster.text();
    cluster.server.set_black_hole(true);
    cluster.server.delete("services", "default", "web");
    cluster.pass(Duration::from_secs(200)).await;
    assert_eq!(cluster.text(), before);
    assert_eq!(cluster.refusals().len(), 4);

    cluster.server.set_black_hole(false);
    cluster.pass(Duration::from_secs(15)).await;
    assert_eq!(cluster.text(), "services | slices default/web-1 | policies default/deny");
    assert!(cluster.refusals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_server_costs_less_than_a_second() {
    let mut cluster = Cluster::synced().await;
    for number in 0..5 {
        cluster.server.restart();
        cluster.server.delete("services", "default", "web");
        cluster.server.apply(&service("shop", json!({"number": number.to_string()})));
        cluster.pass(Duration::from_secs(1)).await;
        assert_eq!(cluster.text(), "services default/shop | slices default/web-1 | policies default/deny");
        cluster.server.apply(&service("web", json!({})));
        cluster.pass(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_restored_from_a_backup_is_read_again() {
    let mut cluster = Cluster::synced().await;
    let backup = cluster.server.backup();
    for number in 0..50 {
        cluster.server.apply(&service(&format!("web-{number}"), json!({})));
    }
    cluster.pass(AT_ONCE).await;
    assert_eq!(cluster.model.services().count(), 51);

    cluster.server.restore(&backup);
    cluster.server.apply(&service("after", json!({})));
    cluster.pass(CHECKED).await;
    assert_eq!(cluster.text(), "services default/after default/web | slices default/web-1 | policies default/deny");
}

#[tokio::test(start_paused = true)]
async fn a_restored_server_that_caught_up_unseen_is_found_out_after_an_hour() {
    let mut cluster = Cluster::synced().await;
    let backup = cluster.server.backup();
    cluster.server.apply(&service("before", json!({})));
    cluster.pass(AT_ONCE).await;

    cluster.server.restore(&backup);
    cluster.server.apply(&service("after", json!({})));
    cluster.pass(LISTED_AGAIN).await;
    assert_eq!(cluster.text(), "services default/after default/web | slices default/web-1 | policies default/deny");
}

#[tokio::test(start_paused = true)]
async fn what_rbac_lacks_is_named_and_others_are_followed() {
    let mut cluster = Cluster::new();
    for verb in ["list", "watch"] {
        cluster.server.forbid(Target::any().verb(verb).resource("networkpolicies"));
    }
    cluster.pass(Duration::from_secs(30)).await;
    assert!(!cluster.model.is_synced());
    let refusals = cluster.refusals();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    let expected = "networkpolicies: the API server does not allow it; the agent's ClusterRole needs the verb watch on \
                    networkpolicies (apiGroup \"networking.k8s.io\"): ";
    assert!(refusals[0].starts_with(expected), "{refusals:?}");
    assert_eq!(cluster.text(), "services default/web | slices default/web-1 | policies");

    cluster.server.allow_all();
    cluster.pass(RECOVERY).await;
    assert!(cluster.model.is_synced() && cluster.refusals().is_empty());

    cluster.server.forbid(Target::any());
    cluster.server.drop_connections();
    cluster.pass(RECOVERY).await;
    assert!(cluster.model.is_synced(), "what was served stays");
    assert_eq!(cluster.refusals().len(), 8, "list and watch of each kind: {:?}", cluster.refusals());
}

#[tokio::test(start_paused = true)]
async fn a_label_that_gives_an_object_to_another_proxy_takes_it_away_and_back() {
    let mut cluster = Cluster::synced().await;
    for labels in
        [json!({"service.kubernetes.io/headless": ""}), json!({"service.kubernetes.io/service-proxy-name": "other"})]
    {
        cluster.server.apply(&service("web", labels));
        cluster.pass(AT_ONCE).await;
        assert_eq!(cluster.text(), "services | slices default/web-1 | policies default/deny");

        cluster.server.apply(&service("web", json!({"service.kubernetes.io/service-proxy-name": "xlb"})));
        cluster.pass(AT_ONCE).await;
        assert_eq!(cluster.text(), "services default/web | slices default/web-1 | policies default/deny");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_asks_little() {
    let mut cluster = Cluster::synced().await;
    cluster.server.forget_requests();
    cluster.pass(Duration::from_secs(600)).await;
    for kind in KINDS {
        let (lists, watches) = (cluster.server.requests_of("list", kind), cluster.server.requests_of("watch", kind));
        assert!((9..=16).contains(&watches.len()), "{kind}: {} watches in 10 minutes", watches.len());
        assert!(lists.iter().all(|list| list.parameter("limit") == "1"), "{kind}: a whole list");
        assert!(lists.len().abs_diff(watches.len()) <= 1, "{kind}: {} checks", lists.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_changes_is_taken_together() {
    let mut cluster = Cluster::synced().await;
    for number in 0..500 {
        cluster.server.apply(&service(&format!("web-{number}"), json!({})));
    }
    let rounds_before = cluster.rounds;
    cluster.pass(AT_ONCE).await;
    assert_eq!(cluster.model.services().count(), 501);
    let rounds = cluster.rounds - rounds_before;
    assert!(rounds < 100, "{rounds} rounds for 500 changes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn after_any_faults_the_model_is_that_of_a_fresh_start(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut cluster = Cluster::new();
            let backup = cluster.server.backup();
            let is_restored = steps.iter().any(|(step, _)| matches!(step, Step::Restore));
            for (step, pause_ms) in steps {
                match step {
                    Step::Put(name) => drop(cluster.server.apply(&service(&name.to_string(), json!({})))),
                    Step::Remove(name) => drop(cluster.server.delete("services", "default", &name.to_string())),
                    Step::Fault(fault, times) => cluster.server.inject(fault, Target::any().times(times)),
                    Step::Forbid => cluster.server.forbid(Target::any()),
                    Step::Allow => cluster.server.allow_all(),
                    Step::Drop => cluster.server.drop_connections(),
                    Step::Restart => cluster.server.restart(),
                    Step::Compact => cluster.server.compact(),
                    Step::BlackHole(is) => cluster.server.set_black_hole(is),
                    Step::Streaming(is) => cluster.server.set_streaming_lists(is),
                    Step::Restore => cluster.server.restore(&backup),
                }
                cluster.pass(Duration::from_millis(pause_ms)).await;
            }
            cluster.server.lift_faults();
            cluster.server.allow_all();
            cluster.server.set_black_hole(false);
            cluster.pass(if is_restored { LISTED_AGAIN } else { 2 * CHECKED }).await;
            let mut fresh = Cluster::of(cluster.server.clone());
            fresh.pass(CHECKED).await;
            assert!(fresh.model.is_synced());
            assert_eq!(cluster.model, fresh.model);
            assert_eq!(cluster.refusals(), fresh.refusals());
        });
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Remove(u8),
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
        6 => (0..6u8).prop_map(Step::Put),
        5 => (0..6u8).prop_map(Step::Remove),
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

/// A server, and what an agent would know of it.
struct Cluster {
    server: ApiServer,
    kube: Kube,
    model: Model,
    /// How often something was taken.
    rounds: usize,
}

impl Cluster {
    /// A server with an object of each kind.
    fn new() -> Self {
        let server = ApiServer::new();
        let metadata = |name: &str, labels| json!({"name": name, "namespace": "default", "labels": labels});
        server.apply(&service("web", json!({})));
        server.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": metadata("web-1", json!({"kubernetes.io/service-name": "web"})),
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "node-a"}],
        }));
        server.apply(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": metadata("deny", json!({})), "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        }));
        for name in ["node-a", "node-b"] {
            let labels = json!({"topology.kubernetes.io/zone": if name == "node-a" { "z1" } else { "z2" }});
            server.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}));
        }
        Self::of(server)
    }

    fn of(server: ApiServer) -> Self {
        let kube = Kube::follow(&server.client(), "node-a");
        Self { server, kube, model: Model::default(), rounds: 0 }
    }

    async fn synced() -> Self {
        let mut cluster = Self::new();
        cluster.pass(Duration::from_secs(1)).await;
        assert!(cluster.model.is_synced());
        cluster
    }

    /// Lets time pass as the agent's loop does.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while timeout_at(end, self.kube.next_change()).await.is_ok() {
            self.rounds += 1;
            for event in self.kube.take() {
                self.model.apply(event);
            }
        }
    }

    fn refusals(&self) -> Vec<String> {
        self.kube.refusals().iter().map(|refusal| format!("{}: {}", refusal.object, refusal.why)).collect()
    }

    /// The names of everything in the model.
    fn text(&self) -> String {
        let services = self.model.services().map(|service| &service.name);
        let slices = self.model.slices().map(|slice| &slice.name);
        let policies = self.model.policies().map(|policy| &policy.name);
        let mut words = vec!["services".to_owned()];
        words.extend(services.map(ToString::to_string));
        words.push("| slices".into());
        words.extend(slices.map(ToString::to_string));
        words.push("| policies".into());
        words.extend(policies.map(ToString::to_string));
        words.join(" ")
    }
}

fn service(name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"type": "LoadBalancer", "clusterIP": "172.30.0.1", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.10"}]}},
    })
}

fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after_s: None }
}
