//! The packet path of xlb, and the tables it reads: one piece of code for the kernel programs, the agent's `explain`,
//! and every test.
//!
//! Read in this order:
//! [`path`] (the composition), [`hook`] (where it runs, and in which programs), [`reason`] (each way out of it),
//! [`select`] (which backend a packet goes to),
//! [`sources`] (who may connect),
//! [`handover`] (which connections are the host's),
//! [`affinity`] (whose clients return to their backend),
//! [`opening`] (what its first packet leaves behind),
//! [`hot`] (what is remembered when handshakes are many),
//! [`admit`] (when a flow is remembered),
//! [`ageing`] (when it is over),
//! [`sole`] (what needs no entry),
//! [`reply`] (what a pod answers),
//! [`way`] (by which uplink and next hop it leaves, when they change),
//! [`rewrite`] (what changes in the packet),
//! [`refusal`] (what a client is told),
//! [`unowned`] (what becomes of a VIP's other ports),
//! [`echo`] (who answers a ping),
//! [`fragments`] (what follows a first fragment),
//! [`errors`] (what routers and hosts say about a flow),
//! [`sctp`] (what is its own),
//! [`twin`] (two flows that a pod could not tell apart),
//! [`inside`] (clients on this node, whose packets nobody rewrites),
//! [`links`] (clients on this node whose sockets nobody sees),
//! [`stats`] (what each service is counted for),
//! [`watched`] (what somebody who watches sees),
//! then the values they work on: [`abi`], [`slot`], [`hash`], [`parse`], [`packet`], [`tables`].
//!
//! Invariant: nothing here is unsafe, allocates, or can panic in the kernel build; every way out has a [`Reason`].
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

pub mod path;
pub mod hook;
pub mod shaped;
pub mod reason;
pub mod select;
pub mod sources;
pub mod handover;
pub mod affinity;
pub mod opening;
pub mod hot;
pub mod admit;
pub mod ageing;
pub mod sole;
pub mod reply;
pub mod way;
pub mod rewrite;
pub mod refusal;
pub mod unowned;
pub mod echo;
pub mod errors;
pub mod fragments;
pub mod inside;
pub mod links;
pub mod stats;
pub mod watched;
pub mod sctp;
pub mod twin;
pub mod budget;
pub mod parse;
pub mod family;
pub mod packet;
pub mod shape;
pub mod shifted;
pub mod checksum;
pub mod crc32c;
pub mod tables;
pub mod abi;
pub mod slot;
pub mod hash;
pub mod directory;
#[cfg(feature = "std")]
pub mod memory;

pub use family::{Family, V4, V6};
pub use reason::{Disposition, Reason};
