//! The planner as a whole: single facts in [`facts`], properties of random histories in [`histories`].
//!
//! [`world`] makes desired states, [`maps`] is what the kernel would hold, with a check that it is consistent.

mod facts;
mod histories;
mod maps;
mod world;
