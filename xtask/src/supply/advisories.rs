//! What is known against crates: a snapshot of RustSec's advisory database, kept in this repository, so that checking it needs no
//! network. It knows nothing that was published after it was taken: `cargo xtask advisories --update` takes it anew.

mod database;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use super::lock::{self, Locked};
use crate::checkout::Checkout;
use crate::command;

/// Where the snapshot is.
const FILE: &str = "xtask/src/supply/advisories.json";

/// Advisories that xlb lives with, and why. One that no longer concerns a crate of Cargo.lock has to go from here.
const ACCEPTED: [(&str, &str); 0] = [];

/// A snapshot of the database.
#[derive(Debug, Deserialize, Serialize)]
pub struct Snapshot {
    /// Whose words these are, and their licence.
    source: String,
    /// The day up to which it knows what was published: that of the clone, or of its newest entry where that is not known.
    taken: String,
    /// The crates that were asked for; none: all that the database has.
    covers: Option<BTreeSet<String>>,
    /// In the order of their ids.
    advisories: Vec<Advisory>,
}

/// Something that was found in a crate.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Advisory {
    id: String,
    package: String,
    date: String,
    /// `vulnerability`, or what the database calls informational: `unsound`, `unmaintained`, `notice`.
    kind: String,
    title: String,
    patched: Vec<String>,
    unaffected: Vec<String>,
}

/// The snapshot of the checkout.
pub fn read(checkout: &Checkout) -> Result<Snapshot> {
    let path = path(checkout);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

/// Takes the snapshot anew from a clone of the database, and prints what it holds against Cargo.lock.
pub fn update(checkout: &Checkout, clone: &Path) -> Result<()> {
    let taken = command::stdout_of("date", &["-u", "+%Y-%m-%d"]).context("asking `date` for the day")?;
    let snapshot = database::read(clone, taken.trim())?;
    let path = path(checkout);
    let text = serde_json::to_string_pretty(&snapshot).context("writing the snapshot")?;
    fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    let locked = lock::read(checkout)?;
    println!("{}", snapshot.looked_at(&locked));
    snapshot.faults(&locked).iter().for_each(|fault| println!("{fault}"));
    Ok(())
}

fn path(checkout: &Checkout) -> PathBuf {
    checkout.root().join(FILE)
}

impl Snapshot {
    /// The day it was taken, as `2026-11-29`.
    pub fn taken(&self) -> &str {
        &self.taken
    }

    /// The crates of Cargo.lock that nobody asked the database for.
    pub fn uncovered<'a>(&self, locked: &'a [Locked]) -> BTreeSet<&'a str> {
        let Some(covers) = &self.covers else { return BTreeSet::new() };
        let foreign = locked.iter().filter(|package| package.source.is_some());
        foreign.map(|package| &*package.name).filter(|name| !covers.contains(*name)).collect()
    }

    /// What was looked at, and what was not.
    pub fn looked_at(&self, locked: &[Locked]) -> String {
        let uncovered = self.uncovered(locked).len();
        let partly = match uncovered {
            0 => String::new(),
            count => format!(", without {count} crates of Cargo.lock that the database was not asked for"),
        };
        format!(
            "advisories: {} of the snapshot that was taken on {}{partly}; not what was published since",
            self.advisories.len(),
            self.taken
        )
    }

    /// A sentence for each advisory that concerns a locked version, and for each that is accepted in vain.
    pub fn faults(&self, locked: &[Locked]) -> Vec<String> {
        self.faults_but(locked, &ACCEPTED)
    }

    fn faults_but(&self, locked: &[Locked], accepted: &[(&str, &str)]) -> Vec<String> {
        let mut hits = Vec::new();
        for package in locked.iter().filter(|package| package.source.is_some()) {
            let of_package = self.advisories.iter().filter(|advisory| advisory.package == package.name);
            hits.extend(
                of_package.filter(|advisory| advisory.concerns(&package.version)).map(|found| (found, package)),
            );
        }
        let is_hit = |id: &str| hits.iter().any(|(advisory, _)| advisory.id == id);
        let in_vain = accepted.iter().filter(|(id, _)| !is_hit(id));
        let in_vain =
            in_vain.map(|(id, _)| format!("{id} is accepted, and concerns no crate of Cargo.lock: take it out"));
        let open = hits.iter().filter(|(advisory, _)| !accepted.iter().any(|(id, _)| *id == advisory.id));
        open.map(|(advisory, package)| advisory.sentence(package)).chain(in_vain).collect()
    }
}

impl Advisory {
    /// A version that cannot be read is concerned: better asked once too often.
    fn concerns(&self, version: &str) -> bool {
        let Ok(version) = Version::parse(version) else { return true };
        let is_in = |ranges: &[String]| {
            ranges.iter().any(|range| VersionReq::parse(range).is_ok_and(|range| range.matches(&version)))
        };
        !is_in(&self.patched) && !is_in(&self.unaffected)
    }

    fn sentence(&self, package: &Locked) -> String {
        let remedy = match self.patched.is_empty() {
            true => "no version is patched: replace the crate, or accept it with a reason in advisories.rs".to_owned(),
            false => format!("patched in {}: `cargo update -p {}`", self.patched.join(" or "), package.name),
        };
        format!("{} ({}) concerns {} {}: {}; {remedy}", self.id, self.kind, package.name, package.version, self.title)
    }
}

#[cfg(test)]
mod tests;
