//! The planner as a whole: single facts in [`facts`] and [`clients`], properties of random histories in [`histories`], made
//! of [`events`].
//!
//! [`world`] makes desired states, [`maps`] is what the kernel would hold, with a check that it is consistent,
//! [`openness`] checks who may open connections in between.

mod facts;
mod clients;
mod histories;
mod events;
mod maps;
mod openness;
mod world;
