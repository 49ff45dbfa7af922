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
use std::sync::Arc;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{Api, Client};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinSet, yield_now};

use crate::health::NodeState;
use crate::model::{Event, ObjectName};
use crate::plan::desired::Refusal;

pub mod item;
pub mod talk;
pub mod follow;
pub mod trigger;
pub mod intake;
pub mod tally;
pub mod edge;
pub mod client;
#[cfg(test)]
mod tests;

use edge::Edge;
use intake::Intake;
use item::{NodeFacts, Resource, Watched};
use talk::News;

pub use tally::Tally;

pub use client::is_in_cluster;

/// Messages of the followers that wait to be taken; a whole list is one message. Followers wait when it is full.
const MESSAGES_MAX: usize = 1024;

/// Turns that the followers get before what they told is taken; each reads about a hundred events at most in one.
const TURNS_MAX: usize = 32;

/// Semantics 1.1, as far as a selector can say it.
const NOT_HEADLESS: &str = "!service.kubernetes.io/headless";

/// A cluster that is followed.
pub struct Kube {
    intake: Intake,
    messages: Receiver<(Resource, Vec<News>)>,
    /// Received while waiting, and not taken yet.
    first: Option<(Resource, Vec<News>)>,
    followers: JoinSet<()>,
    client: Client,
    tally: Arc<Tally>,
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
        let tally = Arc::new(Tally::default());
        let this_node = format!("metadata.name={node_name}");
        followers.spawn(edge::<Service>(client, Some(NOT_HEADLESS), None, &listener, &tally).follow());
        followers.spawn(edge::<EndpointSlice>(client, Some(NOT_HEADLESS), None, &listener, &tally).follow());
        followers.spawn(edge::<NetworkPolicy>(client, None, None, &listener, &tally).follow());
        followers.spawn(edge::<Node>(client, None, Some(&this_node), &listener, &tally).follow());
        Self { intake: Intake::new(node_name), messages, first: None, followers, client: client.clone(), tally }
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
        self.hear_out().await;
    }

    /// Lets the followers tell what the server has sent them by now. They share a thread with whoever takes it, and a
    /// round takes longer than reading some events: taken one by one, changes would pile up behind the rounds.
    async fn hear_out(&self) {
        let mut told = self.messages.len();
        for _ in 0..TURNS_MAX {
            yield_now().await;
            if told == std::mem::replace(&mut told, self.messages.len()) {
                return;
            }
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

    /// What the Node object means for new flows.
    #[must_use]
    pub fn node_state(&self) -> NodeState {
        self.intake.node_state()
    }

    /// The uid of a Service.
    #[must_use]
    pub fn service_uid(&self, name: &ObjectName) -> Option<&str> {
        self.intake.service_uid(name)
    }

    /// When what led to changes of slices since the last time happened, in milliseconds since 1970.
    pub fn take_triggers(&mut self) -> Vec<i64> {
        self.intake.take_triggers()
    }

    /// How often each kind was listed, and how often a request failed.
    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    /// The client by which the cluster is followed.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
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
    tally: &Arc<Tally>,
) -> Edge<K> {
    Edge {
        api: Api::all(client.clone()),
        labels: labels.map(String::from),
        fields: fields.map(String::from),
        listener: listener.clone(),
        tally: tally.clone(),
    }
}
