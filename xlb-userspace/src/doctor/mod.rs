//! `xlb doctor`: what on this node keeps xlb from serving, or makes it slow. It works without an agent, and changes nothing.
//!
//! Read in this order: [`facts`] (what is looked at, as values), [`machine`] (the kernel and this process), [`dataplane`] (what
//! serves, and what its agent says), [`uplinks`], [`pods`], [`others`] (kube-proxy, policy engines), [`read`] (the only part
//! that asks the node).
//!
//! Each check is a function of [`Facts`]. A check that has nothing to complain of says what it saw, so that a reader knows that
//! it was looked at.

use serde::Serialize;

pub mod facts;
pub mod machine;
pub mod dataplane;
pub mod uplinks;
pub mod pods;
pub mod others;
pub mod read;

#[cfg(test)]
mod healthy;
#[cfg(test)]
mod tests;

use self::facts::Facts;

/// What a check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    CannotTell,
    /// It serves, and not as it could; or it does only as long as nothing else happens.
    Warning,
    /// Some traffic is not served, or will not be.
    Problem,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::CannotTell => "cannot tell",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// The outcome of one check of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    /// What was looked at.
    pub object: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What to do; none: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn new(check: &'static str, object: &str, verdict: Verdict, evidence: String, remedy: Option<String>) -> Self {
        Self { check, object: object.into(), verdict, evidence, remedy }
    }

    pub(crate) fn ok(check: &'static str, object: &str, evidence: impl Into<String>) -> Self {
        Self::new(check, object, Verdict::Ok, evidence.into(), None)
    }

    pub(crate) fn unknown(check: &'static str, object: &str, why: impl Into<String>, remedy: &str) -> Self {
        Self::new(check, object, Verdict::CannotTell, why.into(), Some(remedy.into()))
    }

    pub(crate) fn warning(
        check: &'static str,
        object: &str,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, object, Verdict::Warning, evidence.into(), Some(remedy.into()))
    }

    pub(crate) fn problem(
        check: &'static str,
        object: &str,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(check, object, Verdict::Problem, evidence.into(), Some(remedy.into()))
    }
}

/// The node itself, as an object of a finding.
const NODE: &str = "node";

/// All checks.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let checks: [fn(&Facts) -> Vec<Finding>; 5] =
        [machine::check, dataplane::check, uplinks::check, pods::check, others::check];
    checks.iter().flat_map(|check| check(facts)).collect()
}
