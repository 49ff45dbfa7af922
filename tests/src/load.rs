//! Traffic of which nothing goes amiss unnoticed: every datagram and every message has a number, every connection a secret
//! that only the pod which accepted it was told.
//!
//! ```text
//! clients: [`datagrams`], [`connections`]  -- VIP:80 -->  [`pod`]: one server a pod, UDP and TCP
//! ```
//!
//! Servers and clients are threads of this process inside the lab's namespaces, each with an event loop of its own. They
//! share what only a test can know: which pods are closing their connections on purpose.

pub mod wire;
pub mod pod;
pub mod datagrams;
pub mod connections;
pub mod talk;
pub mod kernel;
pub mod stage;
mod event_loop;
