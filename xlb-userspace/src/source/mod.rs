//! Where events come from: files of Kubernetes manifests. Kubernetes' own types end in [`translate`].

pub mod manifests;
pub mod watch;
pub mod parse;
pub mod documents;
pub mod objects;
pub mod translate;
pub mod address;

pub use manifests::{Manifests, ReadOutcome};
pub use parse::ManifestError;
