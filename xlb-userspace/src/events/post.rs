//! Telling the API server. Whatever becomes of an event, no round waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::notice::{Notice, Subject};

/// Events that wait to be told; what comes beyond is dropped.
const WAITING_MAX: usize = 64;
/// For one event.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a note that the API server takes.
const NOTE_BYTES_MAX: usize = 1024;
/// Who tells.
const COMPONENT: &str = "xlb";
/// Where events about objects without a namespace are kept.
const CLUSTER_NAMESPACE: &str = "default";

/// Tells one event after the other, in the background.
pub struct Poster {
    waiting: Sender<(Notice, Option<String>)>,
    counts: Arc<PostCounts>,
}

/// What became of events.
#[derive(Debug, Default)]
pub struct PostCounts {
    /// Taken by the API server.
    pub posted: AtomicU64,
    /// Not taken, or too many at once.
    pub failed: AtomicU64,
}

impl Poster {
    /// Begins to wait for events of this node's agent.
    #[must_use]
    pub fn start(client: Client, node_name: &str) -> Self {
        let (waiting, events) = channel(WAITING_MAX);
        let counts = Arc::new(PostCounts::default());
        tokio::spawn(post_all(client, node_name.to_owned(), events, counts.clone()));
        Self { waiting, counts }
    }

    /// Tells of something about the object with this uid, as soon as what is told before it is done.
    pub fn post(&self, notice: Notice, uid: Option<String>) {
        if let Err(error) = self.waiting.try_send((notice, uid)) {
            debug!("an event is dropped: {error}");
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were taken, and how many were not.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.posted.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed))
    }
}

async fn post_all(
    client: Client,
    node_name: String,
    mut events: Receiver<(Notice, Option<String>)>,
    counts: Arc<PostCounts>,
) {
    let mut is_told_of_failure = false;
    while let Some((notice, uid)) = events.recv().await {
        match post(&client, event(&notice, uid, &node_name, Timestamp::now())).await {
            Ok(()) => {
                counts.posted.fetch_add(1, Ordering::Relaxed);
                is_told_of_failure = false;
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut is_told_of_failure, true) {
                    warn!("events: {error:#}; nothing else depends on them");
                }
            }
        }
    }
}

async fn post(client: &Client, event: Event) -> Result<()> {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    match timeout(CALL_LIMIT, api.create(&PostParams::default(), &event)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => bail!(
            "the API server does not allow it; the agent's ClusterRole needs the verb create on events (apiGroup \"\"): {}",
            status.message
        ),
        Ok(Err(error)) => bail!("the API server does not take them: {error}"),
        Err(_) => bail!("the API server does not answer within {CALL_LIMIT:?}"),
    }
}

/// A notice as an event of the API.
#[must_use]
pub fn event(notice: &Notice, uid: Option<String>, node_name: &str, now: Timestamp) -> Event {
    let (kind, namespace, name) = match &notice.subject {
        Subject::Service(service) => ("Service", Some(service.namespace.clone()), service.name.clone()),
        Subject::Node(name) => ("Node", None, name.clone()),
    };
    // Tools look for events of a Node under its name, as the kubelet writes them.
    let uid = uid.or_else(|| namespace.is_none().then(|| name.clone()));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.clone().unwrap_or_else(|| CLUSTER_NAMESPACE.into())),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some(kind.into()),
            name: Some(name),
            namespace,
            uid,
            ..ObjectReference::default()
        },
        type_: Some(notice.severity.name().into()),
        reason: Some(notice.reason.into()),
        message: Some(cut(&notice.note, NOTE_BYTES_MAX)),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        source: Some(EventSource { component: Some(COMPONENT.into()), host: Some(node_name.into()) }),
        reporting_component: Some(COMPONENT.into()),
        reporting_instance: Some(node_name.into()),
        ..Event::default()
    }
}

/// The first bytes of a text, up to the end of a character.
fn cut(text: &str, bytes_max: usize) -> String {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::desired::Refusal;

    #[test]
    fn an_event_names_its_object_so_that_describe_shows_it() {
        let refusal = Refusal { object: "Service shop/web:http".into(), why: "ä".repeat(2000) };
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let told = event(&Notice::of(&refusal, "node-a").unwrap(), Some("u-1".into()), "node-a", now);
        let involved = &told.involved_object;
        assert_eq!(
            [&involved.kind, &involved.namespace, &involved.name, &involved.uid].map(|part| part.as_deref()),
            [Some("Service"), Some("shop"), Some("web"), Some("u-1")]
        );
        assert_eq!(told.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!([told.type_.as_deref(), told.reason.as_deref()], [Some("Warning"), Some("NotServed")]);
        let message = told.message.unwrap();
        assert!(message.len() <= NOTE_BYTES_MAX && message.starts_with("Service shop/web:http: ää"), "{message}");
    }

    #[test]
    fn the_event_of_a_node_is_kept_in_the_namespace_default_under_the_nodes_name() {
        let told = event(&Notice::starting("node-a"), None, "node-a", Timestamp::UNIX_EPOCH);
        assert_eq!(told.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(told.involved_object.uid.as_deref(), Some("node-a"));
        assert_eq!(told.involved_object.namespace, None);
        assert_eq!([told.type_.as_deref(), told.reason.as_deref()], [Some("Normal"), Some("Starting")]);
    }
}
