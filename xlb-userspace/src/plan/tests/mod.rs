//! The planner as a whole: single facts in [`facts`], [`clients`], [`sole`] and [`inside`], properties of random histories in [`histories`], made
//! of [`events`].
//!
//! [`world`] makes desired states, [`maps`] is what the kernel would hold, with a check that it is consistent
//! ([`inside_maps`] for clients inside),
//! [`openness`] checks who may open connections in between.

mod facts;
mod takeover;
mod sole;
mod clients;
mod inside;
mod histories;
mod parts;
mod events;
mod maps;
mod inside_maps;
mod openness;
mod world;
