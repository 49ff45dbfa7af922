//! `cargo xtask bench`: measures xlb.

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use xlb_tests::bench::report::{self, Report};
use xlb_tests::bench::{agent, path};
use xlb_tests::scale::Scale;

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
    /// The agent with 10 000 Services and 150 000 endpoints: cold start, latency under churn, memory [2 min; root]
    Agent {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Services; each has 15 endpoints
        #[arg(long, default_value_t = Scale::TARGET.services, value_parser = clap::value_parser!(u32).range(250..=30_000))]
        services: u32,
        /// Changes of the churn, 500 a second
        #[arg(long, default_value_t = 5_000)]
        changes: u32,
        /// Whole runs
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> Result<()> {
    let (env, report, output, table): (_, _, _, fn(&Report) -> String) = match Arguments::parse().command {
        Command::Path { output, repeat, rounds } => {
            ensure!(rounds >= 1, "no rounds, no figures");
            (report::env(repeat, rounds), path::measure(repeat, rounds)?, output, Report::table)
        }
        Command::Agent { output, services, changes, rounds } => {
            ensure!(rounds >= 1 && changes >= 1, "no rounds or no changes, no figures");
            let scale = Scale { services, endpoints: services * 15, ..Scale::TARGET };
            (report::env(changes, rounds), agent::measure(scale, changes, rounds)?, output, Report::plain_table)
        }
    };
    match output {
        Output::Table => println!("{}\n\n{}", one_line(&env), table(&report)),
        Output::Json => println!("{:#}", report.json(&env)),
    }
    Ok(())
}

/// The surroundings, as `name value` pairs.
fn one_line(env: &serde_json::Value) -> String {
    let pairs = env.as_object().into_iter().flatten();
    pairs.map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"'))).collect::<Vec<_>>().join(", ")
}
