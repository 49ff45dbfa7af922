//! Flows that are over leave the flow maps, so that no live one is evicted for them (rule 10 of flow admission).
//!
//! Read in this order: [`rules`] (which flows are over), [`timeouts`] (after what time), [`pressure`] (how full a map is, and
//! what follows), [`sweep`] (one walk through one map). `agent::sweeper` is the thread that does it.

pub mod rules;
pub mod timeouts;
pub mod pressure;
pub mod sweep;

pub use pressure::Pressure;
pub use rules::Why;
pub use timeouts::Timeouts;
