//! Runs the groups of tests one after the other, and adds up what their binaries report.

mod tally;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::checkout::Checkout;
use crate::image::{Arch, Wanted};
use crate::{build_ebpf, command, fuzz, image, programs, setup};
use tally::Tally;

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Logic, without a kernel [1 min cold, then seconds]
    Host,
    /// The programs in this kernel, by BPF_PROG_TEST_RUN [1 min; root]
    Kernel,
    /// Whole clusters of network namespaces [minutes; root]
    Lab,
    /// The agent's page in a headless Chromium, which is installed if it is missing: 300 MB [1 min; root]
    Browser,
    /// Packets that coverage leads to, for 20 s [1 min cold]
    Fuzz,
    /// Cases of a scenario file, a line for each, in memory and, as root, in this kernel [1 min; not part of all: the file lies elsewhere]
    Scenarios,
    /// host, kernel, lab, browser and fuzz
    All,
}

/// In one run, and with xlb-tests as in the other groups: so cargo chooses one set of features for each dependency, and
/// compiles it, and the agent, once for all groups. Conventions are a test of xtask, `node` is one of xlb-userspace. Of xlb-tests, the
/// helpers of the lab have logic of their own; `path`, `linear`, `malformed` and `fragments` are the packet path without a
/// kernel, `scenarios` the runner of scenario files, `cli_page` the pages about commands. Examples in documentation would need a run of their own: there are none.
const HOST: [&str; 44] = [
    "-p",
    "xlb-common",
    "-p",
    "xlb-userspace",
    "-p",
    "xtask",
    "-p",
    "xlb-tests",
    "--all-features",
    "--lib",
    "--bin",
    "xlb",
    "--bin",
    "xtask",
    "--test",
    "node",
    "--test",
    "path",
    "--test",
    "linear",
    "--test",
    "malformed",
    "--test",
    "fragments",
    "--test",
    "clients",
    "--test",
    "docs",
    "--test",
    "openmetrics",
    "--test",
    "alerts",
    "--test",
    "scenarios",
    "--test",
    "api_server",
    "--test",
    "kube_source",
    "--test",
    "sim",
    "--test",
    "deploy",
    "--test",
    "cli_page",
];

const KERNEL: [&str; 14] = [
    "-p",
    "xlb-tests",
    "--test",
    "kernel",
    "--test",
    "service_stats",
    "--test",
    "kernel_fragments",
    "--test",
    "kernel_malformed",
    "--test",
    "kernel_lru",
    "--test",
    "kernel_ageing",
];

/// `lab_selftest` are the tests of the lab itself.
const LAB: [&str; 16] = [
    "-p",
    "xlb-tests",
    "--test",
    "lab",
    "--test",
    "programs",
    "--test",
    "refusals",
    "--test",
    "inside",
    "--test",
    "agent",
    "--test",
    "load",
    "--test",
    "lab_selftest",
];

const BROWSER: [&str; 4] = ["-p", "xlb-tests", "--test", "browser"];

/// How long each target of the fuzzer runs.
const FUZZ_S: u32 = 10;

/// Prepares, runs the groups, and prints the sum as the last line.
pub fn run(checkout: &Checkout, group: Group, args: &[String]) -> ExitCode {
    let sum = match prepare(checkout) {
        Ok(()) => group.parts().iter().map(|part| part.run(checkout, args)).sum(),
        Err(error) => Tally::of_error(&error),
    };
    println!("{sum}");
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prepare(checkout: &Checkout) -> Result<()> {
    heading("prepare");
    setup::install(checkout)?;
    build_ebpf::build(checkout)
}

impl Group {
    fn parts(self) -> &'static [Self] {
        match self {
            Self::Host => &[Self::Host],
            Self::Kernel => &[Self::Kernel],
            Self::Lab => &[Self::Lab],
            Self::Browser => &[Self::Browser],
            Self::Fuzz => &[Self::Fuzz],
            // They have a command of their own: `programs::scenarios`.
            Self::Scenarios => &[],
            Self::All => &[Self::Host, Self::Kernel, Self::Lab, Self::Browser, Self::Fuzz],
        }
    }

    fn run(self, checkout: &Checkout, args: &[String]) -> Tally {
        heading(&format!("{self:?} tests").to_lowercase());
        match self {
            Self::Host => cargo_test(checkout, &HOST, args),
            Self::Kernel => {
                as_root(self).map_or_else(|error| Tally::of_error(&error), |()| cargo_test(checkout, &KERNEL, args))
            }
            Self::Lab => as_root(self)
                .and_then(|()| programs::build_agent(checkout))
                .and_then(|()| image::make(checkout, &Wanted::for_tests()).map(drop))
                .map_or_else(|error| Tally::of_error(&error), |()| lab(checkout, args)),
            Self::Browser => as_root(self)
                .and_then(|()| setup::install_browser())
                .and_then(|()| programs::build_agent(checkout))
                .map_or_else(|error| Tally::of_error(&error), |()| cargo_test(checkout, &BROWSER, args)),
            Self::Fuzz => Tally::of_step(fuzz::run(checkout, None, FUZZ_S)),
            Self::All | Self::Scenarios => self.parts().iter().map(|part| part.run(checkout, args)).sum(),
        }
    }
}

/// Whoever names tests asks for these alone.
fn lab(checkout: &Checkout, args: &[String]) -> Tally {
    let tests = cargo_test(checkout, &LAB, args);
    if !args.is_empty() {
        return tests;
    }
    heading("the image once more, from another folder");
    let profile = Wanted::for_tests().profile;
    tests + Tally::of_step(image::prove(checkout, Arch::of_this_machine(), &profile, false))
}

fn as_root(group: Group) -> Result<()> {
    ensure!(command::is_root(), "the {group:?} tests need root: sudo -E env \"PATH=$PATH\" cargo xtask test {group:?}");
    Ok(())
}

/// Compiles first, so that a build nobody watches stays quiet while the names of the tests are shown.
fn cargo_test(checkout: &Checkout, selection: &[&str], args: &[String]) -> Tally {
    if let Some(quiet) = command::quiet_unless_watched() {
        eprintln!("compiling {}", selection.join(" "));
        let mut build = cargo_test_command(checkout, selection);
        if let Err(error) = command::run(build.args([quiet, "--no-run"])) {
            return Tally::of_error(&error);
        }
    }
    let mut command = cargo_test_command(checkout, selection);
    command.args(["--no-fail-fast", "--"]).args(args);
    tally::of_run(&mut command, std::io::stdout())
        .context("running the tests")
        .unwrap_or_else(|error| Tally::of_error(&error))
}

fn cargo_test_command(checkout: &Checkout, selection: &[&str]) -> Command {
    let mut command = command::cargo(checkout, "test");
    command.args(selection);
    command
}

fn heading(title: &str) {
    println!("\n== {title}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_every_other_group_of_the_checkout_in_order() {
        let is_other = |group: &Group| ![Group::All, Group::Scenarios].contains(group);
        let others: Vec<Group> = Group::value_variants().iter().copied().filter(is_other).collect();
        assert_eq!(Group::All.parts(), others);
    }
}
