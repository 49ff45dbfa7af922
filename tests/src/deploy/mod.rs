//! What `deploy/` holds, as objects: kustomizations built, the chart rendered, and what can be asked of the result.

mod kustomize;
mod chart;
mod functions;
mod values;
mod objects;
mod rights;
mod container;
mod unit;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize as _;
use serde_json::Value;

pub use chart::{Chart, Release, Rendered};
pub use container::{Container, Mount};
pub use kustomize::{build, with_component};
pub use objects::{check, identity};
pub use rights::{Right, granted, needed};
pub use unit::Unit;

/// The folder `deploy/` of the checkout.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// Reads a file of the folder.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// The objects of a text of YAML documents; empty documents are none.
///
/// # Errors
/// When one is no YAML.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    let parse = |(number, document)| {
        Value::deserialize(document).with_context(|| format!("reading document {number} of\n{yaml}"))
    };
    let all = serde_yaml_ng::Deserializer::from_str(yaml).enumerate().map(parse);
    all.filter(|document| !matches!(document, Ok(Value::Null))).collect()
}

/// The one object of a kind.
///
/// # Errors
/// When there is none, or more than one.
pub fn only<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let of_kind: Vec<&Value> = objects.iter().filter(|object| object["kind"] == kind).collect();
    match of_kind[..] {
        [object] => Ok(object),
        _ => anyhow::bail!("{} objects of kind {kind}", of_kind.len()),
    }
}
