//! Conventions that no compiler checks.

mod rules;

mod source;

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::checkout::Checkout;
use rules::MachinePaths;

/// Checks every file that git tracks or would add, prints a line per fault, and fails when there is one.
pub fn check(checkout: &Checkout) -> Result<()> {
    let faults = faults(checkout)?;
    for fault in &faults {
        println!("{fault}");
    }
    match faults.len() {
        0 => Ok(()),
        count => bail!("{count} faults in the conventions"),
    }
}

fn faults(checkout: &Checkout) -> Result<Vec<String>> {
    let machine_paths = MachinePaths::of(checkout.root(), std::env::var("HOME").ok());
    let mut faults = Vec::new();
    for path in files(checkout.root())? {
        // A file may vanish after git listed it, and a picture is no text: neither breaks a convention.
        let Ok(text) = std::fs::read_to_string(checkout.root().join(&path)) else { continue };
        faults.extend(rules::check(&path, &text, &machine_paths));
    }
    Ok(faults)
}

/// Every file that git tracks or would add.
pub fn files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("listing the files of the checkout with git")?;
    ensure!(output.status.success(), "listing the files of the checkout with git: {}", output.status);
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_tidy() {
        let faults = faults(&Checkout::here()).unwrap();
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    }
}
