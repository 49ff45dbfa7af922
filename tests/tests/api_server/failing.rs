//! Faults of single requests.

use std::time::Duration;

use futures::StreamExt as _;
use hyper::{Request, StatusCode};
use kube::api::ListParams;
use kube::client::Body;
use kube::runtime::watcher::{self, watcher};
use tokio::time::{Instant, timeout};
use xlb_tests::api::{Fault, Target};

use super::stage::{code, server_with, service, services, told, watched};

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_an_error_as_often_as_asked() {
    let server = server_with(&["a"]);
    server.inject(Fault::Refuse, Target::any().verb("list").resource("services").times(2));
    let mut events = watcher(services(&server), watcher::Config::default()).boxed();
    let expected = ["init", "no list: no answer", "init", "no list: no answer", "init", "init a", "done"];
    assert_eq!(told(&mut events, 7).await, expected);
    assert_eq!(server.requests_of("list", "services").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fault_meets_its_target_only() {
    let server = server_with(&["a"]);
    server.inject(Fault::Refuse, Target::any().resource("endpointslices"));
    assert!(services(&server).list(&ListParams::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_request_is_never_answered() {
    let server = server_with(&["a"]);
    server.inject(Fault::Hang, Target::any().times(1));
    let services = services(&server);
    assert!(timeout(Duration::from_secs(3600), services.list(&ListParams::default())).await.is_err());
    assert!(services.list(&ListParams::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_comes_late() {
    let server = server_with(&["a"]);
    server.inject(Fault::Slow(Duration::from_secs(20)), Target::any());
    let begin = Instant::now();
    services(&server).list(&ListParams::default()).await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 20);
    server.lift_faults();
    services(&server).list(&ListParams::default()).await.unwrap();
    assert_eq!(begin.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_server_says_when_to_come_back() {
    let server = server_with(&["a"]);
    for code in [429, 503, 504] {
        server.lift_faults();
        server.inject(Fault::Status { code, retry_after_s: Some(7) }, Target::any());
        let request = Request::get("/api/v1/services").body(Body::empty()).unwrap();
        let response = server.client().send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::from_u16(code).unwrap());
        assert_eq!(response.headers()["retry-after"], "7");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_cut_in_mid_line_resumes_without_loss() {
    let server = server_with(&["a"]);
    server.inject(Fault::Cut { after_lines: 1 }, Target::any().verb("watch").times(1));
    let mut events = watcher(services(&server), watcher::Config::default()).boxed();
    assert_eq!(told(&mut events, 3).await, ["init", "init a", "done"]);
    server.apply(&service("b", "b"));
    server.apply(&service("c", "c"));
    assert_eq!(told(&mut events, 3).await, ["apply b", "broken", "apply c"]);
    assert_eq!(server.requests_of("list", "services").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_cut_in_the_middle_is_an_error() {
    let server = server_with(&["a"]);
    server.inject(Fault::Cut { after_lines: 0 }, Target::any().verb("list").times(1));
    assert_eq!(code(&services(&server).list(&ListParams::default()).await.unwrap_err()), "no answer");
}

#[tokio::test(start_paused = true)]
async fn a_watch_may_lack_bookmarks() {
    let server = server_with(&["a"]);
    server.inject(Fault::NoBookmarks, Target::any().verb("watch"));
    let query = "resourceVersion=2&allowWatchBookmarks=true&timeoutSeconds=150";
    assert_eq!(watched(&server.client(), query).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_rbac_lacks_is_403_and_named() {
    let server = server_with(&["a"]);
    server.forbid(Target::any().verb("watch").resource("services"));
    let mut events = watcher(services(&server), watcher::Config::default()).boxed();
    assert_eq!(told(&mut events, 4).await, ["init", "init a", "done", "no watch: 403"]);

    server.forbid(Target::any().verb("list").resource("services"));
    let error = services(&server).list(&ListParams::default()).await.unwrap_err().to_string();
    assert!(error.contains(r#"cannot list resource "services" in API group "" at the cluster scope"#), "{error}");

    server.allow_all();
    server.apply(&service("b", "b"));
    assert_eq!(told(&mut events, 1).await, ["apply b"]);
}
