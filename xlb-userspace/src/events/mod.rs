//! What users are told by Kubernetes events: what xlb refuses of a Service, on that Service.
//!
//! Read in this order: [`kind`] (what a refusal is about), [`notice`] (what to tell), [`announce`] (what of it is due),
//! [`post`] (telling the API server). All but the last are pure.

pub mod kind;
pub mod notice;
pub mod announce;
pub mod post;

pub use announce::Announcer;
pub use kind::RefusalKind;
pub use notice::{Notice, Severity, Subject};
pub use post::Poster;
