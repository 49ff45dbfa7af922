//! `cargo xtask bench`: measures xlb.

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use xlb_tests::bench::{path, report};

/// Measures xlb. Run it by `cargo xtask bench`, which builds everything for release.
#[derive(Parser)]
#[command(name = "xlb-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The packet path in the kernel, by BPF_PROG_TEST_RUN, beside the limit of its design [30 s; root]
    Path {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Packets per program and round
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
        repeat: u32,
        /// Interleaved rounds
        #[arg(long, default_value_t = 7)]
        rounds: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> Result<()> {
    let Command::Path { output, repeat, rounds } = Arguments::parse().command;
    ensure!(rounds >= 1, "no rounds, no figures");
    let env = report::env(repeat, rounds);
    let report = path::measure(repeat, rounds)?;
    match output {
        Output::Table => println!("{}\n\n{}", one_line(&env), report.table()),
        Output::Json => println!("{:#}", report.json(&env)),
    }
    Ok(())
}

/// The surroundings, as `name value` pairs.
fn one_line(env: &serde_json::Value) -> String {
    let pairs = env.as_object().into_iter().flatten();
    pairs.map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"'))).collect::<Vec<_>>().join(", ")
}
