//! What xlb is made of that others wrote: which crates, under which licences, from where, and what is known against them.
//! Nothing here asks the network.

pub mod lock;

pub mod contents;

pub mod sbom;

pub mod metadata;

mod licences;

mod sources;

pub mod advisories;

use anyhow::{Result, bail};

use crate::checkout::Checkout;

/// What was looked at, and what is wrong.
pub struct Findings {
    /// A line for each check: what it looked at, and what it cannot know.
    pub looked_at: Vec<String>,
    /// A line for each fault.
    pub faults: Vec<String>,
}

/// Checks sources, licences and advisories, prints what was looked at, and fails with all faults.
pub fn check(checkout: &Checkout) -> Result<()> {
    let findings = findings(checkout)?;
    for line in findings.looked_at.iter().chain(&findings.faults) {
        println!("{line}");
    }
    match findings.faults.len() {
        0 => Ok(()),
        count => bail!("{count} faults in what xlb is made of"),
    }
}

/// The same as values.
pub fn findings(checkout: &Checkout) -> Result<Findings> {
    let locked = lock::read(checkout)?;
    let packages = metadata::read(checkout, metadata::PLATFORM)?;
    let in_binary = contents::of_agent(checkout, metadata::PLATFORM)?;
    let snapshot = advisories::read(checkout)?;

    let mut looked_at = vec![sources::looked_at(&locked), licences::looked_at(&packages, &locked)];
    looked_at.push(snapshot.looked_at(&locked));
    let mut faults = sources::faults(&locked, &in_binary);
    faults.extend(licences::faults(&packages));
    faults.extend(snapshot.faults(&locked));
    Ok(Findings { looked_at, faults })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wrong_with_what_xlb_is_made_of() {
        let findings = findings(&Checkout::here()).unwrap();
        assert!(findings.faults.is_empty(), "\n{}", findings.faults.join("\n"));
        assert_eq!(findings.looked_at.len(), 3);
    }
}
