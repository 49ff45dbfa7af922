//! The kernel's side: the pin directory, the maps in it, the programs and where they are attached.
//!
//! Read in this order: [`pins`] (where everything is), [`object`] (the maps made or found), [`wanted`] (which programs), [`load`] (loading them), [`programs`] (own ones, or those of before), [`attach`] (hooks), [`cgroup`] (those of sockets), `link`
//! (how a program takes the place of another), [`live`] (the maps as
//! values), [`family`] (those that each IP version has for itself), [`frontends`] (how packets find those), [`words`] (arrays that are written in place), [`stats`] (what is counted of services), [`ways`] (uplinks, and where replies go when they change), [`keys`] (their keys), [`batch`] (many entries at once), [`carry`] (what another version left), [`flows`] (the flow maps, read in parts), [`fill`] (how full they are), [`spread`] (with which backends flows are),
//! [`watching`] (what copies packets in front of XDP, while somebody wants to see them), [`tables`] (the maps as the packet path sees them).

mod allotment;
pub mod attach;
pub mod batch;
pub mod carry;
pub mod cgroup;
pub mod family;
pub mod fill;
pub mod flows;
pub mod frontends;
pub mod kernel;
pub mod keys;
mod link;
pub mod live;
pub mod load;
pub mod object;
pub mod pins;
pub mod programs;
pub(crate) mod raw;
pub mod spread;
pub mod stats;
pub mod tables;
pub mod wanted;
pub mod watching;
pub mod ways;
pub mod words;
