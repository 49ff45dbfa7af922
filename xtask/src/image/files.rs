//! What an image holds beside the binary: what it is made of, under which licences, and how names are looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::arch::Arch;
use super::layer::File;
use super::oci::digest;
use super::stamp::Stamp;
use super::toolchain::Toolchain;
use crate::checkout::Checkout;
use crate::command;
use crate::supply::contents::{self, Contents};
use crate::supply::lock;
use crate::supply::metadata::{self, Package};
use crate::supply::sbom::{self, Linked, Subject};

/// Where all but the binary lies.
const FOLDER: &str = "usr/share/xlb";

/// Without this file glibc asks a name server first and reads /etc/hosts only when there is none.
const NSSWITCH: &str = "hosts: files dns\n";

/// How files are called that say what may be done with a crate.
const LICENCE_FILES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// All files of an image.
pub fn all(checkout: &Checkout, arch: Arch, stamp: &Stamp, binary: Vec<u8>) -> Result<Vec<File>> {
    let contents = contents::of_agent(checkout, arch.triple())?;
    let toolchain = Toolchain::find(arch)?;
    let hash = digest(&binary);
    let subject = Subject {
        created: &stamp.created,
        version: &stamp.version,
        revision: &stamp.revision,
        arch: arch.name(),
        sha256: hash.trim_start_matches("sha256:"),
    };
    let bill = sbom::write(&subject, &contents, &linked(&toolchain, arch), &lock::read(checkout)?)?;
    let bill = serde_json::to_vec_pretty(&bill).context("writing the bill of materials")?;
    let licences = licences(&metadata::read(checkout, arch.triple())?, &contents)?;
    let mut files = vec![
        File { path: "xlb".to_owned(), is_executable: true, bytes: binary },
        text("etc/nsswitch.conf", NSSWITCH.into()),
        text(&format!("{FOLDER}/sbom.cdx.json"), bill),
        text(&format!("{FOLDER}/licences.txt"), licences.into_bytes()),
    ];
    for name in ["LICENSE-MIT", "LICENSE-APACHE"] {
        let path = checkout.root().join(name);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        files.push(text(&format!("{FOLDER}/{name}"), bytes));
    }
    Ok(files)
}

fn text(path: &str, bytes: Vec<u8>) -> File {
    File { path: path.to_owned(), is_executable: false, bytes }
}

/// What is in the binary and is no crate. Whoever made the C library that is not Debian's has to be asked by hand.
fn linked(toolchain: &Toolchain, arch: Arch) -> Vec<Linked> {
    let version = toolchain.version.trim_start_matches("rustc ").to_owned();
    let std = Linked {
        name: "rust-std".to_owned(),
        purl: format!("pkg:generic/rust-std@{version}"),
        version,
        licence: "MIT OR Apache-2.0",
    };
    let package = arch.libc_package();
    let libc = command::stdout_of("dpkg-query", &["-W", "-f", "${Version}", package]).map(|version| Linked {
        name: "glibc".to_owned(),
        purl: format!("pkg:deb/debian/{package}@{}", version.replace('+', "%2B")),
        version,
        licence: "LGPL-2.1-or-later",
    });
    if libc.is_none() {
        eprintln!("warning: dpkg does not know {package}: the bill of materials has no version of the C library");
    }
    [Some(std), libc].into_iter().flatten().collect()
}

/// The texts by which the crates in the binary may be passed on, each once, under the crates that it is of.
fn licences(packages: &[Package], contents: &Contents) -> Result<String> {
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages {
        let key = (package.name.clone(), package.version.clone());
        let Some(licence) = contents.crates.get(&key).filter(|_| package.source.is_some()) else { continue };
        let title = format!("{} {} ({licence})", package.name, package.version);
        let folder = package.manifest_path.parent().unwrap_or(Path::new("/"));
        let found = licence_files(folder)?;
        // Some crates of a family leave the text to their sisters; the expression is what their authors say.
        if found.is_empty() {
            texts.entry(String::new()).or_default().insert(title.clone());
        }
        for text in found {
            texts.entry(text).or_default().insert(title.clone());
        }
    }
    ensure!(!texts.is_empty(), "no crate of the binary was found among the packages of the workspace");
    Ok(written(&texts))
}

fn licence_files(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        LICENCE_FILES.iter().any(|start| name.starts_with(start))
    });
    paths.sort();
    let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    paths.iter().map(|path| read(path).with_context(|| format!("reading {}", path.display()))).collect()
}

fn written(texts: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut all = String::from("What others wrote in xlb, and how it may be passed on.\n");
    for (text, titles) in texts {
        let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
        let text = if text.is_empty() { "(without a text of its own)" } else { text };
        let _ = write!(all, "\n{}\n{}\n\n{text}\n", "=".repeat(72), titles.join("\n"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_licence_text_is_there_once_with_all_its_crates() {
        let titles = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let texts = [("Do as you like.".to_owned(), titles(&["a 1", "b 2"])), (String::new(), titles(&["c 3"]))];
        let all = written(&texts.into());
        assert_eq!(all.matches("Do as you like.").count(), 1);
        assert!(all.contains("a 1\nb 2\n\nDo as you like.") && all.contains("c 3\n\n(without a text"), "{all}");
    }

    #[test]
    fn crates_that_ask_for_their_text_are_there_with_it() {
        let checkout = Checkout::here();
        let contents = contents::of_agent(&checkout, metadata::PLATFORM).unwrap();
        let all = licences(&metadata::read(&checkout, metadata::PLATFORM).unwrap(), &contents).unwrap();
        for part in ["\nring ", "\naya ", "\nsubtle ", "Permission is hereby granted", "Redistribution and use"] {
            assert!(all.contains(part), "{part:?} is missing");
        }
        assert!(!all.contains("\nproptest "), "a tool of tests is no part of the binary");
    }
}
