//! Facts about the test API server, told by kube-rs: what was recorded of a real one (1.36), and the faults.
//! Time is paused wherever the network is not real, so minutes pass in no time.

#[path = "api_server/stage.rs"]
mod stage;
#[path = "api_server/any_cluster_stage.rs"]
mod any_cluster_stage;
#[path = "api_server/any_cluster.rs"]
mod any_cluster;
#[path = "api_server/paging.rs"]
mod paging;
#[path = "api_server/selecting.rs"]
mod selecting;
#[path = "api_server/watching.rs"]
mod watching;
#[path = "api_server/writing.rs"]
mod writing;
#[path = "api_server/status.rs"]
mod status;
#[path = "api_server/failing.rs"]
mod failing;
#[path = "api_server/outages.rs"]
mod outages;
#[path = "api_server/loopback.rs"]
mod loopback;
