//! The kernel programs without a network: the same tables and packets through the host's path and, by
//! BPF_PROG_TEST_RUN, through the loaded object.
//!
//! Read in this order: [`outcome`] (what a run is compared by), [`host`] and [`dataplane`] (the two runners), [`sample`]
//! (the tables), [`flows`], [`frame`] and [`describe`] (packets as text), [`rows`] (the row files),
//! [`pieces`] and [`datagrams`] (fragments), [`generate`] and [`lies`] (random packets), [`properties`], [`sound`] and [`rewritten`]
//! (what holds for all of them), [`bent`] (rows with wrong bytes), [`flow_map`] (a map by itself).

pub mod outcome;
pub mod host;
pub mod dataplane;
pub mod kernel_maps;
pub mod flow_map;
pub mod fragment_maps;
mod frontend_maps;
pub mod sample;
mod surroundings;
pub mod sctp;
mod addresses;
pub mod flows;
pub mod frame;
pub mod headers;
pub mod icmp;
pub mod describe;
pub mod refusal;
pub mod twins;
pub mod rows;
pub mod pieces;
pub mod datagrams;
pub mod lies;
pub mod generate;
pub mod random;
pub mod rewritten;
pub mod sound;
pub mod properties;
pub mod bent;
