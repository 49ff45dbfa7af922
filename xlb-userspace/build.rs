//! Says plainly what is missing when the kernel programs have not been built.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["xlb-ebpf.o", "xlb-watch.o"] {
        let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf").join(name);
        println!("cargo::rerun-if-changed={}", object.display());
        if !object.exists() {
            println!("cargo::error=the kernel programs are not built: run `cargo xtask build-ebpf` first");
        }
    }
}
