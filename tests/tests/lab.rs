//! Traffic through the loaded programs, between namespaces: what clients, pods and bystanders see.
//!
//! Read in this order: [`scene`] (what tests start from), [`served`] and [`connections`] (what xlb is for), [`draining`] and [`lost_pods`] (how pods go), [`takeover`] and [`handover`] (frontends that
//! change hands), then what
//! must not change ([`untouched`], [`kube_proxy`]), then the corners.

#[path = "lab/scene.rs"]
mod scene;
#[path = "lab/answers.rs"]
mod answers;
#[path = "lab/served.rs"]
mod served;
#[path = "lab/connections.rs"]
mod connections;
#[path = "lab/ageing.rs"]
mod ageing;
#[path = "lab/datagrams.rs"]
mod datagrams;
#[path = "lab/draining.rs"]
mod draining;
#[path = "lab/lost_pods.rs"]
mod lost_pods;
#[path = "lab/several_vips.rs"]
mod several_vips;
#[path = "lab/twins.rs"]
mod twins;
#[path = "lab/alone.rs"]
mod alone;
#[path = "lab/fragments.rs"]
mod fragments;
#[path = "lab/untouched.rs"]
mod untouched;
#[path = "lab/untouched_v6.rs"]
mod untouched_v6;
#[path = "lab/kube_proxy.rs"]
mod kube_proxy;
#[path = "lab/node.rs"]
mod node;
#[path = "lab/uplinks.rs"]
mod uplinks;
#[path = "lab/takeover.rs"]
mod takeover;
#[path = "lab/handover.rs"]
mod handover;
#[path = "lab/restart.rs"]
mod restart;
#[path = "lab/upgrade.rs"]
mod upgrade;
#[path = "lab/detach.rs"]
mod detach;
#[path = "lab/empty.rs"]
mod empty;
#[path = "lab/jumbo.rs"]
mod jumbo;
#[path = "lab/neighbours.rs"]
mod neighbours;
#[path = "lab/vips.rs"]
mod vips;
#[path = "lab/source_ranges.rs"]
mod source_ranges;
#[path = "lab/affinity.rs"]
mod affinity;
#[path = "lab/service_stats.rs"]
mod service_stats;
#[path = "lab/vlans.rs"]
mod vlans;
#[path = "lab/options.rs"]
mod options;
#[path = "lab/single_frames.rs"]
mod single_frames;
#[path = "lab/errors.rs"]
mod errors;
#[path = "lab/sctp.rs"]
mod sctp;
