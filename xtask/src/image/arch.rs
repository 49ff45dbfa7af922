//! The processors that an image is for.

use clap::ValueEnum;

/// A processor, by the name that images and Kubernetes have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Arch {
    /// x86-64
    Amd64,
    /// arm64, which Rust calls aarch64
    Arm64,
}

impl Arch {
    /// The processor of this machine.
    pub fn of_this_machine() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// The name in an image's configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's name of it, with glibc.
    pub const fn triple(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The number of it in an ELF file.
    pub fn elf_machine(self) -> u16 {
        match self {
            Self::Amd64 => object::elf::EM_X86_64,
            Self::Arm64 => object::elf::EM_AARCH64,
        }
    }

    /// The C compiler that makes programs for it: the usual one on such a machine, Debian's cross compiler elsewhere.
    pub fn c_compiler(self) -> &'static str {
        match self {
            this if this == Self::of_this_machine() => "cc",
            Self::Amd64 => "x86_64-linux-gnu-gcc",
            Self::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// Debian's packages that compile for it: the C compiler with its library, and Rust's library as sources.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            this if this == Self::of_this_machine() => &["gcc", "libc6-dev"],
            Self::Amd64 => &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross", "rustc-web", "cargo-web", "rust-web-src"],
            Self::Arm64 => {
                &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "rustc-web", "cargo-web", "rust-web-src"]
            }
        }
    }

    /// Debian's package of the C library that becomes part of the binary.
    pub fn libc_package(self) -> &'static str {
        match self {
            this if this == Self::of_this_machine() => "libc6-dev",
            Self::Amd64 => "libc6-dev-amd64-cross",
            Self::Arm64 => "libc6-dev-arm64-cross",
        }
    }
}
