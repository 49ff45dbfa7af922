//! What Kubernetes asks for, and what this node should make of it. Pure: no files, no cluster, no kernel, no clock.
//!
//! Sources turn their objects into [`Event`]s, [`Model::apply`] collects them, and [`desired()`] answers for one node.
//! [`answer()`] is the same for some Services, and [`ties`] says which ones have to be answered together.
//! `semantics 3.1` and its like cite `semantics.md`, what Kubernetes expects of a service proxy, chapter by chapter.

pub mod objects;
pub mod state;
pub mod called;
mod names;
pub mod policy;
pub mod frontends;
pub mod sources;
pub mod endpoints;
pub mod delivery;
pub mod desired;
pub mod ties;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub use delivery::DeliveryChoice;
pub use desired::{Answer, Setting, answer, desired, pods_of_interest};
pub use ipnet::IpNet;
pub use objects::{Object, ObjectKey, ObjectName};
pub use policy::Policy;
pub use state::{Event, Model};
