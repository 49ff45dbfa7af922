//! The namespace lab of xlb.

pub mod lab;
pub mod demo;
pub mod kernel;
pub mod bench;
