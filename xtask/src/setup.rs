//! Finds what building and testing need, and installs what is missing.

mod survey;

mod debian;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::build_ebpf::{LINKER_VERSION, Linker};
use crate::checkout::Checkout;
use crate::command;
use survey::Item;

/// Debian's LLVM 22: bpf-linker is compiled against it and loads its library.
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22/bin";

/// Prints a line per item, and fails when one is missing.
pub fn check(checkout: &Checkout) -> Result<()> {
    let items = survey::all(checkout);
    for item in &items {
        println!("{item}");
    }
    match missing(items).len() {
        0 => Ok(()),
        count => bail!("{count} items are missing: `cargo xtask setup` installs them on Debian as root"),
    }
}

/// Installs what is missing where that is possible, else prints how to.
pub fn install(checkout: &Checkout) -> Result<()> {
    let absent = missing(survey::all(checkout));
    if absent.is_empty() {
        return Ok(());
    }
    if !debian::is_ours_to_change() {
        return ask_for(&absent);
    }
    debian::install(&packages(&absent))?;
    if Linker::find(checkout).is_err() {
        install_linker(checkout)?;
    }
    let left = missing(survey::all(checkout));
    if left.is_empty() { Ok(()) } else { ask_for(&left) }
}

/// Installs the browser that draws the agent's page, if it is missing and that is possible; else prints how to.
pub fn install_browser() -> Result<()> {
    let absent = missing(vec![survey::browser()]);
    if absent.is_empty() {
        return Ok(());
    }
    if !debian::is_ours_to_change() {
        return ask_for(&absent);
    }
    debian::install(&packages(&absent))?;
    let left = missing(vec![survey::browser()]);
    if left.is_empty() { Ok(()) } else { ask_for(&left) }
}

fn missing(items: Vec<Item>) -> Vec<Item> {
    items.into_iter().filter(|item| !item.is_found).collect()
}

/// Each package once, in the order of the items.
fn packages(items: &[Item]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for package in items.iter().flat_map(|item| item.packages) {
        if !packages.contains(package) {
            packages.push(*package);
        }
    }
    packages
}

/// Compiles bpf-linker with stable Rust. Its build finds LLVM by PATH and by nothing else.
fn install_linker(checkout: &Checkout) -> Result<()> {
    eprintln!("compiling bpf-linker {LINKER_VERSION} into {} (about a minute)", checkout.tools().display());
    let mut cargo = command::cargo(checkout, "install");
    cargo
        .args(linker_arguments())
        .arg("--root")
        .arg(checkout.tools())
        .env("PATH", command::path_with_first(Path::new(DEBIAN_LLVM))?)
        .env_remove("CARGO_TARGET_DIR");
    command::run_silently(&mut cargo)
}

fn linker_arguments() -> [&'static str; 8] {
    ["bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--no-default-features", "--features", "llvm-22"]
}

/// Prints the commands that a person has to type here.
fn ask_for(absent: &[Item]) -> Result<()> {
    for item in absent {
        println!("{item}");
    }
    println!("\nOn Debian 12, as root:\n  {}", shown(&debian::update()));
    println!("  {}", shown(&debian::installation(&packages(absent))));
    if absent.iter().any(|item| item.is_linker) {
        println!("  PATH={DEBIAN_LLVM}:$PATH cargo install {} --root target/tools", linker_arguments().join(" "));
    }
    println!("Elsewhere: the same tools from your distribution, and for the kernel programs");
    println!("  rustup toolchain install nightly --component rust-src");
    println!("  cargo binstall bpf-linker@{LINKER_VERSION}");
    bail!("{} items are missing", absent.len())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_installed_once() {
        let items = [item("ip", &["iproute2"]), item("tc", &["iproute2"]), item("nft", &["nftables"])];
        assert_eq!(packages(&items), ["iproute2", "nftables"]);
    }

    #[test]
    fn what_a_person_types_is_what_setup_runs() {
        let text = shown(&debian::installation(&["nftables", "curl"]));
        assert!(text.starts_with("apt-get") && text.ends_with("--no-install-recommends nftables curl"), "{text}");
    }

    fn item(name: &'static str, packages: &'static [&'static str]) -> Item {
        Item { name, is_found: false, packages, is_linker: false }
    }
}
