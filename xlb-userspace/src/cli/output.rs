//! How commands print: one place for all forms, and for readers that stop reading.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For people, with everything.
    Wide,
    /// For programs.
    Json,
    /// For programs.
    Yaml,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, Args)]
pub struct OutputArgs {
    /// How to print: text and wide are for people and may change, the fields of json and yaml stay
    #[arg(short, long, value_enum, default_value = "text")]
    pub output: Format,
}

impl Format {
    /// A value as a document for programs; YAML if that is what this is, else JSON.
    ///
    /// # Errors
    /// When the value has no such form.
    pub fn document<T: Serialize>(self, value: &T) -> Result<String> {
        Ok(match self {
            Self::Yaml => serde_yaml_ng::to_string(value)?,
            _ => serde_json::to_string_pretty(value)? + "\n",
        })
    }

    /// Whether this is a form for people.
    #[must_use]
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::Text | Self::Wide)
    }

    /// One of many values that come one by one, for programs: a line of JSON, or a document of YAML.
    ///
    /// # Errors
    /// When the value has no such form.
    pub fn item<T: Serialize>(self, value: &T) -> Result<String> {
        Ok(match self {
            Self::Yaml => format!("---\n{}", serde_yaml_ng::to_string(value)?.trim_end()),
            _ => serde_json::to_string(value)?,
        })
    }
}

impl OutputArgs {
    /// Prints a value, for people by this function, which is told whether to be wide.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T, bool) -> String) -> Result<()> {
        print(&match self.output {
            Format::Text => text(value, false),
            Format::Wide => text(value, true),
            format => format.document(value)?,
        })
        .map(drop)
    }
}

/// Writes to the standard output. False: its reader has seen enough (`xlb flows | head`), which is no error.
///
/// # Errors
/// When it cannot be written for another reason, such as a full disk.
pub fn print(text: &str) -> Result<bool> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("writing to the standard output"),
    }
}
