//! The xlb agent as a library: events become a model, the model a plan, the plan map operations.
//!
//! ```text
//! manifests, or API server -> source::translate -> Event -> Model::apply -> desired(&Model, &NodeView) -> plan(&Desired, &Observed) -> [Op] -> LiveMaps::apply
//! ```
//!
//! Read in this order: [`source`] (where events come from), [`model`] (what Kubernetes asks for), [`plan`] (what the maps
//! should hold, and the steps to get there), [`node`] (what this node looks like), [`maps`] (the kernel's side),
//! [`selftest`] (whether programs may serve), [`ageing`] (which flows are over),
//! [`doctor`] (what is wrong with the node), [`health`], [`metrics`], [`page`] and [`events`] (what others are told, each a function
//! of values), [`http`] (the only sockets of these), [`agent`] (all of them in a loop), [`top`] (what is going on, as rates),
//! [`watch`] (packets as they come), [`cli`] (the commands).
//!
//! Invariant: `model` and `plan` are pure. Files, netlink, the kernel and the clock are in `source`, `node`, `maps` and
//! `agent`.

pub mod source;
pub mod model;
pub mod plan;
pub mod node;
pub mod maps;
pub mod selftest;
pub mod ageing;
pub mod doctor;
pub mod health;
pub mod metrics;
pub mod events;
pub mod page;
pub mod http;
pub mod agent;
pub mod top;
pub mod watch;
pub mod cli;
