//! What `xlb --version` says, and what it says elsewhere of itself.

use std::sync::LazyLock;

use xlb_common::abi::ABI_VERSION;

/// The version alone.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit, if the build was told: `XLB_COMMIT=$(git rev-parse --short HEAD) cargo build`.
pub const COMMIT: Option<&str> = option_env!("XLB_COMMIT");

/// Version, map ABI and commit: `0.1.0 (map ABI 8, commit 1a2b3c4)`.
#[must_use]
pub fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| describe(VERSION, ABI_VERSION, COMMIT));
    &LONG
}

fn describe(version: &str, abi: u32, commit: Option<&str>) -> String {
    let commit = commit.filter(|commit| !commit.is_empty()).map(|commit| format!(", commit {commit}"));
    format!("{version} (map ABI {abi}{})", commit.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_names_the_map_abi_and_the_commit_of_its_build() {
        assert_eq!(describe("1.2.3", 8, None), "1.2.3 (map ABI 8)");
        assert_eq!(describe("1.2.3", 8, Some("1a2b3c4")), "1.2.3 (map ABI 8, commit 1a2b3c4)");
        assert_eq!(describe("1.2.3", 8, Some("")), "1.2.3 (map ABI 8)", "an image build that knows none");
    }
}
