//! What passed on this kernel passes again: an empty file says so until the node boots, and a restart loads its programs once
//! and not twice. Its name stands for all that a self-test depends on.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::maps::object::Globals;
use crate::maps::wanted::Wanted;

/// What tells kernels apart: the boot, and how the JIT is told to translate programs (in the first network namespace only).
const KERNEL: [&str; 3] =
    ["/proc/sys/kernel/random/boot_id", "/proc/sys/net/core/bpf_jit_enable", "/proc/sys/net/core/bpf_jit_harden"];

/// The file of one self-test.
pub struct Passed(PathBuf);

impl Passed {
    /// That of these programs on the running kernel.
    #[must_use]
    pub fn here(directory: &Path, object: &[u8], wanted: &Wanted, globals: Globals) -> Self {
        let kernel = KERNEL.map(|path| fs::read(path).unwrap_or_default());
        Self(directory.join(name(&kernel, object, wanted, globals)))
    }

    /// Whether it was passed.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.exists()
    }

    /// It is passed.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn note(&self) -> Result<()> {
        self.0.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&self.0, [])).with_context(|| {
            format!("noting in {} that the self-test was passed: the next start repeats it", self.0.display())
        })
    }
}

/// The node's own cookie is left out: programs only compare it.
fn name(kernel: &[Vec<u8>; 3], object: &[u8], wanted: &Wanted, globals: Globals) -> String {
    let mut hasher = DefaultHasher::new();
    kernel.hash(&mut hasher);
    object.hash(&mut hasher);
    wanted.of_packets().hash(&mut hasher);
    globals.counted_services.hash(&mut hasher);
    format!("self-test-{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::attach::FrontDoor;

    const GLOBALS: Globals = Globals { counted_services: 1_000, node_netns: 1 };

    fn kernel(boot: &str, jit: &str) -> [Vec<u8>; 3] {
        [boot, jit, "0"].map(|text| text.as_bytes().to_vec())
    }

    #[test]
    fn whatever_a_self_test_depends_on_makes_it_another_one() {
        let wanted = Wanted::of([FrontDoor::Tc], false);
        let usual = kernel("boot", "1");
        let names = [
            name(&usual, b"object", &wanted, GLOBALS),
            name(&kernel("other", "1"), b"object", &wanted, GLOBALS),
            name(&kernel("boot", "0"), b"object", &wanted, GLOBALS),
            name(&usual, b"Object", &wanted, GLOBALS),
            name(&usual, b"object", &Wanted::of([FrontDoor::XdpNative], false), GLOBALS),
            name(&usual, b"object", &wanted, Globals { counted_services: 0, ..GLOBALS }),
        ];
        let different: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        assert_eq!(names[0], name(&usual, b"object", &wanted, Globals { node_netns: 2, ..GLOBALS }));
    }

    #[test]
    fn what_was_noted_is_known_and_what_cannot_be_noted_names_its_file() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let wanted = Wanted::of([FrontDoor::Tc], false);
        let passed = Passed::here(&directory.path().join("xlb"), b"object", &wanted, GLOBALS);
        assert!(!passed.is_known());
        passed.note()?;
        assert!(passed.is_known());
        assert!(!Passed::here(&directory.path().join("xlb"), b"Object", &wanted, GLOBALS).is_known());
        fs::write(directory.path().join("file"), [])?;
        let error = Passed::here(&directory.path().join("file"), b"object", &wanted, GLOBALS).note();
        assert!(error.is_err_and(|error| format!("{error:#}").contains("/file/self-test-")));
        Ok(())
    }
}
