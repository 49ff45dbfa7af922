//! Traffic of which every loss is noticed, while what carries it is exchanged: the short runs of
//! `cargo xtask bench restart`.

#[path = "load/restart.rs"]
mod restart;
