//! What is to be told, about what.

use super::kind::{RefusalKind, service_of};
use crate::model::ObjectName;
use crate::plan::desired::Refusal;

/// How serious it is, as Kubernetes spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For the record.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Severity {
    /// The `type` of an event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A Service.
    Service(ObjectName),
    /// This node.
    Node(String),
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// About what.
    pub subject: Subject,
    /// How serious.
    pub severity: Severity,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub note: String,
}

impl Notice {
    /// A refusal that is about a Service, or about this node's room for flows. Others are for the operator of the node, who has
    /// `xlb status` and the log.
    #[must_use]
    pub fn of(refusal: &Refusal, node_name: &str) -> Option<Self> {
        let subject = match service_of(refusal) {
            Some(service) => Subject::Service(service),
            None if refusal.object.starts_with("flows ") => Subject::Node(node_name.into()),
            None => return None,
        };
        let reason = RefusalKind::of(refusal).reason();
        let note = format!("{}: {}", refusal.object, refusal.why);
        Some(Self { subject, severity: Severity::Warning, reason, note })
    }

    /// The programs of this node's agent are refused.
    #[must_use]
    pub fn refused(node_name: &str, refusal: &Refusal) -> Self {
        let reason = RefusalKind::of(refusal).reason();
        let note = format!("{}: {}", refusal.object, refusal.why);
        Self { subject: Subject::Node(node_name.into()), severity: Severity::Warning, reason, note }
    }

    /// The agent of a node serves.
    #[must_use]
    pub fn starting(node_name: &str) -> Self {
        let note = format!("xlb {} serves external addresses on {node_name}", env!("CARGO_PKG_VERSION"));
        Self { subject: Subject::Node(node_name.into()), severity: Severity::Normal, reason: "Starting", note }
    }
}
