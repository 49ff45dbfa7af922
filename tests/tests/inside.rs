//! Clients inside, with real sockets: processes of the node and of its pods reach VIPs through the programs of a cgroup.
//! The maps are filled by hand.
//!
//! Read in this order: [`stage`] (what tests start from), [`hooks`] (programs and maps), [`served`], [`datagrams`],
//! [`local`], [`refused`], [`sources`].

#[path = "inside/stage.rs"]
mod stage;
#[path = "inside/hooks.rs"]
mod hooks;
#[path = "inside/served.rs"]
mod served;
#[path = "inside/datagrams.rs"]
mod datagrams;
#[path = "inside/local.rs"]
mod local;
#[path = "inside/refused.rs"]
mod refused;
#[path = "inside/sources.rs"]
mod sources;
