//! The page that the agent serves for people: what it serves, how full it is, what it drops, and what is wrong.
//!
//! Read in this order: [`shown`] (what of the maps is shown, taken after each change), [`history`] (the last hour),
//! [`happened`] (what came up and was settled), [`advice`] (what to do about drops), [`state`] (all of them as one JSON
//! document), [`ask`] (which part of it somebody wants), [`html`] (the page that draws it), [`pages`] (who answers).
//!
//! It only reads. Names of objects come from whoever may create a Service: the page writes them as text, never as HTML.

pub mod shown;
pub mod history;
pub mod happened;
pub mod advice;
pub mod state;
pub mod ask;
pub mod html;
pub mod pages;

pub use pages::{Pages, Pulse};
pub use shown::Shown;
