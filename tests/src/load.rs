//! Traffic of which nothing goes amiss unnoticed: every datagram and every message has a number, every connection a secret
//! that only the pod which accepted it was told.
//!
//! ```text
//! clients: [`datagrams`], [`connections`], [`newcomers`]  -- VIP:80 -->  [`pod`]: one server a pod, UDP and TCP
//! router:  [`flood`]                                               --------->
//! ```
//!
//! Pods and the clients of [`connections`] are processes ([`worker`]), everything else threads of this one, inside the lab's
//! namespaces; each has an event loop of its own.

pub mod wire;
pub mod pod;
pub mod datagrams;
pub mod connections;
pub mod talk;
pub mod newcomers;
pub mod flood;
pub mod kernel;
pub mod stage;
mod worker;
mod event_loop;
