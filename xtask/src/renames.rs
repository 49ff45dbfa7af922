//! What folders of this machine are called in what compilers write, so that the same sources give the same bytes elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::command;

/// What the checkout is called, the folder of crates, and that of the compiler.
const CHECKOUT: &str = "/xlb";
const CRATES: &str = "/crates";
const COMPILER: &str = "/rust";

/// Each folder and what it is called instead, as `FROM=TO`; the last one that fits counts.
pub fn all(rustc: &Path, places: &[PathBuf]) -> Result<Vec<String>> {
    let sysroot = command::stdout_of(rustc, &["--print", "sysroot"]).map(|path| PathBuf::from(path.trim()));
    let mut renames: Vec<String> = sysroot.iter().map(|from| format!("{}={COMPILER}", from.display())).collect();
    // Debian has the library's sources elsewhere, and links to them.
    let sources = sysroot.and_then(|sysroot| sysroot.join("lib/rustlib/src/rust").canonicalize().ok());
    renames.extend(sources.map(|sources| format!("{}={COMPILER}/lib/rustlib/src/rust", sources.display())));
    renames.extend(places.iter().map(|place| format!("{}={CHECKOUT}", place.display())));
    let registries = cargo_home()?.join("registry/src");
    let mut registries: Vec<PathBuf> =
        fs::read_dir(registries).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    registries.sort();
    renames.extend(registries.iter().map(|from| format!("{}={CRATES}", from.display())));
    Ok(renames)
}

/// The same as flags of rustc.
pub fn flags(rustc: &Path, places: &[PathBuf]) -> Result<Vec<String>> {
    Ok(all(rustc, places)?.iter().map(|rename| format!("--remap-path-prefix={rename}")).collect())
}

/// Where cargo keeps crates.
pub fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::var_os("HOME").context("finding cargo's folder: neither CARGO_HOME nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_the_crates_and_the_compiler_have_names_that_are_the_same_everywhere() {
        let renames = all(Path::new("rustc"), &[PathBuf::from("/somewhere/checkout")]).unwrap();
        assert!(renames.contains(&"/somewhere/checkout=/xlb".to_owned()), "{renames:?}");
        for name in ["/rust", "/crates"] {
            assert!(renames.iter().any(|rename| rename.ends_with(&format!("={name}"))), "{renames:?}");
        }
    }
}
