//! Where things are in the checkout.

use std::path::{Path, PathBuf};

/// The checkout that this xtask was compiled from.
pub struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout around xtask's own manifest.
    pub fn here() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: manifest.parent().unwrap_or(manifest).to_owned() }
    }

    /// The folder of the workspace.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What cargo writes for the host, whatever `CARGO_TARGET_DIR` says: tests look for the `xlb` binary there.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Tools of a pinned version, such as bpf-linker.
    pub fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// What cargo writes for BPF: a folder of its own, because another compiler writes it.
    pub fn bpf_build(&self) -> PathBuf {
        self.target().join("bpf-build")
    }

    /// What `cargo xtask fuzz` compiles, begins with and finds: a folder of its own, because it has other flags.
    pub fn fuzz(&self) -> PathBuf {
        self.target().join("fuzz")
    }

    /// The BPF objects that the agent, the tests and the benchmarks load.
    pub fn bpf_objects(&self) -> PathBuf {
        self.target().join("bpf")
    }
}
