//! Finds a compiler for the kernel programs: one that takes unstable features and has a `core` for BPF.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The target of the kernel programs.
pub const TARGET: &str = "bpfel-unknown-none";

/// Names a rustc to use before all others.
const RUSTC_OVERRIDE: &str = "XLB_BPF_RUSTC";

/// Names the cargo that goes with it. Without it, the cargo beside that rustc is taken.
const CARGO_OVERRIDE: &str = "XLB_BPF_CARGO";

/// Where Debian's compiler is, which has packages of `core` for BPF. A rustup comes before it on PATH.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A rustc that can compile the kernel programs, and the cargo to drive it.
pub struct Compiler {
    /// The path of rustc.
    pub rustc: PathBuf,
    /// The path of cargo.
    pub cargo: PathBuf,
    /// Whether `core` has to be compiled first, from the sources beside the compiler.
    pub needs_build_std: bool,
    /// What rustc calls itself: `rustc 1.96.0`.
    pub version: String,
    /// The major version of its LLVM.
    pub llvm: u32,
}

impl Compiler {
    /// The first of: the override, Debian's rustc, a rustup nightly.
    pub fn find() -> Result<Self> {
        if let Some(rustc) = std::env::var_os(RUSTC_OVERRIDE) {
            let cargo = std::env::var_os(CARGO_OVERRIDE).map(PathBuf::from);
            let rustc = PathBuf::from(rustc);
            return Self::with(&rustc, cargo).with_context(|| {
                format!("{RUSTC_OVERRIDE}={}: no rustc with a core or rust-src for {TARGET}", rustc.display())
            });
        }
        if let Some(debian) = Self::with(Path::new(DEBIAN_RUSTC), None).filter(|found| !found.needs_build_std) {
            return Ok(debian);
        }
        if let Some(nightly) = nightly_rustc().and_then(|rustc| Self::with(&rustc, None)) {
            return Ok(nightly);
        }
        bail!(
            "no compiler for {TARGET}: on Debian 12 install `rustc-web cargo-web libstd-rust-web-dev-bpf`, elsewhere \
             `rustup toolchain install nightly --component rust-src`; `cargo xtask setup` does the first"
        )
    }

    fn with(rustc: &Path, cargo: Option<PathBuf>) -> Option<Self> {
        let verbose = command::stdout_of(rustc, &["-vV"])?;
        let needs_build_std = !has_core(rustc);
        if needs_build_std && !has_sources(rustc) {
            return None;
        }
        Some(Self {
            rustc: rustc.to_owned(),
            cargo: cargo.unwrap_or_else(|| rustc.with_file_name("cargo")),
            needs_build_std,
            version: verbose.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
            llvm: major_after(&verbose, "LLVM version")?,
        })
    }
}

/// The major version behind a label such as `LLVM version: 22.1.8` or `Debian LLVM version 22.1.8`.
pub fn major_after(text: &str, label: &str) -> Option<u32> {
    let (_, behind) = text.split_once(label)?;
    behind.trim_start_matches([':', ' ']).split('.').next()?.parse().ok()
}

fn has_core(rustc: &Path) -> bool {
    let Some(folder) = command::stdout_of(rustc, &["--print", "target-libdir", "--target", TARGET]) else {
        return false;
    };
    let Ok(files) = std::fs::read_dir(folder.trim()) else { return false };
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
}

fn has_sources(rustc: &Path) -> bool {
    command::stdout_of(rustc, &["--print", "sysroot"])
        .is_some_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir())
}

fn nightly_rustc() -> Option<PathBuf> {
    let path = command::stdout_of("rustup", &["which", "--toolchain", "nightly", "rustc"])?;
    Some(PathBuf::from(path.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_version_is_read_from_rustc_and_from_bpf_linker() {
        assert_eq!(major_after("host: x\nLLVM version: 22.1.8\n", "LLVM version"), Some(22));
        assert_eq!(major_after("Debian LLVM version 21.0.1\n  Optimized", "LLVM version"), Some(21));
        assert_eq!(major_after("rustc 1.95", "LLVM version"), None);
    }
}
