//! Faults: what was told stays, and what happened meanwhile is seen soon after.

use std::time::Duration;

use serde_json::json;
use xlb_tests::api::{Fault, Target};

use crate::stage::{AT_ONCE, CHECKED, Cluster, KINDS, LISTED_AGAIN, RECOVERY, service, status};

#[tokio::test(start_paused = true)]
async fn nothing_is_synced_before_every_kind_is() {
    for kind in KINDS {
        let Some(mut cluster) = Cluster::new() else { return };
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
        let Some(mut cluster) = Cluster::synced().await else { return };
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
    let Some(mut cluster) = Cluster::synced().await else { return };
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
    let Some(mut cluster) = Cluster::synced().await else { return };
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
    let Some(mut cluster) = Cluster::synced().await else { return };
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
    let Some(mut cluster) = Cluster::synced().await else { return };
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
    let Some(mut cluster) = Cluster::new() else { return };
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
