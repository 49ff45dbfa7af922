//! What is read and followed while all is well.

use std::time::Duration;

use serde_json::json;

use crate::stage::{AT_ONCE, Cluster, KINDS, service};

#[tokio::test(start_paused = true)]
async fn a_cluster_is_read_and_a_change_is_seen_at_once() {
    for has_streaming_lists in [true, false] {
        let Some(mut cluster) = Cluster::new() else { return };
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
    let Some(mut cluster) = Cluster::new() else { return };
    cluster.server.set_streaming_lists(false);
    for number in 0..1200 {
        cluster.server.apply(&service(&format!("web-{number}"), json!({})));
    }
    cluster.pass(Duration::from_secs(1)).await;
    assert_eq!(cluster.model.services().count(), 1201);
    assert_eq!(cluster.server.requests_of("list", "services").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_gives_an_object_to_another_proxy_takes_it_away_and_back() {
    let Some(mut cluster) = Cluster::synced().await else { return };
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
    let Some(mut cluster) = Cluster::synced().await else { return };
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
    let Some(mut cluster) = Cluster::synced().await else { return };
    for number in 0..500 {
        cluster.server.apply(&service(&format!("web-{number}"), json!({})));
    }
    let rounds_before = cluster.rounds;
    cluster.pass(AT_ONCE).await;
    assert_eq!(cluster.model.services().count(), 501);
    let rounds = cluster.rounds - rounds_before;
    assert!(rounds < 100, "{rounds} rounds for 500 changes");
}
