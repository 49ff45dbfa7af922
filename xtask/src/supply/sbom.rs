//! The bill of materials of a binary, as CycloneDX JSON: the crates that are compiled into it, by name, version, hash and licence,
//! the kernel programs' among them, and the compiler's and the C library that are linked in.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spdx::{Expression, ParseMode};

use super::contents::{Contents, Crate};
use super::lock::Locked;

/// What is linked in and is no crate.
pub struct Linked {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its package URL.
    pub purl: String,
    /// Its licence.
    pub licence: &'static str,
}

/// What the bill is of.
pub struct Subject<'a> {
    /// When it was made, in RFC 3339.
    pub created: &'a str,
    /// The version of xlb.
    pub version: &'a str,
    /// The commit.
    pub revision: &'a str,
    /// The processor that it runs on.
    pub arch: &'a str,
    /// The SHA-256 of the binary, in hex.
    pub sha256: &'a str,
}

/// Writes the bill.
pub fn write(subject: &Subject, contents: &Contents, linked: &[Linked], locked: &[Locked]) -> Result<Value> {
    let locked: BTreeMap<Crate, &Locked> =
        locked.iter().map(|package| ((package.name.clone(), package.version.clone()), package)).collect();
    let mut components = Vec::new();
    for (name, licence) in &contents.crates {
        let package = locked.get(name).with_context(|| format!("{} {} is not in Cargo.lock", name.0, name.1))?;
        components.push(component(package, licence));
    }
    components.extend(linked.iter().map(|linked| {
        json!({
            "type": "library",
            "bom-ref": linked.purl,
            "name": linked.name,
            "version": linked.version,
            "purl": linked.purl,
            "licenses": [{ "expression": linked.licence }],
        })
    }));
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": metadata(subject),
        "components": components,
        "dependencies": dependencies(subject, contents, linked),
    }))
}

fn metadata(subject: &Subject) -> Value {
    json!({
        "timestamp": subject.created,
        "tools": [{ "name": "cargo xtask image", "version": env!("CARGO_PKG_VERSION") }],
        "component": {
            "type": "application",
            "bom-ref": reference(subject),
            "name": "xlb",
            "version": subject.version,
            "hashes": [{ "alg": "SHA-256", "content": subject.sha256 }],
            "licenses": [{ "expression": env!("CARGO_PKG_LICENSE") }],
            "properties": [
                { "name": "xlb:revision", "value": subject.revision },
                { "name": "xlb:architecture", "value": subject.arch },
            ],
        },
    })
}

fn component(package: &Locked, licence: &str) -> Value {
    let purl = purl(&package.name, &package.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "licenses": [{ "expression": canonical(licence) }],
    });
    if let Some(checksum) = &package.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        // What is not in the registry is not to be looked up there.
        component["purl"] = json!(purl);
    }
    component
}

/// The whole is made of the agent and of the kernel programs, which nothing else uses.
fn dependencies(subject: &Subject, contents: &Contents, linked: &[Linked]) -> Vec<Value> {
    let used: Vec<&Crate> = contents.uses.values().flatten().collect();
    let roots = contents.crates.keys().filter(|name| !used.contains(name));
    let mut parts: Vec<String> = roots.map(|(name, version)| purl(name, version)).collect();
    parts.extend(linked.iter().map(|linked| linked.purl.clone()));
    let mut all = vec![json!({ "ref": reference(subject), "dependsOn": parts })];
    all.extend(contents.uses.iter().map(|((name, version), used)| {
        let used: Vec<String> = used.iter().map(|(name, version)| purl(name, version)).collect();
        json!({ "ref": purl(name, version), "dependsOn": used })
    }));
    all
}

fn reference(subject: &Subject) -> String {
    format!("xlb@{}", subject.version)
}

/// A plus, as of build metadata, is a blank in a URL.
fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// `MIT/Apache-2.0` is no SPDX expression any more.
fn canonical(licence: &str) -> String {
    match Expression::parse_mode(licence, ParseMode::STRICT) {
        Ok(_) => licence.to_owned(),
        Err(_) => Expression::canonicalize(licence).ok().flatten().unwrap_or_else(|| licence.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::checkout::Checkout;
    use crate::supply::{contents, lock, metadata};

    fn subject() -> Subject<'static> {
        Subject { created: "2023-11-14T22:13:20Z", version: "1.2.3", revision: "abc", arch: "amd64", sha256: HASH }
    }

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn bill() -> Value {
        let checkout = Checkout::here();
        let contents = contents::of_agent(&checkout, metadata::PLATFORM).unwrap();
        let libc = Linked {
            name: "glibc".into(),
            version: "2.36-9".into(),
            purl: "pkg:deb/debian/libc6-dev@2.36-9?arch=amd64".into(),
            licence: "LGPL-2.1-or-later",
        };
        write(&subject(), &contents, &[libc], &lock::read(&checkout).unwrap()).unwrap()
    }

    #[test]
    fn another_implementation_of_the_standard_finds_no_fault_with_it() {
        let text = bill().to_string();
        let read = cyclonedx_bom::prelude::Bom::parse_from_json(text.as_bytes()).unwrap();
        let version = cyclonedx_bom::models::bom::SpecVersion::V1_5;
        use cyclonedx_bom::validation::Validate as _;
        let result = read.validate_version(version);
        assert!(result.passed(), "{result:?}");
        let components = read.components.unwrap().0;
        assert!(components.iter().any(|component| component.name.to_string() == "ring"));
    }

    #[test]
    fn what_only_builds_or_tests_is_not_in_the_binary() {
        let bill = bill();
        let names: BTreeSet<&str> =
            bill["components"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
        for name in ["kube-client", "rustls", "aya", "xlb-common", "xlb-ebpf", "aya-ebpf", "glibc"] {
            assert!(names.contains(name), "{name} is missing");
        }
        for name in ["proptest", "cc", "syn", "tempfile", "kube-runtime", "windows-sys", "xtask"] {
            assert!(!names.contains(name), "{name} is no part of it");
        }
    }

    #[test]
    fn every_reference_leads_to_a_component() {
        let bill = bill();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut known: BTreeSet<String> =
            list(&bill["components"]).iter().map(|one| one["bom-ref"].as_str().unwrap().to_owned()).collect();
        assert_eq!(known.len(), list(&bill["components"]).len(), "a reference is there twice");
        known.insert("xlb@1.2.3".into());
        for entry in list(&bill["dependencies"]) {
            for name in list(&entry["dependsOn"]).iter().chain([&entry["ref"]]) {
                assert!(known.contains(name.as_str().unwrap()), "{name}");
            }
        }
    }

    #[test]
    fn a_crate_has_its_hash_and_ours_have_none() {
        let bill = bill();
        for component in bill["components"].as_array().unwrap() {
            let is_ours = component["name"].as_str().unwrap().starts_with("xlb-");
            let is_crate = component["bom-ref"].as_str().unwrap().starts_with("pkg:cargo/");
            assert_eq!(component["hashes"].is_array(), is_crate && !is_ours, "{component}");
        }
    }

    #[test]
    fn licences_are_written_as_they_are_today() {
        assert_eq!(canonical("MIT/Apache-2.0"), "MIT OR Apache-2.0");
        assert_eq!(canonical("MIT AND ISC"), "MIT AND ISC");
    }
}
