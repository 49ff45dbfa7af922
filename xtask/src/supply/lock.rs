//! Cargo.lock: which crates, from where, and what they hash to.

use std::fs;

use anyhow::{Context as _, Result};
use toml_edit::{DocumentMut, Item, Table};

use crate::checkout::Checkout;

/// A package of Cargo.lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Locked {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it comes from; none: the workspace.
    pub source: Option<String>,
    /// The SHA-256 of its archive.
    pub checksum: Option<String>,
}

/// The packages of the checkout.
pub fn read(checkout: &Checkout) -> Result<Vec<Locked>> {
    let path = checkout.root().join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("reading {}", path.display()))
}

/// The packages of a text.
pub fn parse(text: &str) -> Result<Vec<Locked>> {
    let document: DocumentMut = text.parse()?;
    let packages = document.get("package").and_then(Item::as_array_of_tables).context("it has no [[package]]")?;
    packages.iter().map(package).collect()
}

fn package(table: &Table) -> Result<Locked> {
    let text = |key: &str| table.get(key).and_then(Item::as_str).map(str::to_owned);
    Ok(Locked {
        name: text("name").context("a package without a name")?,
        version: text("version").context("a package without a version")?,
        source: text("source"),
        checksum: text("checksum"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_a_source_and_a_hash_unless_it_is_ours() {
        let text = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\n\
                    checksum = \"00ff\"\ndependencies = [\n \"b\",\n]\n\n[[package]]\nname = \"b\"\nversion = \"0.1.0\"\n";
        let packages = parse(text).unwrap();
        let [a, b] = &packages[..] else { panic!("{packages:?}") };
        assert_eq!((a.source.as_deref(), a.checksum.as_deref()), (Some("registry+x"), Some("00ff")));
        assert_eq!((b.name.as_str(), b.source.as_deref()), ("b", None));
        assert!(parse("version = 4\n").unwrap_err().to_string().contains("[[package]]"));
    }
}
