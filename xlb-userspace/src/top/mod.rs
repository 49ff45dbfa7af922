//! `xlb top`: what is going on right now, as rates between two looks at the maps.
//!
//! Read in this order: [`look`] (one look at the maps), [`rates`] (what happened between two), [`view`] (that as lines),
//! [`screen`] (the lines on a terminal, and its keys). `rates` and `view` are pure.

pub mod look;
pub mod rates;
pub mod screen;
pub mod view;
