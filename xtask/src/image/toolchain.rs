//! Finds what compiles a static binary: a Rust compiler with the target's standard library, or with its sources, and a C compiler.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::arch::Arch;
use crate::command;

/// Debian's compiler, whose library for other processors comes as sources (`rust-web-src`).
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A Rust compiler, the cargo that goes with it, and where the standard library comes from.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The path of cargo.
    pub cargo: PathBuf,
    /// The path of rustc.
    pub rustc: PathBuf,
    /// What rustc calls itself: `rustc 1.96.0`.
    pub version: String,
    /// Whether the standard library has to be compiled first.
    pub builds_std: bool,
    /// The C compiler, which also links.
    pub cc: &'static str,
}

impl Toolchain {
    /// The first of: the compiler that compiled xtask, Debian's; first those that have the target's library.
    pub fn find(arch: Arch) -> Result<Self> {
        let cc = arch.c_compiler();
        if command::find_program(cc).is_none() {
            bail!("there is no C compiler {cc} for {}: {}", arch.name(), advice(arch));
        }
        let found = candidates().into_iter().filter_map(|(rustc, cargo)| Self::with(rustc, cargo, arch));
        let (compiled, sources): (Vec<Self>, Vec<Self>) = found.partition(|found| !found.builds_std);
        match compiled.into_iter().chain(sources).next() {
            Some(found) => Ok(found),
            None => bail!("no Rust compiler here has a standard library for {}: {}", arch.triple(), advice(arch)),
        }
    }

    fn with(rustc: PathBuf, cargo: PathBuf, arch: Arch) -> Option<Self> {
        let version = command::stdout_of(&rustc, &["--version"])?;
        let builds_std = !has_std(&rustc, arch.triple());
        if builds_std && !has_sources(&rustc) {
            return None;
        }
        let version = version.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Some(Self { cargo, rustc, version, builds_std, cc: arch.c_compiler() })
    }
}

fn candidates() -> [(PathBuf, PathBuf); 2] {
    let of = |variable: &str, usual: &str| PathBuf::from(std::env::var_os(variable).unwrap_or(OsString::from(usual)));
    let debian = Path::new(DEBIAN_RUSTC);
    [(of("RUSTC", "rustc"), of("CARGO", "cargo")), (debian.to_owned(), debian.with_file_name("cargo"))]
}

fn advice(arch: Arch) -> String {
    format!(
        "on Debian 12 `apt-get install --no-install-recommends {}`; with rustup, `rustup target add {}` and the C compiler alone",
        arch.packages().join(" "),
        arch.triple()
    )
}

fn has_std(rustc: &Path, triple: &str) -> bool {
    let Some(folder) = command::stdout_of(rustc, &["--print", "target-libdir", "--target", triple]) else {
        return false;
    };
    let Ok(files) = std::fs::read_dir(folder.trim()) else { return false };
    files.flatten().any(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

fn has_sources(rustc: &Path) -> bool {
    command::stdout_of(rustc, &["--print", "sysroot"])
        .is_some_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/std").is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_its_own_processor_needs() {
        let found = Toolchain::find(Arch::of_this_machine()).unwrap();
        assert!(found.version.starts_with("rustc ") && !found.builds_std, "{found:?}");
    }

    #[test]
    fn what_is_missing_is_said_with_the_packages_that_bring_it() {
        let said = advice(Arch::Arm64);
        for part in ["apt-get install", "libc6-dev", "rustup target add aarch64-unknown-linux-gnu"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
