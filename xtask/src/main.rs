//! The developer commands of xlb. `cargo xtask --help` is the manual.

mod setup;

mod build_ebpf;

mod test;

mod programs;

mod fuzz;

mod image;

mod supply;

mod release;

mod tidy;

mod renames;

mod checkout;

mod command;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::checkout::Checkout;
use crate::fuzz::Target;
use crate::image::{Arch, Wanted};
use crate::test::Group;

/// The developer's commands of xlb.
///
/// A first hour: `cargo xtask setup`, then `cargo xtask test`, then `cargo xtask demo`.
/// Times are for two cores; the first run of a command also compiles what it needs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing: BPF compiler, bpf-linker, lab tools [2 min once, then under 1 s; root]
    ///
    /// On Debian as root the packages come from apt, and bpf-linker is compiled into `target/tools`.
    /// Elsewhere setup changes nothing: it prints the commands to type and fails while something is missing.
    Setup {
        /// Change nothing: print a line per item, and fail when one is missing
        #[arg(long)]
        check: bool,
    },
    /// Compile the kernel programs into target/bpf and check the object [50 s cold, 1 s warm]
    ///
    /// Compilers are tried in this order: `XLB_BPF_RUSTC` (with `XLB_BPF_CARGO`), Debian's /usr/bin/rustc with the
    /// `core` of bpfel-unknown-none, a rustup nightly with rust-src. Writes `xlb-ebpf.o`,
    /// `xlb-watch.o` and those of the bench into `target/bpf`, and touches them only when their bytes change. An object with a panic path, with an
    /// undefined function or without one of its programs is refused.
    BuildEbpf,
    /// Run the tests, and end with the line `tests: N passed, M failed` [minutes; kernel and lab need root]
    ///
    /// Runs `setup` and `build-ebpf` first. A group that fails does not stop the groups after it.
    Test {
        /// Which tests to run
        #[arg(value_enum, default_value_t = Group::All)]
        group: Group,
        /// Of `scenarios`: the file [default: ../shared/scenarios/external-ip.yaml beside the checkout]
        #[arg(long)]
        file: Option<PathBuf>,
        /// Of `scenarios`: only cases whose id matches, such as `SEL-*`
        #[arg(long, value_name = "GLOB")]
        id: Option<String>,
        /// Of `scenarios`: expect what Kubernetes expects where `local_only` says what one node can do
        #[arg(long)]
        remote: bool,
        /// What follows `--` goes to the test binaries: a filter, `--nocapture`, `--test-threads=1`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Look for packets on which the path breaks its promises, guided by coverage [1 min cold, then as long as it is told]
    ///
    /// Runs `setup` first. Compiles the targets of tests/fuzz with libFuzzer into `target/fuzz`, and runs them one after the other. What was found
    /// interesting stays in `target/fuzz/corpus`, from where the next run goes on. A packet on which something does not hold
    /// is printed as a row for tests/tests/rows, and kept in `target/fuzz/found`.
    Fuzz {
        /// Which target
        #[arg(value_enum)]
        target: Option<Target>,
        /// Only runs the input that a target left in this file
        #[arg(requires = "target")]
        input: Option<PathBuf>,
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Play xlb in a cluster of network namespaces [1 min; root]
    ///
    /// Runs `setup` and `build-ebpf` first. Arguments that are not named here go to the demo.
    Demo(DemoArgs),
    /// Measure, in release mode: `bench path -o json`, or `agent`, `memory`, `tables`, `lab`, `pps`, `sim`, `sweep`, `restart`,
    /// `connections` [5 min cold; root]
    ///
    /// Runs `build-ebpf` first. All arguments go to `xlb-bench`. `lab` and `pps` compare xlb with plain routing and with
    /// kube-proxy's rules: through sockets, and by small packets without any. With `--compare FILE` each row has what an
    /// earlier run said of it, which FILE has from `-o json`, and the ratio of now to then.
    Bench {
        /// What to measure (`path`, `agent`, `memory`, `tables`, `lab`, `pps`, `sim`, `sweep`, `restart`, `connections`), then
        /// options: `path -o json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// Load every kernel program, and compare what the verifier had to do with docs/verifier-budgets.txt [10 s; root]
    ///
    /// Runs `build-ebpf` first. Prints for each program the instructions that were verified, the bytes of machine code,
    /// and the time until it was loaded; fails when one of the first two is more than 10 % above its budget. Kernels
    /// differ, so this is no part of `cargo xtask test`.
    Verify {
        /// Write the file anew instead
        #[arg(long)]
        write: bool,
    },
    /// Make the container image: one static binary on an empty base, as a tarball for `docker load` and `ctr images import` [5 min cold]
    ///
    /// Runs `build-ebpf` first. Needs no container engine. The same commit gives the same bytes: files have the commit's time, or
    /// that of `SOURCE_DATE_EPOCH`. Writes into `target/image`, and prints sizes and digests. docs/RELEASING.md says what is in it.
    Image {
        /// For which processor, more than once for several in one tarball [default: this machine's]
        #[arg(long = "arch", value_enum)]
        arches: Vec<Arch>,
        /// How cargo compiles: `release`, or `dev` for tests
        #[arg(long, default_value = "release")]
        profile: String,
        /// What the image is called, with its tag [default: xlb:VERSION]
        #[arg(long)]
        name: Option<String>,
        /// Where the tarball goes [default: target/image/xlb-VERSION-ARCH.tar]
        #[arg(long, short)]
        output: Option<PathBuf>,
        /// Only show that a build from another folder, of every crate anew, has the same digest
        #[arg(long, conflicts_with_all = ["name", "output"])]
        twice: bool,
    },
    /// Check licences and sources of the crates of Cargo.lock, and what is known against them, without the network [1 s]
    ///
    /// Advisories are those of a snapshot of RustSec's database in this repository: it cannot know what was published since.
    /// `cargo xtask test host` does the same.
    Advisories {
        /// Take the snapshot anew, from a clone of RustSec's repository advisory-db
        #[arg(long, value_name = "CLONE")]
        update: Option<PathBuf>,
    },
    /// Check whether this commit is ready to be released, and print what a release would do [15 min cold]
    Release {
        /// Only check and print; without it this command refuses, as nothing is published from here
        #[arg(long)]
        dry_run: bool,
    },
    /// Check the conventions that no compiler checks: unsafe, file sizes, machine paths [under 1 s]
    ///
    /// Looks at every file that git tracks or would add. `cargo xtask test host` does the same.
    Tidy,
}

#[derive(Args)]
struct DemoArgs {
    /// Leave the namespaces in place when the demo ends
    #[arg(long, conflicts_with = "clean")]
    keep: bool,
    /// Only remove what an earlier demo left behind
    #[arg(long)]
    clean: bool,
    /// Further arguments for the demo
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    let checkout = Checkout::here();
    match run(Cli::parse().command, &checkout) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, checkout: &Checkout) -> Result<ExitCode> {
    match command {
        Command::Setup { check: true } => setup::check(checkout)?,
        Command::Setup { check: false } => setup::install(checkout)?,
        Command::BuildEbpf => build_ebpf::build(checkout)?,
        Command::Test { group: Group::Scenarios, file, id, remote, .. } => {
            return programs::scenarios(checkout, file, id, remote);
        }
        Command::Test { group, file: None, id: None, remote: false, args } => {
            return Ok(test::run(checkout, group, &args));
        }
        Command::Test { .. } => {
            bail!("--file, --id and --remote belong to the group scenarios: cargo xtask test scenarios")
        }
        Command::Fuzz { target, input, seconds } => {
            setup::install(checkout)?;
            match (target, input) {
                (Some(target), Some(input)) => fuzz::replay(checkout, target, &input)?,
                (target, _) => fuzz::run(checkout, target, seconds)?,
            }
        }
        Command::Demo(demo) => return programs::demo(checkout, &demo.forwarded(), demo.clean),
        Command::Bench { args } => return programs::bench(checkout, &args),
        Command::Verify { write } => return programs::verify(checkout, write),
        Command::Image { arches, profile, twice: true, .. } => {
            build_ebpf::build(checkout)?;
            let arch = arches.first().copied().unwrap_or(Arch::of_this_machine());
            image::prove(checkout, arch, &profile, true)?;
        }
        Command::Image { arches, profile, name, output, twice: false } => {
            build_ebpf::build(checkout)?;
            image::make(checkout, &Wanted { arches, profile, name, output })?;
        }
        Command::Advisories { update: Some(clone) } => supply::advisories::update(checkout, &clone)?,
        Command::Advisories { update: None } => supply::check(checkout)?,
        Command::Release { dry_run: true } => release::rehearse(checkout)?,
        Command::Release { dry_run: false } => release::refuse()?,
        Command::Tidy => tidy::check(checkout)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl DemoArgs {
    fn forwarded(&self) -> Vec<String> {
        let keep = self.keep.then(|| "--keep".to_owned());
        let clean = self.clean.then(|| "--clean".to_owned());
        keep.into_iter().chain(clean).chain(self.args.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_flags_and_further_arguments_reach_the_demo() {
        let cli = Cli::parse_from(["xtask", "demo", "--keep", "story", "--fast"]);
        let Command::Demo(demo) = cli.command else { panic!("not a demo") };
        assert_eq!(demo.forwarded(), ["--keep", "story", "--fast"]);
    }

    #[test]
    fn scenarios_take_a_file_and_a_glob() {
        let cli = Cli::parse_from(["xtask", "test", "scenarios", "--file", "f.yaml", "--id", "SEL-*"]);
        let Command::Test { group, file, id, .. } = cli.command else { panic!("not a test") };
        assert_eq!((group, file, id), (Group::Scenarios, Some("f.yaml".into()), Some("SEL-*".into())));
    }

    #[test]
    fn an_input_that_was_found_is_one_of_a_target() {
        let cli = Cli::parse_from(["xtask", "fuzz", "bytes", "target/fuzz/found/bytes-1"]);
        let Command::Fuzz { target, input, .. } = cli.command else { panic!("not the fuzzer") };
        assert_eq!((target, input), (Some(Target::Bytes), Some("target/fuzz/found/bytes-1".into())));
        assert!(Cli::try_parse_from(["xtask", "fuzz", "target/fuzz/found/bytes-1"]).is_err());
    }

    #[test]
    fn bench_options_reach_the_bench() {
        let cli = Cli::parse_from(["xtask", "bench", "path", "-o", "json"]);
        let Command::Bench { args } = cli.command else { panic!("not a bench") };
        assert_eq!(args, ["path", "-o", "json"]);
    }
}
