//! What `cargo xtask test scenarios` runs: every case of a scenario file, a line for each.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use xlb_tests::scenarios::case::File;
use xlb_tests::scenarios::report::{Summary, rows};

/// Runs a scenario file through the agent's logic and the packet path, in ordinary memory.
#[derive(Parser)]
#[command(name = "xlb-scenarios")]
struct Cli {
    /// The scenario file
    #[arg(long)]
    file: PathBuf,
    /// Only cases whose id matches: `SEL-*`, `*-001`
    #[arg(long, default_value = "*")]
    id: String,
}

fn main() -> Result<ExitCode> {
    let Cli { file, id } = Cli::parse();
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let scenarios = File::parse(&text).with_context(|| format!("reading {}", file.display()))?;
    let mut summary = Summary::default();
    for row in rows(&scenarios, &id) {
        println!("{row}");
        summary.add(&row);
    }
    println!("{summary}");
    Ok(if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
