//! `cargo xtask verify`: what the kernel says of each program when it loads it, beside what it said before.

pub mod budgets;
pub mod programs;
