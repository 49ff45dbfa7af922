//! Packets as they come, each with what the packet path says of it: for `xlb watch`, `xlb capture` and `xlb explain --next`.
//!
//! Read in this order: [`frame`] (a packet's ends), [`judge`] (the path, over the live maps, on a copy of the packet), [`event`]
//! (its outcome, for people and programs), [`filter`] (which ones are wanted), [`pcapng`] and [`file`](mod@file) (packets for
//! Wireshark), [`ear`] (where packets are heard), [`follow`] (the only part that hears them).
//!
//! The programs that serve have no part in it. A packet socket on each link copies what arrives, before tc sees it; at an uplink
//! with XDP a program in front of the serving one does ([`crate::maps::watching`]). The copy is judged by the code that the programs run,
//! over the same maps, a moment later. Nobody who does not watch pays for this (docs/decisions/0050).

pub mod frame;
pub mod judge;
pub mod event;
pub mod filter;
pub mod pcapng;
pub mod file;
pub mod ear;
pub mod follow;
