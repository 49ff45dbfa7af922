//! Facts about following a cluster. Against the test API server time is paused: a minute passes in no time.

#[path = "api_server/any_cluster_stage.rs"]
mod any_cluster_stage;
#[path = "kube_source/stage.rs"]
mod stage;
#[path = "kube_source/following.rs"]
mod following;
#[path = "kube_source/any_cluster.rs"]
mod any_cluster;
#[path = "kube_source/outages.rs"]
mod outages;
#[path = "kube_source/bad_input.rs"]
mod bad_input;
#[path = "kube_source/served.rs"]
mod served;
#[path = "kube_source/histories.rs"]
mod histories;
#[path = "kube_source/scale.rs"]
mod scale;
