//! The packages that are compiled on Linux, tests and tools included, as their manifests describe them.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::checkout::Checkout;
use crate::command;
use crate::image::Arch;

/// What is looked at where nothing else is said. Crates of other platforms are in Cargo.lock, but are compiled nowhere, and cargo does
/// not fetch them.
pub const PLATFORM: &str = Arch::Amd64.triple();

/// A package.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as an SPDX expression.
    pub license: Option<String>,
    /// Where it comes from; none: the workspace.
    pub source: Option<String>,
    /// Its Cargo.toml.
    pub manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// All packages of the workspace for a platform.
pub fn read(checkout: &Checkout, platform: &str) -> Result<Vec<Package>> {
    let said = ask(checkout, platform, &["--offline"])
        // What no build has needed yet has to be fetched.
        .or_else(|_| ask(checkout, platform, &[]))
        .context("asking cargo for the packages of the workspace")?;
    let metadata: Metadata = serde_json::from_str(&said).context("reading what cargo metadata said")?;
    Ok(metadata.packages)
}

fn ask(checkout: &Checkout, platform: &str, further: &[&str]) -> Result<String> {
    let mut cargo = command::cargo(checkout, "metadata");
    cargo.args(["--locked", "--format-version", "1", "--all-features", "--filter-platform", platform]).args(further);
    command::output_of(&mut cargo)
}
