//! Measurements, each with the baselines it is compared with in the same run.

pub mod path;
pub mod agent;
mod running;
pub mod memory;
pub mod restart;
pub mod connections;
pub mod sweep;
pub mod ways;
pub mod lab;
pub mod pps;
pub mod tables;
pub mod report;
