//! Whether a flag would take a value that was not typed, and if not, why, and what it would take.

use std::error::Error;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::Given;
use crate::agent::settings::Origin;

/// Lets the flag itself judge.
///
/// # Errors
/// A sentence with the place, what is wrong there, and an example.
pub(super) fn check(run: &Command, given: &Given) -> Result<(), String> {
    let Err(error) = run.clone().try_get_matches_from(["run".into(), given.flag()]) else { return Ok(()) };
    let Some(why) = why(&error) else { return Ok(()) };
    let Given { name, text, place, .. } = given;
    let arg = run.get_arguments().find(|arg| arg.get_long() == Some(name));
    let example = arg.map(example).unwrap_or_default();
    Err(match given.origin {
        Origin::Environment => format!("{place}: {text:?} is refused: {why}; for example `{place}={example}`"),
        _ => format!("{place}: {name}: {text:?} is refused: {why}; for example `{name}: {example}`"),
    })
}

/// What is wrong with the value; none: it is with others that something is wrong, if at all.
fn why(error: &clap::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::ValueValidation => {
            let said = error.source().map(ToString::to_string).unwrap_or_default();
            Some(if said.starts_with("invalid digit") { "it is no whole number".into() } else { said })
        }
        ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(values)) if !values.is_empty() => {
                Some(format!("it is one of {}", values.join(", ")))
            }
            _ => Some("it needs a value".into()),
        },
        ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict => None,
        _ => Some(error.kind().to_string()),
    }
}

/// A value that the flag takes: its default, or one of those that there are, or what its kind of value looks like.
pub(super) fn example(arg: &Arg) -> String {
    if let Some(default) = arg.get_default_values().first() {
        return default.to_string_lossy().into_owned();
    }
    if let Some(possible) = arg.get_possible_values().first() {
        return possible.get_name().to_owned();
    }
    let kind = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match kind {
        "IF[,IF]" => "eth0",
        "CIDR[,CIDR]" => "203.0.113.0/24",
        "CLASS[,CLASS]" => "example.com/xlb",
        "NAME" => "node-1",
        "FILE" => "/etc/xlb/kubeconfig",
        _ => "/path",
    }
    .to_owned()
}
