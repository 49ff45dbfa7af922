//! The namespace lab of xlb.

pub mod lab;
pub mod servers;
pub mod api;
pub mod openmetrics;
pub mod promql;
pub mod alerts;
pub mod browser;
pub mod demo;
pub mod kernel;
pub mod scenarios;
pub mod scale;
pub mod load;
pub mod bench;
pub mod sim;
pub mod verify;
pub mod deploy;
