//! What `cargo xtask test scenarios` runs: every case of a scenario file, a line for each.

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use clap::Parser;
use xlb_tests::scenarios::case::File;
use xlb_tests::scenarios::in_kernel::InKernel;
use xlb_tests::scenarios::report::{Summary, rows};
use xlb_tests::scenarios::run::Terms;

/// Runs a scenario file through the agent's logic and the packet path, in ordinary memory and, as root, in this kernel.
#[derive(Parser)]
#[command(name = "xlb-scenarios")]
struct Cli {
    /// The scenario file
    #[arg(long)]
    file: PathBuf,
    /// Only cases whose id matches: `SEL-*`, `*-001`
    #[arg(long, default_value = "*")]
    id: String,
    /// Expect what Kubernetes expects, not what `local_only` says
    #[arg(long)]
    remote: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line for each case, and the sum. True if all that xlb can do is as expected.
fn run(Cli { file, id, remote }: Cli) -> Result<bool> {
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let scenarios = File::parse(&text).with_context(|| format!("reading {}", file.display()))?;
    let (kernel, why_not) = kernel()?;
    let terms = Terms { wants_remote: remote, kernel };
    let mut summary = Summary::default();
    for row in rows(&scenarios, &id, &terms) {
        println!("{row}");
        summary.add(&row);
    }
    if let Some(why) = why_not {
        println!("IN MEMORY ONLY: no packet went through the kernel: {why}");
    }
    println!("{summary}");
    Ok(summary.is_good())
}

/// The loaded programs. Who is not root has none, and is told so; for root it is an error.
fn kernel() -> Result<(Option<Rc<InKernel>>, Option<String>)> {
    if !nix::unistd::geteuid().is_root() {
        return Ok((None, Some("this needs root".into())));
    }
    Ok((Some(Rc::new(InKernel::load()?)), None))
}
