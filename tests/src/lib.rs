//! The namespace lab of xlb.

pub mod lab;
