//! Compiles the targets of tests/fuzz with libFuzzer and its instrumentation, and runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use crate::checkout::Checkout;
use crate::command;

/// What becomes a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Bytes, beginning with the tests' rows
    Bytes,
    /// What the tests' random generator makes, by other choices
    Choices,
}

/// As cargo-fuzz does, but on the stable compiler and without a sanitizer: counters and comparisons, which libFuzzer reads.
const INSTRUMENTATION: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Longer inputs are longer packets, and no others.
const INPUT_MAX: u32 = 1_024;

/// Runs one target or all, so long each, and fails when one finds something.
pub fn run(checkout: &Checkout, target: Option<Target>, seconds: u32) -> Result<()> {
    let triple = build(checkout)?;
    let targets = target.map_or_else(|| Target::value_variants().to_vec(), |target| vec![target]);
    for target in targets {
        let corpus = checkout.fuzz().join("corpus").join(target.name());
        let found = checkout.fuzz().join("found");
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let mut fuzzer = Command::new(binary(checkout, &triple, target));
        fuzzer
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={INPUT_MAX}"))
            .arg(format!("-artifact_prefix={}/{}-", found.display(), target.name()))
            .arg(format!("-dict={}", checkout.root().join("tests/fuzz/packet.dict").display()))
            .args(["-print_final_stats=1", "-use_value_profile=1"])
            .arg(&corpus)
            .env("XLB_FUZZ_SEEDS", &corpus)
            .current_dir(checkout.root());
        println!("fuzzing {} for {seconds} s", target.name());
        report(target, &mut fuzzer)?;
    }
    Ok(())
}

/// Runs one input.
pub fn replay(checkout: &Checkout, target: Target, input: &Path) -> Result<()> {
    ensure!(input.is_file(), "there is no file {}", input.display());
    let triple = build(checkout)?;
    command::run(Command::new(binary(checkout, &triple, target)).arg(input))
}

/// Shows how far a target came, or all that it said when it found something.
fn report(target: Target, fuzzer: &mut Command) -> Result<()> {
    let output = fuzzer.stdin(Stdio::null()).output().with_context(|| format!("running {}", target.name()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if output.status.success() {
        println!("{}", summary(&text));
        return Ok(());
    }
    println!("{}", without_progress(&text));
    match found(&text) {
        Some(path) => {
            bail!("{} found a packet; to run it again: cargo xtask fuzz {} {path}", target.name(), target.name())
        }
        None => bail!("{} ended with {}", target.name(), output.status),
    }
}

/// libFuzzer's last line of progress, and the number of runs.
fn summary(text: &str) -> String {
    let of = |mark: &str| text.lines().rfind(|line| line.contains(mark)).unwrap_or_default().trim().to_owned();
    format!("{}\n{}", of("DONE"), of("stat::number_of_executed_units"))
}

/// libFuzzer numbers each line of its progress.
fn without_progress(text: &str) -> String {
    let is_progress = |line: &&str| line.starts_with('#') && line.contains("cov:");
    let lines: Vec<&str> = text.lines().filter(|line| !is_progress(line)).collect();
    lines.join("\n")
}

fn found(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path))
}

fn build(checkout: &Checkout) -> Result<String> {
    let triple = host()?;
    let mut cargo = command::cargo(checkout, "build");
    cargo
        .args(["--package", "xlb-fuzz", "--profile", "fuzz", "--target", &triple])
        .args(command::quiet_unless_watched())
        .env("CARGO_TARGET_DIR", checkout.fuzz())
        .env("CARGO_ENCODED_RUSTFLAGS", INSTRUMENTATION.join("\u{1f}"))
        .env_remove("RUSTFLAGS");
    command::run(&mut cargo)?;
    Ok(triple)
}

/// Named, so that build scripts and macros are compiled without the instrumentation.
fn host() -> Result<String> {
    let text = command::stdout_of("rustc", &["-vV"]).context("asking rustc for its host")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not tell its host")
}

fn binary(checkout: &Checkout, triple: &str, target: Target) -> PathBuf {
    checkout.fuzz().join(triple).join("fuzz").join(target.name())
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Choices => "choices",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str =
        "INFO: seed corpus\n#2\tINITED cov: 7\n#9\tDONE   cov: 12 ft: 20\nstat::number_of_executed_units: 9\n";

    #[test]
    fn a_run_is_told_by_its_last_lines() {
        assert_eq!(summary(OUTPUT), "#9\tDONE   cov: 12 ft: 20\nstat::number_of_executed_units: 9");
    }

    #[test]
    fn what_was_found_is_told_without_the_progress_before() {
        let text = format!("{OUTPUT}a row\nartifact_prefix='x/'; Test unit written to x/bytes-crash-1\n");
        assert_eq!(found(&text), Some("x/bytes-crash-1"));
        assert!(!without_progress(&text).contains("INITED") && without_progress(&text).contains("a row"));
    }
}
