//! The words between a follower, the server and those who want to know: what is asked, answered and told.

use std::time::Duration;

use super::item::Item;
use crate::model::ObjectName;

/// What to ask the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A watch that begins by telling of everything.
    WatchAll,
    /// A page of a list of everything; with a token, the page after the last one.
    List(Option<String>),
    /// The server's version, without objects.
    Version,
    /// What has happened since a version.
    Watch(String),
}

impl Request {
    /// The verb that RBAC has to allow.
    pub fn verb(&self) -> Verb {
        match self {
            Self::WatchAll | Self::Watch(_) => Verb::Watch,
            Self::List(_) | Self::Version => Verb::List,
        }
    }
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A page of a list, and the token of the next page.
    Page(Vec<Item>, String, Option<String>),
    /// Its version.
    Version(String),
    /// A watch has begun.
    Opened,
    /// Within a watch: an object is there or has changed.
    Applied(Item),
    /// Within a watch: an object is gone.
    Deleted(Item),
    /// Within a watch: a version up to which everything was told.
    Bookmark(String),
    /// The same, and everything there is has been told once.
    AllTold(String),
    /// A watch ended as it should, after this time.
    Ended(Duration),
    /// A request failed, a watch after this time.
    Failed(Failure, Duration),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The version or token asked for is too old: 410.
    Expired,
    /// The server does not understand the request: 400 or 422.
    NotUnderstood(String),
    /// RBAC does not allow it: 403.
    Denied(String),
    /// The credentials are not accepted: 401.
    Unauthenticated(String),
    /// Nothing was heard for too long.
    Silent,
    /// Anything else.
    Other(String),
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The object is new or may have changed.
    Put(Box<Item>),
    /// The object is gone, or is not for this proxy any longer.
    Gone(ObjectName),
    /// Everything there is has been told once.
    Listed,
    /// Something stands in the way; what was told before stays.
    Trouble(Obstacle, String),
    /// It does not any longer.
    Over(Obstacle),
    /// The server knows less than it did.
    WentBack {
        /// The newest version it told of.
        from: u64,
        /// Its version now.
        to: u64,
    },
}

/// What can stand in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// A verb is not allowed.
    Denied(Verb),
    /// The server fails.
    Failing,
}

/// Verbs of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// `list`.
    List,
    /// `watch`.
    Watch,
}

impl Verb {
    /// As RBAC rules spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Watch => "watch",
        }
    }
}
