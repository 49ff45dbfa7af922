//! What operators watch: counters of packets, the agent's rounds, how full the maps are.
//!
//! Read in this order: [`facts`] (the numbers), [`model`] (those that say what Kubernetes asks for), [`text`] (all of them as
//! OpenMetrics), [`services`] (those of each service), [`scrape`] (reading the maps when somebody asks). Names follow kube-proxy's meanings (semantics chapter
//! 16); `docs/OPERATING.md` maps one to the other.

pub mod facts;
pub mod model;
pub mod text;
pub mod services;
pub mod scrape;

pub use facts::{Facts, MapFacts};
pub use scrape::Scraper;
