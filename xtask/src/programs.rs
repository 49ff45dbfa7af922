//! The programs that run xlb for a person: the demo, the benchmarks, the verifier's budgets, and scenario files.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::checkout::Checkout;
use crate::{build_ebpf, command, setup};

/// Builds what the demo needs and plays it. Only to clean up, it takes what is built already.
pub fn demo(checkout: &Checkout, args: &[String], only_cleans: bool) -> Result<ExitCode> {
    if !only_cleans {
        setup::install(checkout)?;
        build_ebpf::build(checkout)?;
        build_agent(checkout)?;
    }
    run(command::cargo(checkout, "run").args(["-p", "xlb-tests", "--bin", "xlb-demo"]), args)
}

/// What `xlb-bench` measures with a whole agent, as one of its arguments says.
const OF_AGENTS: [&str; 6] = ["agent", "memory", "restart", "connections", "lab", "pps"];

/// Measures in release mode, with an agent that was built so where one takes part.
pub fn bench(checkout: &Checkout, args: &[String]) -> Result<ExitCode> {
    setup::install(checkout)?;
    build_ebpf::build(checkout)?;
    let mut cargo = command::cargo(checkout, "run");
    cargo.args(["--release", "-p", "xlb-tests", "--bin", "xlb-bench"]);
    if args.iter().any(|what| OF_AGENTS.contains(&what.as_str())) {
        let packages = ["--release", "-p", "xlb-userspace", "-p", "xlb-tests", "--bin", "xlb"];
        command::run(command::cargo(checkout, "build").args(packages).args(command::quiet_unless_watched()))?;
        cargo.env("XLB_BINARY", checkout.root().join("target/release/xlb"));
    }
    run(&mut cargo, args)
}

/// Loads every kernel program, and compares with the budgets or writes them.
pub fn verify(checkout: &Checkout, writes: bool) -> Result<ExitCode> {
    build_ebpf::build(checkout)?;
    let budgets = checkout.root().join("docs/verifier-budgets.txt");
    let mut args = vec!["--budgets".to_owned(), budgets.to_string_lossy().into_owned()];
    args.extend(writes.then(|| "--write".to_owned()));
    run(command::cargo(checkout, "run").args(["-p", "xlb-tests", "--bin", "xlb-verify"]), &args)
}

/// Runs a scenario file. The usual one belongs to nobody's checkout: it lies beside it, or where `--file` says.
pub fn scenarios(
    checkout: &Checkout,
    file: Option<PathBuf>,
    id: Option<String>,
    wants_remote: bool,
) -> Result<ExitCode> {
    let usual = checkout.root().join("../shared/scenarios/external-ip.yaml");
    let Some(file) = file.or_else(|| Some(usual).filter(|usual| usual.is_file())) else {
        bail!("there is no ../shared/scenarios/external-ip.yaml beside the checkout; name a scenario file by --file");
    };
    let file = std::path::absolute(&file).with_context(|| format!("finding {}", file.display()))?;
    setup::install(checkout)?;
    build_ebpf::build(checkout)?;
    let mut args = vec!["--file".to_owned(), file.to_string_lossy().into_owned()];
    args.extend(id.into_iter().flat_map(|id| ["--id".to_owned(), id]));
    args.extend(wants_remote.then(|| "--remote".to_owned()));
    run(command::cargo(checkout, "run").args(["-p", "xlb-tests", "--bin", "xlb-scenarios"]), &args)
}

/// Builds `target/debug/xlb`, which the lab and the demo start on each node. xlb-tests and one of its
/// tests, the smallest, are named so that dependencies get the same features as in the tests, and are compiled once.
pub fn build_agent(checkout: &Checkout) -> Result<()> {
    let packages = ["-p", "xlb-userspace", "-p", "xlb-tests", "--bin", "xlb", "--test", "openmetrics"];
    command::run(command::cargo(checkout, "build").args(packages).args(command::quiet_unless_watched()))
}

/// Runs a program of xlb-tests, whose exit code becomes ours.
fn run(cargo_run: &mut Command, args: &[String]) -> Result<ExitCode> {
    let status = command::status(cargo_run.args(command::quiet_unless_watched()).arg("--").args(args))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}
