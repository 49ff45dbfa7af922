//! Lists: pages, versions and tokens.

use std::time::Duration;

use futures::StreamExt as _;
use hyper::{Request, StatusCode};
use kube::api::ListParams;
use kube::client::Body;
use kube::runtime::watcher::{self, watcher};
use tokio::time::{Instant, sleep};

use super::stage::{code, get, names, server_with, service, services, told};

#[tokio::test(start_paused = true)]
async fn every_page_shows_the_version_of_the_first() {
    let server = server_with(&["a", "b", "c", "d", "e"]);
    let services = services(&server);

    let first = services.list(&ListParams::default().limit(2)).await.unwrap();
    server.delete("services", "default", "c");
    server.apply(&service("f", "f"));
    let token = first.metadata.continue_.clone().unwrap();
    let second = services.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    let token = second.metadata.continue_.clone().unwrap();
    let third = services.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();

    assert_eq!([names(&first.items), names(&second.items), names(&third.items)].concat(), ["a", "b", "c", "d", "e"]);
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    assert_eq!(first.metadata.resource_version, third.metadata.resource_version);
    assert_eq!(third.metadata.continue_, None);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_pages_and_then_watches_from_the_version_of_the_list() {
    let server = server_with(&["a", "b", "c", "d", "e"]);
    let mut events = watcher(services(&server), watcher::Config::default().page_size(2).timeout(30)).boxed();

    assert_eq!(told(&mut events, 7).await, ["init", "init a", "init b", "init c", "init d", "init e", "done"]);
    server.apply(&service("f", "f"));
    assert_eq!(told(&mut events, 1).await, ["apply f"]);

    let lists = server.requests_of("list", "services");
    assert_eq!(lists.len(), 3);
    assert!(lists.iter().all(|list| list.parameter("limit") == "2"));
    assert!(lists[1..].iter().all(|list| !list.parameter("continue").is_empty()));
    let watches = server.requests_of("watch", "services");
    assert_eq!(watches.len(), 1);
    assert_eq!(watches[0].parameter("resourceVersion"), "6");
    assert_eq!(watches[0].parameter("timeoutSeconds"), "30");
    assert_eq!(server.open_watches("services"), 1);
    drop(events);
    tokio::task::yield_now().await;
    assert_eq!(server.open_watches("services"), 0);
}

#[tokio::test(start_paused = true)]
async fn version_0_ignores_the_limit() {
    let server = server_with(&["a", "b", "c"]);
    let (_, list) = get(&server.client(), "/api/v1/services?limit=1&resourceVersion=0").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    assert!(list["metadata"].get("continue").is_none());
}

#[tokio::test(start_paused = true)]
async fn items_of_a_list_do_not_name_their_kind() {
    let (_, list) = get(&server_with(&["a"]).client(), "/api/v1/namespaces/default/services").await;
    assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str()), (Some("ServiceList"), Some("v1")));
    assert!(list["items"][0].get("kind").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_compacted_token_is_410_with_a_token_that_goes_on_from_now() {
    let server = server_with(&["a", "b", "c"]);
    let client = server.client();
    let (_, first) = get(&client, "/api/v1/services?limit=1").await;
    server.apply(&service("d", "d"));
    server.compact();

    let token = first["metadata"]["continue"].as_str().unwrap();
    let (code, gone) = get(&client, &format!("/api/v1/services?limit=1&continue={token}")).await;
    assert_eq!((code, gone["reason"].as_str()), (StatusCode::GONE, Some("Expired")));

    let token = gone["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = get(&client, &format!("/api/v1/services?continue={token}")).await;
    let rest: Vec<_> = rest["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(rest, ["b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_garbage_token_is_400() {
    let list = services(&server_with(&["a"])).list(&ListParams::default().continue_token("garbage")).await;
    assert_eq!(code(&list.unwrap_err()), "400");
}

#[tokio::test(start_paused = true)]
async fn an_exact_version_shows_the_past_until_it_is_compacted() {
    let server = server_with(&["a", "b"]);
    let then = server.version();
    server.apply(&service("a", "changed"));
    server.delete("services", "default", "b");
    server.apply(&service("c", "c"));
    let exact = ListParams::default().at(&then.to_string()).matching(kube::api::VersionMatch::Exact);

    let past = services(&server).list(&exact).await.unwrap();
    assert_eq!(names(&past.items), ["a", "b"]);
    assert_eq!(past.items[0].metadata.labels.as_ref().unwrap()["app"], "a");

    server.compact();
    assert_eq!(code(&services(&server).list(&exact).await.unwrap_err()), "410");
}

#[tokio::test(start_paused = true)]
async fn a_version_from_the_future_is_504_after_3_seconds() {
    let server = server_with(&["a"]);
    let begin = Instant::now();
    let path = "/api/v1/services?resourceVersion=99&resourceVersionMatch=NotOlderThan";
    let response = server.client().send(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(begin.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_arrives_in_time_is_answered() {
    let server = server_with(&["a"]);
    let writer = server.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(2)).await;
        writer.apply(&service("b", "b"));
    });
    let (code, list) = get(&server.client(), "/api/v1/services?resourceVersion=3").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}
