//! Says plainly what is missing when the kernel programs have not been built.

use std::path::Path;

fn main() {
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/xlb-ebpf.o");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed=build.rs");
    if !object.exists() {
        println!("cargo::error=the kernel programs are not built: run `cargo xtask build-ebpf` first");
    }
}
