//! Where the crates come from, which ones must not come back, and which are in the binary twice.

use std::collections::BTreeMap;

use super::contents::{Contents, Crate};
use super::lock::Locked;

/// Cargo's name of crates.io.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates that the binary does without, and what it has instead. Tests may bring them.
const BANNED: [(&str, &str); 5] = [
    ("openssl-sys", "TLS is rustls with ring: a static binary has no system library to follow"),
    ("native-tls", "TLS is rustls with ring"),
    ("aws-lc-sys", "one implementation of cryptography is enough: ring"),
    ("chrono", "times are jiff's, which kube brings"),
    ("serde_yaml", "it is not maintained: serde_yaml_ng"),
];

/// Crates of which the binary has more than one version, with the reason.
const TWICE: [(&str, &str); 1] =
    [("base64", "0.22 is k8s-openapi's, 0.23 kube's: it goes when k8s-openapi takes the newer one")];

/// A sentence for each package from elsewhere, and each of the binary that is banned or there twice.
pub fn faults(locked: &[Locked], in_binary: &Contents) -> Vec<String> {
    let foreign = locked.iter().filter_map(foreign);
    let banned = in_binary.crates.keys().filter_map(banned);
    foreign.chain(banned).chain(twice(in_binary)).collect()
}

/// What was looked at, and what was not.
pub fn looked_at(locked: &[Locked]) -> String {
    let foreign = locked.iter().filter(|package| package.source.is_some()).count();
    format!(
        "sources: {foreign} packages of Cargo.lock, with their hashes; not whether one was yanked since it was locked, which only the \
         registry knows"
    )
}

fn foreign(package: &Locked) -> Option<String> {
    let source = package.source.as_deref()?;
    let what = format!("{} {}", package.name, package.version);
    match (source == REGISTRY, &package.checksum) {
        (true, Some(_)) => None,
        (true, None) => {
            Some(format!("{what} has no hash in Cargo.lock: make the entry anew with `cargo update -p {what}`"))
        }
        (false, _) => Some(format!("{what} comes from {source}: xlb takes crates from crates.io only")),
    }
}

fn banned((found, version): &Crate) -> Option<String> {
    let (name, why) = BANNED.iter().find(|(name, _)| name == found)?;
    Some(format!("the binary has {name} {version}, which is banned: {why}; `cargo tree -i {name}` says who brings it"))
}

fn twice(contents: &Contents) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, version) in contents.crates.keys() {
        versions.entry(name).or_default().push(version);
    }
    let several =
        versions.into_iter().filter(|(name, all)| all.len() > 1 && !TWICE.iter().any(|(known, _)| known == name));
    let sentences = several.map(|(name, all)| {
        format!(
            "the binary has {name} in versions {}: bring them together, or write the reason into TWICE",
            all.join(", ")
        )
    });
    sentences.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_come_from_the_registry_with_a_hash() {
        let rows = [
            (Some(REGISTRY), Some("00"), None),
            (None, None, None),
            (Some(REGISTRY), None, Some("no hash")),
            (Some("git+https://example.org/a#1"), None, Some("git+https://example.org/a#1")),
        ];
        for (source, checksum, expected) in rows {
            let said = foreign(&package("a", source, checksum));
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }

    #[test]
    fn a_banned_crate_is_refused_with_what_there_is_instead() {
        let locked = [package("openssl-sys", Some(REGISTRY), Some("00"))];
        assert_eq!(faults(&locked, &Contents::default()), [""; 0], "of a test");
        let mut contents = Contents::default();
        contents.crates.insert(("openssl-sys".into(), "1.0.0".into()), "MIT".into());
        let said = faults(&locked, &contents);
        assert!(said.len() == 1 && said[0].contains("rustls") && said[0].contains("cargo tree -i"), "{said:?}");
    }

    #[test]
    fn a_second_version_in_the_binary_needs_a_reason() {
        let mut contents = Contents::default();
        for (name, version) in [("a", "1.0.0"), ("b", "1.0.0"), ("a", "2.0.0")] {
            contents.crates.insert((name.into(), version.into()), "MIT".into());
        }
        let said = faults(&[], &contents);
        assert!(said.len() == 1 && said[0].contains("a in versions 1.0.0, 2.0.0"), "{said:?}");
    }

    fn package(name: &str, source: Option<&str>, checksum: Option<&str>) -> Locked {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Locked { name: name.into(), version: "1.0.0".into(), source: owned(source), checksum: owned(checksum) }
    }
}
