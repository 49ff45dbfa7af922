//! A large cluster and its churn. The figures are the bench's: `cargo xtask bench agent`.

use std::time::Duration;

use xlb_tests::api::ApiServer;
use xlb_tests::scale::{Scale, World};
use xlb_userspace::model::Model;

use crate::served::served;
use crate::stage::Cluster;

const CHANGES_PER_S: u64 = 500;
const CHURN_S: u64 = 3;

#[tokio::test(start_paused = true)]
async fn a_large_cluster_is_read_whole() {
    let Some(server) = ApiServer::for_faults() else { return };
    let world = World::new(Scale::TARGET);
    server.apply_all(world.objects());
    let mut cluster = Cluster::of(server);
    cluster.pass(Duration::from_secs(5)).await;
    assert!(cluster.model == model(&world), "something was lost, or was made up");
    let desired = served(&cluster.model, None);
    assert_eq!(desired.services.len(), Scale::TARGET.services as usize);
    let backends = desired.services.values().map(|service| service.backends.len()).sum::<usize>();
    assert_eq!((backends, desired.refusals.len()), (Scale::TARGET.local as usize, 0));
}

#[tokio::test(start_paused = true)]
async fn after_500_changes_per_second_all_is_as_after_a_fresh_start() {
    for has_streaming_lists in [true, false] {
        let Some(server) = ApiServer::for_faults() else { return };
        server.set_streaming_lists(has_streaming_lists);
        let mut world = World::new(Scale::TENTH);
        server.apply_all(world.objects());
        let mut cluster = Cluster::of(server.clone());
        // The churn does not wait until everything was listed.
        for number in 0..CHANGES_PER_S * CHURN_S {
            world.change().send(&server);
            if number % 10 == 0 {
                cluster.pass(Duration::from_millis(10 * 1000 / CHANGES_PER_S)).await;
            }
        }
        cluster.pass(Duration::from_secs(5)).await;
        let mut fresh = Cluster::of(server);
        fresh.pass(Duration::from_secs(5)).await;
        assert!(cluster.model == fresh.model, "another model");
        assert!(cluster.model == model(&world), "something was lost, or was made up");
        assert!(served(&cluster.model, None) == served(&fresh.model, None), "another answer");
    }
}

fn model(world: &World) -> Model {
    let mut model = Model::default();
    for event in world.events() {
        model.apply(event);
    }
    model
}
