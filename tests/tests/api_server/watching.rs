//! Watches: where they begin, what they say in between, and how they end.

use futures::StreamExt as _;
use hyper::StatusCode;
use kube::runtime::watcher::{self, watcher};
use tokio::time::Instant;

use super::stage::{assert_quiet, get, server_with, service, services, told, watched};

#[tokio::test(start_paused = true)]
async fn a_watch_begins_with_everything_or_after_its_version() {
    let server = server_with(&["a", "b"]);
    server.apply(&service("a", "changed"));
    server.delete("services", "default", "b");
    for (query, expected) in [
        ("", "ADDED a 4"),
        ("resourceVersion=0&", "ADDED a 4"),
        ("resourceVersion=1&", "ADDED a 2, ADDED b 3, MODIFIED a 4, DELETED b 5"),
        ("resourceVersion=3&", "MODIFIED a 4, DELETED b 5"),
        ("resourceVersion=5&", ""),
    ] {
        let told = watched(&server.client(), &format!("{query}timeoutSeconds=1")).await;
        assert_eq!(told.join(", "), expected, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_compacted_version_is_one_error_line_in_a_good_answer() {
    let server = server_with(&["a", "b"]);
    server.compact();
    let begin = Instant::now();
    assert_eq!(watched(&server.client(), "resourceVersion=2&timeoutSeconds=30").await, ["ERROR 410 Expired"]);
    assert_eq!(begin.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_meets_410_lists_again_and_loses_what_vanished() {
    let server = server_with(&["a", "b"]);
    let mut events = watcher(services(&server), watcher::Config::default().timeout(10)).boxed();
    assert_eq!(told(&mut events, 4).await, ["init", "init a", "init b", "done"]);
    assert_quiet(&mut events, 1).await;

    server.set_black_hole(true);
    server.delete("services", "default", "a");
    server.restart();
    server.set_black_hole(false);

    assert_eq!(told(&mut events, 5).await, ["broken", "error 410", "init", "init b", "done"]);
}

#[tokio::test(start_paused = true)]
async fn an_open_watch_survives_compaction() {
    let server = server_with(&["a"]);
    let mut events = watcher(services(&server), watcher::Config::default()).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);
    assert_quiet(&mut events, 1).await;
    server.apply(&service("b", "b"));
    server.compact();
    assert_eq!(told(&mut events, 1).await, ["apply b"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_from_the_future_is_silence_until_the_timeout() {
    let server = server_with(&["a"]);
    let begin = Instant::now();
    let query = "resourceVersion=99&allowWatchBookmarks=true&timeoutSeconds=90";
    assert_eq!(watched(&server.client(), query).await, Vec::<String>::new());
    assert_eq!(begin.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_shortly_before_the_end() {
    let server = server_with(&["a"]);
    let begin = Instant::now();
    let query = "resourceVersion=2&allowWatchBookmarks=true&timeoutSeconds=150";
    assert_eq!(watched(&server.client(), query).await, ["BOOKMARK 2", "BOOKMARK 2", "BOOKMARK 2"]);
    assert_eq!(begin.elapsed().as_secs(), 150);
    assert_eq!(watched(&server.client(), "resourceVersion=2&timeoutSeconds=150").await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_moves_a_quiet_watcher_past_a_compaction() {
    let server = server_with(&["a"]);
    let mut events = watcher(services(&server), watcher::Config::default().labels("app=a").timeout(30)).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);
    assert_quiet(&mut events, 1).await;

    server.apply(&service("other", "other"));
    assert_quiet(&mut events, 28).await;
    server.compact();
    assert_quiet(&mut events, 30).await;

    assert_eq!(server.requests_of("list", "services").len(), 1);
    assert_eq!(server.requests_of("watch", "services").last().unwrap().parameter("resourceVersion"), "3");
}

#[tokio::test(start_paused = true)]
async fn a_streamed_list_ends_with_its_bookmark() {
    let server = server_with(&["a", "b"]);
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let told = watched(&server.client(), query).await;
    assert_eq!(told, ["ADDED a 2", "ADDED b 3", "BOOKMARK 3 ends initial events"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_with_streaming_lists_never_lists() {
    let server = server_with(&["a", "b"]);
    let mut events = watcher(services(&server), watcher::Config::default().streaming_lists()).boxed();
    assert_eq!(told(&mut events, 4).await, ["init", "init a", "init b", "done"]);
    server.delete("services", "default", "a");
    assert_eq!(told(&mut events, 1).await, ["delete a"]);
    assert!(server.requests_of("list", "services").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_without_streaming_lists_refuses_them_with_422() {
    let server = server_with(&["a"]);
    server.set_streaming_lists(false);
    let mut events = watcher(services(&server), watcher::Config::default().streaming_lists()).boxed();
    assert_eq!(told(&mut events, 1).await, ["no watch: 422"]);
}

#[tokio::test(start_paused = true)]
async fn initial_events_need_a_version_match() {
    let path = "/api/v1/services?watch=true&sendInitialEvents=true&allowWatchBookmarks=true";
    let (code, _) = get(&server_with(&["a"]).client(), path).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_makes_no_sense_is_refused_and_not_left_open() {
    let server = server_with(&["a"]);
    for query in ["fieldSelector=spec.what%3Dx", "labelSelector=a%20in%20b", "resourceVersion=x", "timeoutSeconds=x"] {
        let (code, _) = get(&server.client(), &format!("/api/v1/services?watch=true&{query}")).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{query}");
    }
    assert_eq!(server.open_watches("services"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_the_server_lacks_is_404() {
    for path in ["/api/v1/pods", "/apis/discovery.k8s.io/v1beta1/endpointslices", "/api/v1/services/a/scale"] {
        let (code, _) = get(&server_with(&[]).client(), path).await;
        assert_eq!(code, StatusCode::NOT_FOUND, "{path}");
    }
}
