//! What befalls the whole server: lost connections, restarts, black holes, restored backups, and all of it at random.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt as _, reflector as reflect};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};
use xlb_tests::api::{ApiServer, Fault, Target};

use super::stage::{assert_quiet, server_with, service, services, told};

#[tokio::test(start_paused = true)]
async fn a_dropped_watch_resumes_where_it_was() {
    let server = server_with(&["a"]);
    let mut events = watcher(services(&server), watcher::Config::default()).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);
    assert_quiet(&mut events, 1).await;
    server.drop_connections();
    server.apply(&service("b", "b"));
    assert_eq!(told(&mut events, 2).await, ["broken", "apply b"]);
    assert_eq!(server.requests_of("list", "services").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_restored_backup_leaves_a_watcher_silent_and_stale() {
    let server = server_with(&["a"]);
    let backup = server.backup();
    server.apply(&service("b", "b"));
    let mut events = watcher(services(&server), watcher::Config::default().timeout(30)).boxed();
    assert_eq!(told(&mut events, 4).await, ["init", "init a", "init b", "done"]);
    assert_quiet(&mut events, 1).await;

    server.restore(&backup);
    assert_eq!(server.version(), 2);
    assert_eq!(told(&mut events, 1).await, ["broken"]);
    server.apply(&service("c", "c"));
    assert_quiet(&mut events, 600).await;

    server.apply(&service("d", "d"));
    assert_eq!(told(&mut events, 1).await, ["apply d"]);
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_holds_everything_up_until_it_ends() {
    let server = server_with(&["a"]);
    let mut events = watcher(services(&server), watcher::Config::default().timeout(290)).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);
    assert_quiet(&mut events, 1).await;

    server.set_black_hole(true);
    server.apply(&service("b", "b"));
    assert_quiet(&mut events, 200).await;
    let services = services(&server);
    assert!(timeout(Duration::from_secs(60), services.list(&ListParams::default())).await.is_err());

    server.set_black_hole(false);
    assert_eq!(told(&mut events, 1).await, ["apply b"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_gives_up_a_dead_watch_5_seconds_after_its_timeout() {
    let server = server_with(&["a"]);
    let mut events = watcher(services(&server), watcher::Config::default().timeout(30)).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);
    assert_quiet(&mut events, 1).await;
    server.set_black_hole(true);
    assert_quiet(&mut events, 33).await;
    assert_eq!(server.open_watches("services"), 1);
    assert_quiet(&mut events, 5).await;
    assert_eq!(server.requests_of("watch", "services").len(), 2);
}

#[derive(Debug, Clone)]
enum Step {
    Apply(u8, u8),
    Delete(u8),
    Wait(u64),
    Inject(Fault, &'static str),
    Drop,
    Compact,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(Fault::Refuse),
        Just(Fault::Slow(Duration::from_secs(4))),
        Just(Fault::Status { code: 503, retry_after_s: Some(1) }),
        (0..3usize).prop_map(|after_lines| Fault::Cut { after_lines }),
        Just(Fault::NoBookmarks),
    ];
    prop_oneof![
        4 => (0..6u8, 0..3u8).prop_map(|(name, label)| Step::Apply(name, label)),
        2 => (0..6u8).prop_map(Step::Delete),
        2 => (0..100u64).prop_map(Step::Wait),
        2 => (fault, prop_oneof![Just("list"), Just("watch")]).prop_map(|(fault, verb)| Step::Inject(fault, verb)),
        1 => Just(Step::Drop),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_a_reflector_equals_the_store(
        steps in prop::collection::vec(step(), 0..60),
        is_streaming in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (seen, stored) = runtime.block_on(history(steps, is_streaming));
        prop_assert_eq!(seen, stored);
    }
}

async fn history(steps: Vec<Step>, is_streaming: bool) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let server = ApiServer::new();
    let store = reflector_of(&server, is_streaming);
    for step in steps {
        take(&server, step).await;
    }
    server.lift_faults();
    sleep(Duration::from_secs(300)).await;

    let version = |name: String, version: &str| (name, version.to_owned());
    let seen = store
        .state()
        .into_iter()
        .map(|object| version(object.name_any(), object.metadata.resource_version.as_deref().unwrap()));
    let selected = server.objects("services").into_iter().filter(|object| object["metadata"]["labels"]["app"] != "0");
    let stored = selected.map(|object| {
        let metadata = &object["metadata"];
        version(metadata["name"].as_str().unwrap().to_owned(), metadata["resourceVersion"].as_str().unwrap())
    });
    (seen.collect(), stored.collect())
}

fn reflector_of(server: &ApiServer, is_streaming: bool) -> Store<Service> {
    let config = watcher::Config::default().labels("app!=0").timeout(30).page_size(2);
    let config = if is_streaming { config.streaming_lists() } else { config };
    let (store, writer) = reflector::store();
    let events = reflect(writer, watcher(services(server), config).default_backoff());
    tokio::spawn(events.for_each(|_| futures::future::ready(())));
    store
}

async fn take(server: &ApiServer, step: Step) {
    match step {
        // With the label 0 it is outside the selection.
        Step::Apply(name, label) => {
            server.apply(&service(&format!("s{name}"), &label.to_string()));
        }
        Step::Delete(name) => {
            server.delete("services", "default", &format!("s{name}"));
        }
        Step::Wait(seconds) => sleep(Duration::from_secs(seconds)).await,
        Step::Inject(fault, verb) => server.inject(fault, Target::any().verb(verb).times(2)),
        Step::Drop => server.drop_connections(),
        Step::Compact => server.compact(),
        Step::Restart => server.restart(),
    }
}
