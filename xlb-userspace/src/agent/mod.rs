//! The agent: keeps the maps equal to what the manifests ask for, for as long as it runs.
//!
//! Read in this order:
//! [`run`] (start, the loop, the end),
//! [`settings`] and [`reload`] (what it was told, and what it is told meanwhile),
//! `memory` (whether its maps can fit),
//! `loading` (the programs tested and loaded, or refused),
//! [`sync`] (one round),
//! [`look`] (what the node looks like),
//! [`kept`] (what was decided before),
//! [`inside`] (what clients inside shall get),
//! `links` (where those are served whose sockets nobody sees),
//! [`uplinks`] (front doors),
//! [`ways`] (where replies go when uplinks and next hops change),
//! [`forwarding`] (what the host's stack needs for delivery mode stack),
//! [`linger`] (pods that left their service but live on),
//! [`handover`] (connections that kube-proxy began),
//! [`sweeper`] (flows that are over),
//! [`strays`] (clients of pods that are gone),
//! [`pod_ips`] (who addresses pods themselves),
//! [`tell`], [`report`] and [`history`] (what the agent tells the log and the command line),
//! [`outside`] (what it tells load balancers, monitoring and Kubernetes).

pub mod options;
pub mod settings;
pub mod run;
mod memory;
pub mod reload;
mod loading;
pub mod sync;
pub mod look;
pub mod kept;
pub mod inside;
mod links;
pub mod uplinks;
pub mod ways;
pub mod forwarding;
pub mod linger;
pub mod handover;
pub mod sweeper;
pub mod strays;
pub mod pod_ips;
pub mod tell;
pub mod report;
pub mod history;
pub mod outside;

pub use inside::ClientsInside;
pub use options::{Options, XdpChoice};
pub use run::run;
