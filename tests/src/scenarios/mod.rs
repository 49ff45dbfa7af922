//! Scenario files: what a service proxy should do, in Kubernetes objects and packets, run through the agent's logic and
//! the packet path in ordinary memory.
//!
//! ```text
//! case -> Kubernetes objects -> source::translate -> Model -> desired -> plan -> Observed -> MemoryTables -> path -> outcome
//! ```
//!
//! Read in this order:
//! [`case`] (the file),
//! [`objects`] (its Services and slices as Kubernetes has them),
//! [`node`] (an agent with its maps),
//! [`frames`] (its packets),
//! [`missing`] (what xlb cannot do yet),
//! [`run`] (a case from start to verdict),
//! [`hosts`] (flows that are kube-proxy's),
//! [`inside`] (clients on the node),
//! [`expected`] (what its outcomes should be),
//! [`edge`] (a client's packets one by one),
//! [`fragments`] (parts of them),
//! [`icmp`] (errors among them),
//! [`cleanup`] (flows whose endpoint went),
//! [`health`] (who is asked whether it is well),
//! [`report`] (the lines that people read).
//!
//! Invariant: every case has a line, and what needs something that xlb cannot do is never counted as passed.

pub mod case;
pub mod objects;
pub mod node;
pub mod frames;
pub mod in_kernel;
pub mod missing;
pub mod run;
pub mod hosts;
pub mod inside;
pub mod expected;
pub mod edge;
pub mod icmp;
pub mod fragments;
pub mod cleanup;
pub mod health;
pub mod report;
