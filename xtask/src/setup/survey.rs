//! What has to be there, and whether it is.

use std::fmt;

use crate::build_ebpf::{Compiler, Linker};
use crate::checkout::Checkout;
use crate::command;

/// Programs that the lab and the demo run, and Debian's packages of them. One has a path, as its package puts it outside of PATH.
const LAB_PROGRAMS: [(&str, &[&str]); 18] = [
    ("ip", &["iproute2"]),
    ("nft", &["nftables"]),
    ("iptables-restore", &["iptables"]),
    ("ethtool", &["ethtool"]),
    ("curl", &["curl"]),
    ("nginx", &["nginx-light"]),
    ("dnsmasq", &["dnsmasq-base"]),
    ("dig", &["bind9-dnsutils"]),
    ("nsenter", &["util-linux"]),
    ("setpriv", &["util-linux"]),
    ("ping", &["iputils-ping"]),
    ("iperf3", &["iperf3"]),
    ("tracepath", &["iputils-tracepath"]),
    ("traceroute", &["traceroute"]),
    ("socat", &["socat"]),
    ("strace", &["strace"]),
    // It looks at the unit of deploy/, and starts nothing.
    ("systemd-analyze", &["systemd"]),
    ("/usr/lib/usrsctp/tsctp", &["libusrsctp-examples"]),
];

/// Debian's compiler for the kernel programs.
const COMPILER_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// What compiling bpf-linker needs, and running it.
const LINKER_PACKAGES: &[&str] = &["llvm-22-dev", "zlib1g-dev", "libzstd-dev"];

/// One thing that building or testing needs.
pub struct Item {
    /// What it is called.
    pub name: &'static str,
    /// Whether it is there.
    pub is_found: bool,
    /// The Debian packages that bring it.
    pub packages: &'static [&'static str],
    /// Whether it is bpf-linker, which also has to be compiled.
    pub is_linker: bool,
}

/// Everything that building and testing need.
pub fn all(checkout: &Checkout) -> Vec<Item> {
    let compiler = Item {
        name: "compiler for BPF",
        is_found: Compiler::find().is_ok(),
        packages: COMPILER_PACKAGES,
        is_linker: false,
    };
    let linker = Item {
        name: "bpf-linker",
        is_found: Linker::find(checkout).is_ok(),
        packages: LINKER_PACKAGES,
        is_linker: true,
    };
    let programs = LAB_PROGRAMS.into_iter().map(|(name, packages)| Item {
        name,
        is_found: command::find_program(name).is_some(),
        packages,
        is_linker: false,
    });
    // Of libFuzzer, which is C++.
    let cxx = Item {
        name: "C++ compiler",
        is_found: command::find_program("c++").is_some(),
        packages: &["g++"],
        is_linker: false,
    };
    [compiler, linker, cxx].into_iter().chain(programs).collect()
}

/// What draws the agent's page: large, and so only there for those who test it.
pub fn browser() -> Item {
    Item {
        name: "chromium",
        is_found: command::find_program("chromium").is_some(),
        packages: &["chromium", "fonts-dejavu-core"],
        is_linker: false,
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_found {
            return write!(f, "found    {}", self.name);
        }
        write!(f, "missing  {}: apt-get install {}", self.name, self.packages.join(" "))?;
        if self.is_linker {
            write!(f, ", then `cargo install` into target/tools")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_installs_a_missing_item() {
        let item = Item { name: "nft", is_found: false, packages: &["nftables"], is_linker: false };
        assert_eq!(item.to_string(), "missing  nft: apt-get install nftables");
        assert_eq!(Item { is_found: true, ..item }.to_string(), "found    nft");
    }
}
