//! A watch: the lines that one client sees, from its version on, until its time is over.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use futures::{Stream, stream};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::call::{Call, Request};
use super::read;
use super::refusal::Refusal;
use super::selector::Selection;
use super::state::{Shared, State, Visitor};
use super::store::Change;
use super::view::View;

/// How long a watch lasts that names no timeout.
const TIMEOUT_DEFAULT_S: u64 = 1800;

/// How often a quiet watch says where it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long before its end a watch says where it is.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// Opens a watch. What it shows first is decided here, under one lock.
pub fn open(
    shared: &Shared,
    call: &Call,
    has_bookmarks: bool,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, Refusal> {
    let timeout_s = call.request.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let deadline = Instant::now() + Duration::from_secs(timeout_s.unwrap_or(TIMEOUT_DEFAULT_S));
    let visitor = shared.visitor(call);
    let state = shared.lock();
    let mut watch = Watch {
        selection: read::selection(call)?,
        view: read::view(call),
        cursor: state.store.version(),
        ready: VecDeque::new(),
        is_over: false,
        epoch: state.epoch,
        deadline,
        bookmark_at: None,
        visitor,
    };
    let begun = watch.begin(&state, call, has_bookmarks);
    drop(state); // A watch that is dropped takes the lock.
    begun?;
    Ok(stream::unfold(watch, async |mut watch| watch.next().await.map(|line| (line, watch))))
}

struct Watch {
    selection: Selection,
    view: View,
    /// The version up to which the client has been told.
    cursor: u64,
    ready: VecDeque<Bytes>,
    is_over: bool,
    epoch: u64,
    deadline: Instant,
    bookmark_at: Option<Instant>,
    visitor: Visitor,
}

impl Watch {
    fn begin(&mut self, state: &State, call: &Call, has_bookmarks: bool) -> Result<(), Refusal> {
        let asks_bookmarks = call.request.is_set("allowWatchBookmarks");
        match Start::parse(state, &call.request)? {
            Start::After(version) if version < state.store.floor() => {
                let message = format!("too old resource version: {version} ({})", state.store.floor());
                self.fail(Refusal::expired(message));
            }
            Start::After(version) => self.cursor = version,
            Start::Now => {}
            Start::Everything { is_streamed_list } => {
                self.tell_everything(state, call.resource.plural);
                if is_streamed_list && asks_bookmarks {
                    self.tell("BOOKMARK", self.view.bookmark(self.cursor, true));
                }
            }
        }
        if asks_bookmarks && has_bookmarks {
            self.schedule_bookmark();
        }
        Ok(())
    }

    /// The next line; an error where the connection breaks; nothing at the end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            self.visitor.news.mark_unchanged();
            if self.look() == Sight::Broken {
                return Some(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let is_silent = self.visitor.is_black_hole();
            if !is_silent && let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if !is_silent && (self.is_over || Instant::now() >= self.deadline) {
                return None;
            }
            self.wait(is_silent).await;
        }
    }

    /// Takes over what happened since the last look.
    fn look(&mut self) -> Sight {
        let shared = self.visitor.shared.clone();
        let state = shared.lock();
        if state.epoch != self.epoch {
            self.epoch = state.epoch;
            self.is_over = true;
            self.ready.clear();
            return Sight::Broken;
        }
        if self.is_over {
            return Sight::Whole;
        }
        match state.store.changes_after(self.cursor) {
            Some(changes) => changes.for_each(|change| self.tell_change(change)),
            None => self.fail(Refusal::expired("too old resource version: the watch is too slow")),
        }
        // A client that is ahead of a restored server is told nothing.
        let is_ahead = self.cursor > state.store.version();
        if !is_ahead {
            self.cursor = state.store.version();
        }
        if self.bookmark_at.is_some_and(|at| Instant::now() >= at) {
            self.schedule_bookmark();
            if !is_ahead {
                self.tell("BOOKMARK", self.view.bookmark(self.cursor, false));
            }
        }
        Sight::Whole
    }

    async fn wait(&mut self, is_silent: bool) {
        let alarm = self.bookmark_at.unwrap_or(self.deadline).min(self.deadline);
        tokio::select! {
            _ = self.visitor.news.changed() => {}
            () = sleep_until(alarm), if !is_silent => {}
        }
    }

    /// Every minute, and shortly before the end.
    fn schedule_bookmark(&mut self) {
        let now = Instant::now();
        let regular = now + BOOKMARK_INTERVAL;
        let last = self.deadline.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now);
        self.bookmark_at = match last {
            Some(last) => Some(regular.min(last)),
            None => Some(regular).filter(|at| *at < self.deadline),
        };
    }

    fn tell_everything(&mut self, state: &State, resource: &'static str) {
        for object in state.store.at(self.cursor, resource).values() {
            if self.selection.matches(object) {
                self.tell("ADDED", self.view.single(object));
            }
        }
    }

    /// An object that enters the selection is added, one that leaves it deleted: with its last
    /// matching contents, but at the new version.
    fn tell_change(&mut self, change: &Change) {
        if !self.visitor.is_of_resource(change.key.0) {
            return;
        }
        let before = change.before.as_ref().filter(|object| self.selection.matches(object));
        let after = change.after.as_ref().filter(|object| self.selection.matches(object));
        match (before, after) {
            (None, None) => {}
            (None, Some(after)) => self.tell("ADDED", self.view.single(after)),
            (Some(_), Some(after)) => self.tell("MODIFIED", self.view.single(after)),
            (Some(before), None) => {
                let mut last = self.view.single(before);
                last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                self.tell("DELETED", last);
            }
        }
    }

    fn fail(&mut self, refusal: Refusal) {
        self.tell("ERROR", refusal.status());
        self.is_over = true;
    }

    fn tell(&mut self, event: &str, object: Value) {
        let line = format!("{}\n", json!({ "type": event, "object": object }));
        self.ready.push_back(Bytes::from(line));
    }
}

#[derive(PartialEq, Eq)]
enum Sight {
    Whole,
    Broken,
}

/// Where a watch begins.
enum Start {
    /// With every object that there is.
    Everything { is_streamed_list: bool },
    /// With the next change.
    Now,
    /// With the first change after a version.
    After(u64),
}

impl Start {
    fn parse(state: &State, request: &Request) -> Result<Start, Refusal> {
        let version = request.number("resourceVersion")?.unwrap_or(0);
        let version_match = request.parameter("resourceVersionMatch");
        match request.parameter("sendInitialEvents") {
            "true" if !state.has_streaming_lists => {
                let rule =
                    "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
                Err(Refusal::invalid("ListOptions", "", "sendInitialEvents", rule))
            }
            "true" if version_match != "NotOlderThan" => {
                let rule = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                Err(Refusal::invalid("ListOptions", "", "resourceVersionMatch", rule))
            }
            "true" => Ok(Start::Everything { is_streamed_list: true }),
            _ if version > 0 => Ok(Start::After(version)),
            "false" => Ok(Start::Now),
            _ => Ok(Start::Everything { is_streamed_list: false }),
        }
    }
}
