//! Which crates are compiled into the agent: by cargo's own resolver, with the features that this binary has. Crates that only
//! build or test something are not among them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};

use crate::build_ebpf::TARGET;
use crate::checkout::Checkout;
use crate::command;

/// A crate by name and version.
pub type Crate = (String, String);

/// What cargo prints of each crate, behind its depth.
const FORMAT: &str = "{p}|{l}";

/// Crates, and which of them uses which.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Each crate with its licence, as its author wrote it.
    pub crates: BTreeMap<Crate, String>,
    /// The crates that a crate uses.
    pub uses: BTreeMap<Crate, BTreeSet<Crate>>,
}

/// The crates of the agent for a platform, and those of the kernel programs that it embeds.
pub fn of_agent(checkout: &Checkout, platform: &str) -> Result<Contents> {
    let mut contents = tree(checkout, "xlb-userspace", platform)?;
    let programs = tree(checkout, "xlb-ebpf", TARGET)?;
    contents.crates.extend(programs.crates);
    for (user, used) in programs.uses {
        contents.uses.entry(user).or_default().extend(used);
    }
    Ok(contents)
}

fn tree(checkout: &Checkout, package: &str, platform: &str) -> Result<Contents> {
    let mut cargo = command::cargo(checkout, "tree");
    cargo.args(["--locked", "--offline", "-p", package, "--target", platform]);
    cargo.args(["-e", "normal,no-proc-macro", "--prefix", "depth", "--format", FORMAT]);
    let said = command::output_of(&mut cargo).with_context(|| format!("asking cargo what {package} is made of"))?;
    parse(&said)
}

/// Reads what cargo prints: `1anyhow v1.0.0|MIT OR Apache-2.0`, each crate below the one that uses it.
fn parse(text: &str) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut above: Vec<Crate> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (depth, found, licence) = read_line(line).with_context(|| format!("reading `{line}` of cargo tree"))?;
        above.truncate(depth);
        if let Some(user) = above.last() {
            contents.uses.entry(user.clone()).or_default().insert(found.clone());
        }
        contents.crates.insert(found.clone(), licence);
        above.push(found);
    }
    Ok(contents)
}

fn read_line(line: &str) -> Option<(usize, Crate, String)> {
    let name_at = line.find(|character: char| !character.is_ascii_digit())?;
    let (depth, behind) = line.split_at(name_at);
    let (package, licence) = behind.split_once('|')?;
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    // Said once: what it uses was printed before.
    let licence = licence.trim_end_matches(" (*)");
    Some((depth.parse().ok()?, (name.to_owned(), version.to_owned()), licence.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_used_by_the_one_above_it() {
        let text = "0xlb v0.1.0 (/somewhere/xlb)|MIT\n1a v1.0.0|MIT/Apache-2.0\n2b v2.0.0|ISC\n1c v3.0.0+meta|MIT\n\
                    2b v2.0.0|ISC (*)\n";
        let contents = parse(text).unwrap();
        let of = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(contents.crates.len(), 4);
        assert_eq!(contents.crates[&of("b", "2.0.0")], "ISC");
        assert_eq!(contents.uses[&of("xlb", "0.1.0")], [of("a", "1.0.0"), of("c", "3.0.0+meta")].into());
        assert_eq!(contents.uses[&of("c", "3.0.0+meta")], [of("b", "2.0.0")].into());
        assert!(parse("0what is this\n").unwrap_err().to_string().contains("what is this"));
    }
}
