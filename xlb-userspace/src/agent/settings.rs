//! What the agent was told, and from where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A setting of `xlb run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name: of the flag without dashes, and of the key in the configuration file.
    pub name: String,
    /// Its value as one would write it; empty: it has none.
    pub value: String,
    /// Where that comes from.
    pub origin: Origin,
    /// Of the environment the variable, of a file the line: `/etc/xlb/config.yaml:4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// Where a value comes from, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The configuration file.
    File,
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}
