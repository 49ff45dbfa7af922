//! A Kubernetes API server: Services, EndpointSlices, NetworkPolicies and this Node, followed by watches.
//!
//! ```text
//! server -> edge::Edge -> Answer -> follow::Follower -> News -> channel -> intake::Intake -> Event
//! ```
//!
//! Invariant: [`follow`] and [`intake`] decide and do nothing; [`edge`] asks and decides nothing. What was told stays
//! until the server itself takes it back: an outage changes nothing, and a list prunes only when it is complete.

use std::panic::resume_unwind;
use std::path::Path;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

use crate::model::Event;
use crate::plan::desired::Refusal;

pub mod item;
pub mod talk;
pub mod follow;
pub mod intake;
pub mod edge;
pub mod client;
#[cfg(test)]
mod tests;

use edge::Edge;
use intake::Intake;
use item::{NodeFacts, Resource, Watched};
use talk::News;

pub use client::is_in_cluster;

/// Messages of the followers that wait to be taken; a whole list is one message. Followers wait when it is full.
const MESSAGES_MAX: usize = 1024;

/// Semantics 1.1, as far as a selector can say it.
const NOT_HEADLESS: &str = "!service.kubernetes.io/headless";

/// A cluster that is followed.
pub struct Kube {
    intake: Intake,
    messages: Receiver<(Resource, Vec<News>)>,
    /// Received while waiting, and not taken yet.
    first: Option<(Resource, Vec<News>)>,
    followers: JoinSet<()>,
}

impl Kube {
    /// Begins to follow the cluster. It need not be reachable yet.
    ///
    /// # Errors
    /// When it is not known how to reach it.
    pub async fn open(kubeconfig: Option<&Path>, node_name: &str) -> Result<Self> {
        Ok(Self::follow(&client::client(kubeconfig).await?, node_name))
    }

    /// Begins to follow the cluster of a client.
    #[must_use]
    pub fn follow(client: &Client, node_name: &str) -> Self {
        let (listener, messages) = channel(MESSAGES_MAX);
        let mut followers = JoinSet::new();
        let this_node = format!("metadata.name={node_name}");
        followers.spawn(edge::<Service>(client, Some(NOT_HEADLESS), None, &listener).follow());
        followers.spawn(edge::<EndpointSlice>(client, Some(NOT_HEADLESS), None, &listener).follow());
        followers.spawn(edge::<NetworkPolicy>(client, None, None, &listener).follow());
        followers.spawn(edge::<Node>(client, None, Some(&this_node), &listener).follow());
        Self { intake: Intake::new(node_name), messages, first: None, followers }
    }

    /// Waits until there is something to take. May be dropped and called again without losing anything.
    pub async fn next_change(&mut self) {
        if self.first.is_some() {
            return;
        }
        tokio::select! {
            message = self.messages.recv() => self.first = message,
            Some(Err(error)) = self.followers.join_next() => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(error) => panic!("a follower was stopped: {error}"),
            },
        }
    }

    /// All that was told since the last time, in order.
    pub fn take(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((resource, news)) = self.first.take().or_else(|| self.messages.try_recv().ok()) {
            events.extend(news.into_iter().filter_map(|news| self.intake.take(resource, news)));
        }
        events
    }

    /// What of the cluster cannot be followed or read.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.intake.refusals()
    }

    /// What was not told yet, and is waited for.
    #[must_use]
    pub fn waiting(&self) -> Vec<Refusal> {
        self.intake.waiting()
    }

    /// This node's Node object, if there is one.
    #[must_use]
    pub fn node(&self) -> Option<&NodeFacts> {
        self.intake.node()
    }
}

fn edge<K: Watched>(
    client: &Client,
    labels: Option<&str>,
    fields: Option<&str>,
    listener: &Sender<(Resource, Vec<News>)>,
) -> Edge<K> {
    Edge {
        api: Api::all(client.clone()),
        labels: labels.map(String::from),
        fields: fields.map(String::from),
        listener: listener.clone(),
    }
}
