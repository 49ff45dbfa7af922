//! Finds bpf-linker in the pinned version.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::compiler::{Compiler, major_after};
use crate::checkout::Checkout;
use crate::command;

/// The version that is known to work with the rest of the toolchain.
pub const LINKER_VERSION: &str = "0.13.0";

/// A bpf-linker of the pinned version.
pub struct Linker {
    /// Its absolute path.
    pub path: PathBuf,
}

impl Linker {
    /// The one under `target/tools`, else the one on PATH.
    pub fn find(checkout: &Checkout) -> Result<Self> {
        let own = checkout.tools().join("bin/bpf-linker");
        let candidates = [Some(own), command::find_program("bpf-linker")];
        candidates.into_iter().flatten().find(is_pinned).map(|path| Self { path }).with_context(|| {
            format!("no bpf-linker {LINKER_VERSION} under target/tools or on PATH: run `cargo xtask setup`")
        })
    }

    /// Bitcode is read by the same LLVM or a newer one: the error of an older one names neither version.
    pub fn check_reads_bitcode_of(&self, compiler: &Compiler) -> Result<()> {
        let Some(llvm) = self.llvm() else { return Ok(()) };
        if compiler.llvm > llvm {
            bail!(
                "{} writes bitcode of LLVM {}, which {} with LLVM {llvm} cannot read: take a bpf-linker with LLVM {} \
                 or an older compiler",
                compiler.rustc.display(),
                compiler.llvm,
                self.path.display(),
                compiler.llvm,
            );
        }
        Ok(())
    }

    /// bpf-linker's own `--version` does not tell its LLVM, but LLVM answers before any input is read.
    fn llvm(&self) -> Option<u32> {
        let args = ["--llvm-args=--version", "--output", "/dev/null", "/dev/null"];
        major_after(&command::stdout_of(&self.path, &args)?, "LLVM version")
    }
}

/// Running it also shows that its LLVM library is there.
fn is_pinned(path: &PathBuf) -> bool {
    command::stdout_of(path, &["--version"])
        .is_some_and(|version| version.trim() == format!("bpf-linker {LINKER_VERSION}"))
}
