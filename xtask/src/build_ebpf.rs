//! Compiles the kernel programs and puts the objects where the rest of the workspace expects them.

mod inspect;

mod btf;

mod stack;

mod strip;

mod demands;

mod compiler;

mod linker;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::checkout::Checkout;
use crate::{command, renames};

pub use compiler::{Compiler, TARGET};
pub use linker::{LINKER_VERSION, Linker};

/// The binary of the package xlb-ebpf that nodes run, and its name under `target/bpf`.
const PRODUCTION: (&str, &str) = ("xlb-ebpf", "xlb-ebpf.o");

/// The binary that a node has while somebody watches.
const WATCH: (&str, &str) = ("xlb-watch-ebpf", "xlb-watch.o");

/// The binary that only the benchmarks load.
const BENCH: (&str, &str) = ("xlb-bench-ebpf", "xlb-bench.o");

/// The binary that makes floods for tests.
const FLOOD: (&str, &str) = ("xlb-flood-ebpf", "xlb-flood.o");

/// The binary of `bench pps`.
const PPS: (&str, &str) = ("xlb-pps-ebpf", "xlb-pps.o");

/// The objects that are a part of the agent's binary.
pub const EMBEDDED: [&str; 2] = [PRODUCTION.1, WATCH.1];

/// The workspace's release profile is made for the agent. These settings replace it for BPF: bpf-linker links and
/// optimises all bitcode at once, a program cannot unwind, and BTF is made of the debug information.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
];

/// Of the environment of the host's compiler, what would mislead this one beside [`command::COMPILER_ENVIRONMENT`].
const FOREIGN_ENVIRONMENT: [&str; 2] = ["RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"];

/// Compiles all objects, checks the production object, and publishes them under `target/bpf`.
pub fn build(checkout: &Checkout) -> Result<()> {
    let compiler = Compiler::find()?;
    let linker = Linker::find(checkout)?;
    linker.check_reads_bitcode_of(&compiler)?;
    eprintln!("building the kernel programs with {}: {}", compiler.rustc.display(), compiler.version);
    command::run(&mut cargo_build(checkout, &compiler, &linker)?).context("compiling xlb-ebpf")?;

    let built = checkout.bpf_build().join(TARGET).join("release");
    check(&built.join(PRODUCTION.0))?;
    for (binary, object) in [PRODUCTION, WATCH, BENCH, FLOOD, PPS] {
        publish(&finished(&built.join(binary))?, &checkout.bpf_objects().join(object))?;
    }
    Ok(())
}

fn cargo_build(checkout: &Checkout, compiler: &Compiler, linker: &Linker) -> Result<Command> {
    let mut cargo = Command::new(&compiler.cargo);
    cargo.current_dir(checkout.root()).args(["build", "--quiet", "--release", "-p", "xlb-ebpf", "--target", TARGET]);
    if compiler.needs_build_std {
        cargo.args(["-Z", "build-std=core"]);
    }
    // Lines of the sources are part of the object.
    let renames = renames::flags(&compiler.rustc, &[checkout.root().to_owned()])?;
    let rustflags: Vec<String> = rustflags(linker).into_iter().chain(renames).collect();
    for name in FOREIGN_ENVIRONMENT.into_iter().chain(command::COMPILER_ENVIRONMENT) {
        cargo.env_remove(name);
    }
    cargo
        .envs(PROFILE)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", checkout.bpf_build())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\u{1f}"));
    Ok(cargo)
}

/// The processor goes through rustc, which hands its own `--cpu` to the linker and so rules out a second one.
///
/// LLVM 22 also offers `+allows-misaligned-mem-access`. It stays off: LLVM then joins accesses to the stack and to the
/// context as well, and the verifier refuses those ("misaligned stack access", "invalid bpf_context access").
fn rustflags(linker: &Linker) -> [String; 4] {
    [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Ctarget-cpu=v3".to_owned(),
        format!("-Clinker={}", linker.path.display()),
        "-Clink-arg=--btf".to_owned(),
    ]
}

fn check(object: &Path) -> Result<()> {
    let bytes = fs::read(object).with_context(|| format!("reading {}", object.display()))?;
    let mut faults = inspect::faults(&bytes).with_context(|| format!("inspecting {}", object.display()))?;
    faults.extend(stack::faults(&bytes).with_context(|| format!("measuring the stack of {}", object.display()))?);
    faults.extend(demands::faults(&bytes).with_context(|| format!("reading what {} demands", object.display()))?);
    if !faults.is_empty() {
        bail!("{} is refused:\n  {}", object.display(), faults.join("\n  "));
    }
    Ok(())
}

/// What loaders take: with types as they should be, and without debug information.
fn finished(object: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(object).with_context(|| format!("reading {}", object.display()))?;
    btf::repair(&mut bytes).with_context(|| format!("repairing the types of {}", object.display()))?;
    strip::strip(&bytes).with_context(|| format!("stripping {}", object.display()))
}

/// Writes by renaming, so that no reader sees half an object, and only when the bytes differ, so that cargo does not
/// rebuild what embeds the object.
fn publish(bytes: &[u8], object: &Path) -> Result<()> {
    if fs::read(object).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let temporary = object.with_extension(format!("o.{}", std::process::id()));
    let folder = object.parent().context("an object without a folder")?;
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, object))
        .with_context(|| format!("writing {}", object.display()))?;
    eprintln!("wrote {} ({} bytes)", object.display(), bytes.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_the_same_bytes_leaves_the_object_alone() {
        let folder = std::env::temp_dir().join(format!("xlb-publish-{}", std::process::id()));
        let object = folder.join("out/object.o");

        publish(b"one", &object).unwrap();
        let first = fs::metadata(&object).unwrap().modified().unwrap();
        publish(b"one", &object).unwrap();
        assert_eq!(fs::metadata(&object).unwrap().modified().unwrap(), first);

        publish(b"two", &object).unwrap();
        assert_eq!(fs::read(&object).unwrap(), b"two");
        assert_eq!(fs::read_dir(object.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
