//! A simulator of connections, pods and the kernel's maps, in which the real packet path and the real planner run: whether a
//! connection that a pod accepted ever goes elsewhere, beside other designs in the same world.
//!
//! Read in this order:
//! [`packet`] (what travels),
//! [`cluster`] (services and pods),
//! [`scenario`] (what happens to them),
//! [`client`] (who connects, and what for),
//! [`design`] (what is compared),
//! [`peers`] (what others have),
//! [`xlb`] (the path over frames),
//! [`tables`] (its maps),
//! [`lru`] (which of their entries stay),
//! [`agent`] (its planner),
//! [`run`] (a world with one of these designs),
//! [`clock`] (its time),
//! [`tally`] (what is counted),
//! [`compare`] (all designs in all scenarios, over many seeds).
//!
//! What is modelled and what is not: `docs/decisions/0029-simulator.md`.

pub mod packet;
pub mod cluster;
pub mod scenario;
pub mod client;
pub mod design;
pub mod peers;
pub mod xlb;
pub mod tables;
pub mod lru;
pub mod agent;
pub mod run;
pub mod clock;
pub mod tally;
pub mod compare;
