//! Compiles the agent into one static binary, of which nothing says where it was compiled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::arch::Arch;
use super::elf;
use super::stamp::Stamp;
use super::toolchain::Toolchain;
use crate::checkout::Checkout;
use crate::{build_ebpf, command, renames};

/// Where a binary is made, of what, and how.
pub struct Build<'a> {
    /// The folder with the sources.
    pub sources: &'a Path,
    /// All folders that the sources may lie in. What they are called is in the flags, so that the crates need not be compiled again
    /// for sources elsewhere.
    pub places: &'a [PathBuf],
    /// What cargo writes.
    pub target: &'a Path,
    /// For which processor.
    pub arch: Arch,
    /// `release`, or `dev` for tests.
    pub profile: &'a str,
}

impl Build<'_> {
    /// Compiles, and refuses what would not run on an empty base.
    pub fn run(&self, stamp: &Stamp) -> Result<Vec<u8>> {
        let toolchain = Toolchain::find(self.arch)?;
        eprintln!("compiling xlb for {} with {} ({})", self.arch.name(), toolchain.version, self.profile);
        let mut cargo = self.cargo(&toolchain, stamp)?;
        command::run(&mut cargo).with_context(|| format!("compiling a static xlb for {}", self.arch.name()))?;
        let path = self.path();
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut faults = elf::faults(&bytes, self.arch).with_context(|| format!("looking at {}", path.display()))?;
        faults.extend(self.traces(&bytes));
        if !faults.is_empty() {
            bail!("{} is no binary for an image:\n  {}", path.display(), faults.join("\n  "));
        }
        Ok(bytes)
    }

    fn path(&self) -> PathBuf {
        let folder = if self.profile == "dev" { "debug" } else { self.profile };
        self.target.join(self.arch.triple()).join(folder).join("xlb")
    }

    fn cargo(&self, toolchain: &Toolchain, stamp: &Stamp) -> Result<Command> {
        let triple = self.arch.triple();
        let mut cargo = Command::new(&toolchain.cargo);
        cargo.current_dir(self.sources).args(["build", "--locked", "-p", "xlb-userspace", "--bin", "xlb"]);
        cargo.args(["--profile", self.profile, "--target", triple]).args(command::quiet_unless_watched());
        if toolchain.builds_std {
            cargo.args(["-Z", "build-std=std,panic_unwind"]).env("RUSTC_BOOTSTRAP", "1");
        }
        for name in command::COMPILER_ENVIRONMENT.into_iter().chain(["CFLAGS"]) {
            cargo.env_remove(name);
        }
        let (underscored, shouted) = (triple.replace('-', "_"), triple.replace('-', "_").to_uppercase());
        let renames = renames::all(&toolchain.rustc, self.places)?;
        let cflags: Vec<String> = renames.iter().map(|rename| format!("-ffile-prefix-map={rename}")).collect();
        cargo
            .env("RUSTC", &toolchain.rustc)
            .env("CARGO_TARGET_DIR", self.target)
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags(toolchain)?.join("\u{1f}"))
            .env(format!("CARGO_TARGET_{shouted}_LINKER"), toolchain.cc)
            .env(format!("CC_{underscored}"), toolchain.cc)
            .env(format!("CFLAGS_{underscored}"), cflags.join(" "))
            // Of the profiles this is what costs bytes and brings no check.
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CARGO_PROFILE_DEV_STRIP", "symbols")
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            .env("XLB_COMMIT", stamp.short());
        // rustup's proxies would replace a rustc that is named by its path.
        if toolchain.rustc.is_absolute() {
            cargo.env_remove("RUSTUP_TOOLCHAIN");
        }
        Ok(cargo)
    }

    fn rustflags(&self, toolchain: &Toolchain) -> Result<Vec<String>> {
        let static_linking = std::iter::once("-Ctarget-feature=+crt-static".to_owned());
        Ok(static_linking.chain(renames::flags(&toolchain.rustc, self.places)?).collect())
    }

    /// Folders of this machine that the binary names all the same.
    fn traces(&self, bytes: &[u8]) -> Vec<String> {
        let home = renames::cargo_home().ok();
        let folders = self.places.iter().chain(&home).map(|folder| folder.to_string_lossy().into_owned());
        let named = folders.filter(|folder| holds(bytes, folder.as_bytes()));
        named.map(|folder| format!("it names {folder}, which is on one machine only")).collect()
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The sources as a second copy: what git tracks or would add, and the kernel programs.
pub fn copy_sources(checkout: &Checkout, to: &Path) -> Result<()> {
    let root = checkout.root();
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("removing {}", to.display()))?;
    }
    let objects = build_ebpf::EMBEDDED.map(|name| checkout.bpf_objects().join(name));
    let objects = objects.iter().map(|object| object.strip_prefix(root).unwrap_or(object).to_owned());
    let tracked = crate::tidy::files(root)?;
    for path in tracked.iter().map(PathBuf::from).chain(objects) {
        let (from, to) = (root.join(&path), to.join(&path));
        // Deleted, and not committed yet.
        if !from.exists() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(&to))
            .and_then(|()| fs::copy(&from, &to))
            .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}
