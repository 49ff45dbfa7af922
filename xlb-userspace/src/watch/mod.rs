//! Packets as they come, each with what the packet path says of it: for `xlb watch`, `xlb capture` and `xlb explain --next`.
//!
//! Read in this order: [`frame`] (a packet's ends), [`judge`] (the path, over the live maps, on a copy of the packet), [`event`]
//! (its outcome, for people and programs), [`filter`] (which ones are wanted), [`pcapng`] and [`file`](mod@file) (packets for
//! Wireshark), [`follow`] (the only part that hears packets).
//!
//! The programs that serve have no part in it: others copy what arrives before those see it ([`crate::maps::watching`]), and the copy is
//! judged by the code that they run, over the same maps, a moment later. Nobody who does not watch pays for this
//! (docs/decisions/0050).

pub mod frame;
pub mod judge;
pub mod event;
pub mod filter;
pub mod pcapng;
pub mod file;
pub mod follow;
