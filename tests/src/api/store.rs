//! The state behind the server: objects, one version counter for all of them, and the log of changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

/// Changes kept for watches; older ones are compacted away, as etcd does it by age.
const LOG_CHANGES_MAX: usize = 50_000;

/// When every object says that it was created: tests must not depend on the hour.
const CREATED_AT: &str = "2026-01-01T00:00:00Z";

/// Resource, namespace (empty for cluster-wide kinds) and name: the order of a list.
pub type Key = (&'static str, String, String);

/// One write: what was there, what is there now.
#[derive(Debug, Clone)]
pub struct Change {
    /// The version that the write made.
    pub version: u64,
    /// The object written.
    pub key: Key,
    /// The object before, unless it is new.
    pub before: Option<Arc<Value>>,
    /// The object after, unless it is gone.
    pub after: Option<Arc<Value>>,
}

/// Objects and their history. A clone is a backup, as of etcd.
#[derive(Debug, Clone)]
pub struct Store {
    version: u64,
    floor: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    log: VecDeque<Change>,
}

impl Store {
    /// An empty cluster at version 1.
    pub fn new() -> Self {
        Self { version: 1, floor: 1, objects: BTreeMap::new(), log: VecDeque::new() }
    }

    /// The version of the newest write.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version that lists and watches may start from.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Forgets history up to now. Watches that are open already go on, as on a real server.
    pub fn compact(&mut self) {
        self.floor = self.version;
    }

    /// One object as it is now.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// The objects of one resource as they were at a version that is not older than the floor.
    pub fn at(&self, version: u64, resource: &'static str) -> BTreeMap<Key, Arc<Value>> {
        let first = (resource, String::new(), String::new());
        let now = self.objects.range(first..).take_while(|(key, _)| key.0 == resource);
        let mut objects: BTreeMap<_, _> = now.map(|(key, object)| (key.clone(), object.clone())).collect();
        let newer = self.log.iter().rev().take_while(|change| change.version > version);
        for change in newer.filter(|change| change.key.0 == resource) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        objects
    }

    /// The changes after a version, or `None` where the log no longer reaches back that far.
    pub fn changes_after(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        let first = self.log.front().map_or(self.version, |change| change.version - 1);
        let from = self.log.partition_point(|change| change.version <= version);
        (version >= first).then(|| self.log.range(from..))
    }

    /// Stores an object and returns it as stored. A write that changes nothing makes no version and no change.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        let before = self.get(&key);
        identify(&mut object, &key, before.as_deref(), self.version + 1);
        if let Some(before) = before.as_ref().filter(|before| ***before == object) {
            return before.clone();
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let after = Arc::new(object);
        self.objects.insert(key.clone(), after.clone());
        self.record(Change { version: self.version, key, before, after: Some(after.clone()) });
        after
    }

    /// Removes an object and says whether it was there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let Some(before) = self.objects.remove(key) else { return false };
        self.version += 1;
        self.record(Change { version: self.version, key: key.clone(), before: Some(before), after: None });
        true
    }

    /// Removes all that is in a namespace.
    pub fn remove_contents(&mut self, namespace: &str) {
        let within: Vec<Key> = self.objects.keys().filter(|key| key.1 == namespace).cloned().collect();
        for key in within {
            self.remove(&key);
        }
    }

    fn record(&mut self, change: Change) {
        self.log.push_back(change);
        if self.log.len() > LOG_CHANGES_MAX
            && let Some(oldest) = self.log.pop_front()
        {
            self.floor = self.floor.max(oldest.version);
        }
    }
}

/// Gives an object the metadata that only the server decides. Its version stays the old one, to compare it.
fn identify(object: &mut Value, key: &Key, before: Option<&Value>, next_version: u64) {
    let metadata = &mut object["metadata"];
    metadata["name"] = json!(key.2);
    if !key.1.is_empty() {
        metadata["namespace"] = json!(key.1);
    }
    let kept = |field: &str| before.and_then(|before| before["metadata"].get(field)).cloned();
    metadata["uid"] = kept("uid").unwrap_or_else(|| json!(format!("00000000-0000-4000-8000-{next_version:012x}")));
    metadata["creationTimestamp"] = kept("creationTimestamp").unwrap_or_else(|| json!(CREATED_AT));
    metadata["resourceVersion"] = kept("resourceVersion").unwrap_or_default();
}
