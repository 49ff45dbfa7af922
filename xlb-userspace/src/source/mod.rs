//! Where events come from: files of Kubernetes manifests, or the API server of a cluster. Kubernetes' own types end in
//! [`translate`].

use std::path::PathBuf;

use anyhow::Result;

pub mod manifests;
pub mod watch;
pub mod parse;
pub mod documents;
pub mod objects;
pub mod kube;
pub mod translate;
mod clients;
pub mod address;

pub use self::kube::Kube;
pub use manifests::{Manifests, ReadOutcome};
pub use parse::ManifestError;

use crate::health::NodeState;
use crate::model::{Event, Model};
use crate::plan::desired::Refusal;

/// Which source to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChoice {
    /// A manifest file, or a directory of them.
    Manifests(PathBuf),
    /// The cluster of a kubeconfig, or the one that this process is in.
    Kube(Option<PathBuf>),
}

/// Where events come from.
pub enum Source {
    /// Files.
    Manifests(Box<Files>),
    /// A cluster.
    Kube(Box<Kube>),
}

/// Manifests with what they said when they were last read.
pub struct Files {
    manifests: Manifests,
    outcome: ReadOutcome,
    /// Read since it was taken last.
    is_news: bool,
}

/// What a source has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What has changed since the last time, in order.
    pub events: Vec<Event>,
    /// All that the source cannot follow or read now.
    pub refusals: Vec<Refusal>,
    /// What the source has not told yet; nothing is programmed before.
    pub waiting: Vec<Refusal>,
    /// The zone that this node's Node object names.
    pub zone: Option<String>,
    /// What this node's Node object means for new flows.
    pub node: NodeState,
    /// When what led to changes of slices happened, in milliseconds since 1970.
    pub triggers_ms: Vec<i64>,
}

impl Source {
    /// Opens the source.
    ///
    /// # Errors
    /// When the manifests hold a mistake, or it is not known how to reach the cluster.
    pub async fn open(choice: &SourceChoice, node_name: &str) -> Result<Self> {
        Ok(match choice {
            SourceChoice::Manifests(path) => {
                let mut manifests = Manifests::open(path)?;
                let outcome = manifests.read();
                Self::Manifests(Box::new(Files { manifests, outcome, is_news: true }))
            }
            SourceChoice::Kube(kubeconfig) => Self::Kube(Box::new(Kube::open(kubeconfig.as_deref(), node_name).await?)),
        })
    }

    /// The cluster, if it is one.
    #[must_use]
    pub fn kube(&self) -> Option<&Kube> {
        match self {
            Self::Manifests(_) => None,
            Self::Kube(kube) => Some(kube),
        }
    }

    /// Waits until there is something to take. May be dropped and called again without losing anything.
    pub async fn next_change(&mut self) {
        match self {
            Self::Manifests(files) => {
                files.manifests.next_change().await;
                // Only now, and not when the agent looks for another reason: whoever writes a file has finished.
                files.outcome = files.manifests.read();
                files.is_news = true;
            }
            Self::Kube(kube) => kube.next_change().await,
        }
    }

    /// Everything told since the last time, at once; `model` holds what was told before.
    pub fn take(&mut self, model: &Model) -> News {
        match self {
            Self::Manifests(files) => {
                let outcome = &files.outcome;
                let refusals = outcome.errors.iter().map(ManifestError::refusal).collect();
                let is_news = std::mem::take(&mut files.is_news);
                let events = if is_news { model.changes_to(&outcome.objects) } else { Vec::new() };
                News { events, refusals, node: NodeState::without_kubernetes(), ..News::default() }
            }
            Self::Kube(kube) => {
                let events = kube.take();
                let zone = kube.node().and_then(|node| node.zone.clone());
                let (refusals, waiting, node) = (kube.refusals(), kube.waiting(), kube.node_state());
                News { events, refusals, waiting, zone, node, triggers_ms: kube.take_triggers() }
            }
        }
    }
}
