//! Whether this agent, and each Service on this node, is fit to get traffic: what load balancers and the kubelet ask.
//!
//! Read in this order: [`judge`] (the agent), [`service`] (which Service wants which port, and what it counts), [`answer`]
//! (both as HTTP), [`ports`] (the open ports follow the wanted ones). All but the last are pure.

pub mod judge;
pub mod service;
pub mod answer;
pub mod ports;

pub use judge::{HealthState, NodeState, Verdict, judge};
pub use ports::{HealthPorts, PortChoice};
pub use service::{HealthPort, wanted};
