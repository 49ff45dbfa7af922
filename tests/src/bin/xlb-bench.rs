//! `cargo xtask bench`: measures xlb.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;
use xlb_common::abi::FLOWS_MAX;
use xlb_tests::bench::report::compare::Earlier;
use xlb_tests::bench::report::{self, Report, one_line};
use xlb_tests::bench::ways::SERVICES_MAX;
use xlb_tests::bench::{agent, connections, lab, memory, path, pps, restart, sweep, tables};
use xlb_tests::load::connections::Habits;
use xlb_tests::load::{self, pod};
use xlb_tests::scale::Scale;
use xlb_tests::sim::compare::{self, Terms};

/// Violations of a run that are told in sentences.
const EXPLAINED: usize = 5;

/// Measures xlb. Run it by `cargo xtask bench`, which builds everything for release.
#[derive(Parser)]
#[command(name = "xlb-bench")]
struct Arguments {
    /// What an earlier run of the same bench printed with `-o json`: shown beside each row, with the ratio of now to then
    #[arg(long, global = true, value_name = "FILE")]
    compare: Option<PathBuf>,
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
    /// The memory of an agent with nothing to serve, and with 10 000 Services and 150 000 endpoints: maps, programs, itself
    /// [1 min; root]
    Memory {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Services; each has 15 endpoints
        #[arg(long, default_value_t = Scale::TARGET.services, value_parser = clap::value_parser!(u32).range(250..=30_000))]
        services: u32,
        /// Whole runs
        #[arg(long, default_value_t = 1)]
        rounds: usize,
    },
    /// The agent's walk through a full map of flows [1 min; root]
    Sweep {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Flows in the map
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        flows: u32,
        /// Walks of each kind
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// Tables of slots: built, and changed by a pod that comes or goes, in the kernel's maps; how evenly they share out, and
    /// how few slots move [1 min; root]
    Tables {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Builds, and changes of each kind, in a round
        #[arg(long, default_value_t = tables::Terms::TARGET.repeat, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        repeat: u32,
        /// Rounds
        #[arg(long, default_value_t = tables::Terms::TARGET.rounds)]
        rounds: usize,
        /// Services beside the one that changes
        #[arg(long, default_value_t = tables::Terms::TARGET.others, value_parser = clap::value_parser!(u32).range(1..=30_000))]
        others: u32,
    },
    /// Numbered datagrams and TCP connections while agents end, in turn by SIGTERM and SIGKILL, and others replace their
    /// programs: what was lost or moved, which has to be nothing [15 min; root]
    Restart {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// How often an agent ends and another begins
        #[arg(long, default_value_t = restart::Terms::TARGET.restarts)]
        restarts: usize,
        /// Flows of datagrams of each client, 50 a second each
        #[arg(long, default_value_t = restart::Terms::TARGET.flows)]
        flows: u64,
        /// Long-lived TCP connections of each client, up to 50 messages a second each
        #[arg(long, default_value_t = restart::Terms::TARGET.connections)]
        connections: usize,
        /// How long the same load runs without restarts first
        #[arg(long, default_value_t = restart::Terms::TARGET.quiet.as_secs())]
        quiet_s: u64,
        /// Native XDP takes the packets, instead of tc
        #[arg(long)]
        by_xdp: bool,
    },
    /// 100 000 open connections with secrets, while pods are replaced, a million spoofed SYNs a second arrive, and agents
    /// are killed: what moved, broke or hung, which has to be nothing, and what else it cost [3 min; root]
    Connections {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Connections that are always open; one more is opened where a pod has closed one
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10..=200_000))]
        connections: u32,
        /// Further ones that speak ten times a second
        #[arg(long, default_value_t = connections::Terms::TARGET.streams)]
        streams: usize,
        /// How long the trouble lasts
        #[arg(long, default_value_t = connections::Terms::TARGET.trouble.as_secs())]
        seconds: u64,
        /// SYNs of the flood per second; 0: no flood
        #[arg(long, default_value_t = connections::Terms::TARGET.flood_per_s)]
        flood: u32,
        /// Seconds for which a terminating pod keeps its connections
        #[arg(long, default_value_t = connections::Terms::TARGET.grace.as_secs())]
        grace: u64,
        /// Native XDP takes the packets, instead of tc
        #[arg(long)]
        by_xdp: bool,
    },
    /// What real sockets get through plain routing, kube-proxy's rules and xlb: throughput, connections, latency, datagrams
    /// [8 min; root]
    Lab {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// How long each kind of traffic lasts
        #[arg(long, default_value_t = lab::Terms::TARGET.time.as_secs_f64())]
        seconds: f64,
        /// Interleaved rounds
        #[arg(long, default_value_t = lab::Terms::TARGET.rounds)]
        rounds: usize,
        /// Services of kube-proxy and of xlb, where there are many
        #[arg(long, default_value_t = lab::Terms::TARGET.services, value_parser = services())]
        services: u32,
    },
    /// What a small packet costs on its way into a pod, by live frames and without sockets: plain routing, bare forwarders,
    /// kube-proxy's rules and xlb [3 min; root]
    Pps {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Packets per row and round
        #[arg(long, default_value_t = pps::Terms::TARGET.packets, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
        packets: u32,
        /// Interleaved rounds
        #[arg(long, default_value_t = pps::Terms::TARGET.rounds)]
        rounds: usize,
        /// Services of kube-proxy and of xlb
        #[arg(long, default_value_t = pps::Terms::TARGET.services, value_parser = services())]
        services: u32,
    },
    /// Takes part in a load: `restart` and `connections` start these
    #[command(subcommand, hide = true)]
    Work(Work),
    /// Connections that went astray, in a simulation of xlb and of other designs [1 min]
    Sim {
        /// How to print the rows
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Flows of each row
        #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
        flows: u64,
        /// Seed of each row's first run
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only a row (`xlb/roll`), a design (`xlb`) or a scenario (`roll`)
        #[arg(long)]
        only: Option<String>,
        /// Tell of the first violations of each run
        #[arg(long)]
        explain: bool,
        /// Runs at a time; the rows do not depend on it
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Size of xlb's tables of flows, as the agent's option of this name
        #[arg(long, default_value_t = FLOWS_MAX, value_parser = clap::value_parser!(u32).range(1024..))]
        max_flows: u32,
    },
}

/// A process that takes part in a load.
#[derive(Subcommand)]
enum Work {
    /// A pod's server
    Pod {
        #[arg(long)]
        number: u64,
        #[arg(long)]
        port: u16,
    },
    /// A client with many connections
    Client {
        #[arg(long)]
        vip: SocketAddr,
        #[arg(long)]
        seats: usize,
        #[arg(long)]
        pause_ms: u64,
        #[arg(long)]
        patience_ms: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn services() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(2..=SERVICES_MAX.into())
}

fn main() -> Result<()> {
    let Arguments { compare, command } = Arguments::parse();
    let earlier = compare.as_deref().map(Earlier::read).transpose()?;
    let earlier = earlier.as_ref();
    let (env, report, output, table): (_, _, _, fn(&Report) -> String) = match command {
        Command::Path { output, repeat, rounds } => {
            ensure!(rounds >= 1, "no rounds, no figures");
            (report::env(repeat, rounds), path::measure(repeat, rounds)?, output, Report::table)
        }
        Command::Agent { output, services, changes, rounds } => {
            ensure!(rounds >= 1 && changes >= 1, "no rounds or no changes, no figures");
            let scale = Scale { services, endpoints: services * 15, ..Scale::TARGET };
            (report::env(changes, rounds), agent::measure(scale, changes, rounds)?, output, Report::plain_table)
        }
        Command::Memory { output, services, rounds } => {
            ensure!(rounds >= 1, "no rounds, no figures");
            let scale = Scale { services, endpoints: services * 15, ..Scale::TARGET };
            (report::env(services, rounds), memory::measure(scale, rounds)?, output, Report::plain_table)
        }
        Command::Sweep { output, flows, rounds } => {
            ensure!(rounds >= 1, "no rounds, no figures");
            (report::env(flows, rounds), sweep::measure(flows, rounds)?, output, Report::plain_table)
        }
        Command::Tables { output, repeat, rounds, others } => {
            ensure!(rounds >= 1, "no rounds, no figures");
            let terms = tables::Terms { rounds, repeat, others, ..tables::Terms::TARGET };
            (report::env(repeat, rounds), tables::measure(terms)?, output, Report::plain_table)
        }
        Command::Restart { output, restarts, flows, connections, quiet_s, by_xdp } => {
            let quiet = Duration::from_secs(quiet_s);
            return restart(restart::Terms { restarts, flows, connections, quiet, by_xdp }, output, earlier);
        }
        Command::Connections { output, connections, streams, seconds, flood, grace, by_xdp } => {
            let [trouble, grace] = [seconds, grace].map(Duration::from_secs);
            let (connections, flood_per_s, target) = (connections as usize, flood, connections::Terms::TARGET);
            let terms = connections::Terms { connections, streams, trouble, flood_per_s, grace, by_xdp, ..target };
            return keep(terms, output, earlier);
        }
        Command::Lab { output, seconds, rounds, services } => {
            ensure!(rounds >= 1 && (0.01..=10.0).contains(&seconds), "no rounds, or none of 10 ms to 10 s");
            let time = Duration::from_secs_f64(seconds);
            let report = lab::measure(lab::Terms { time, rounds, services })?;
            (report::env(services, rounds), report, output, Report::plain_table)
        }
        Command::Pps { output, packets, rounds, services } => {
            ensure!(rounds >= 1, "no rounds, no figures");
            let outcome = pps::measure(pps::Terms { packets, rounds, services })?;
            eprint!("{}", outcome.losses());
            (report::env(packets, rounds), outcome.report, output, Report::plain_table)
        }
        Command::Work(Work::Pod { number, port }) => return pod::work(number, port),
        Command::Work(Work::Client { vip, seats, pause_ms, patience_ms }) => {
            let [pause, patience] = [pause_ms, patience_ms].map(Duration::from_millis);
            return load::connections::work(vip, seats, Habits { pause, patience });
        }
        Command::Sim { output, flows, seed, only, explain, threads, max_flows } => {
            let explains = if explain { EXPLAINED } else { 0 };
            return simulate(&Terms { flows, seed, only, explains, threads, max_flows }, output, earlier);
        }
    };
    print(&report, &env, output, table, earlier)
}

fn print(
    report: &Report,
    env: &Value,
    output: Output,
    table: fn(&Report) -> String,
    earlier: Option<&Earlier>,
) -> Result<()> {
    if matches!(output, Output::Table) {
        println!("{}\n", one_line(env));
    }
    show(table(report), report.json(env), output, earlier)
}

/// Prints the table, or the object of the same rows.
fn show(table: String, object: Value, output: Output, earlier: Option<&Earlier>) -> Result<()> {
    let (table, object) = match earlier {
        None => (table, object),
        Some(earlier) => (earlier.beside(&table, &object)?, earlier.added_to(object)?),
    };
    match output {
        Output::Table => println!("{table}"),
        Output::Json => println!("{object:#}"),
    }
    Ok(())
}

fn restart(terms: restart::Terms, output: Output, earlier: Option<&Earlier>) -> Result<()> {
    let outcome = restart::measure(terms)?;
    let env = report::env(u32::try_from(terms.restarts).unwrap_or(u32::MAX), 1);
    print(&outcome.report(), &env, output, Report::plain_table, earlier)?;
    ensure!(
        outcome.restarted.faults() == 0,
        "traffic was lost or moved: {:?}",
        outcome.restarted.connections.incidents
    );
    Ok(())
}

fn keep(terms: connections::Terms, output: Output, earlier: Option<&Earlier>) -> Result<()> {
    let outcome = connections::measure(terms)?;
    let env = report::env(u32::try_from(terms.connections).unwrap_or(u32::MAX), 1);
    print(&outcome.report(), &env, output, Report::plain_table, earlier)?;
    eprint!("{}", outcome.story(EXPLAINED));
    ensure!(outcome.violations() == 0, "{} connections moved, broke or hung", outcome.violations());
    Ok(())
}

fn simulate(terms: &Terms, output: Output, earlier: Option<&Earlier>) -> Result<()> {
    let rows = compare::compare(terms);
    ensure!(!rows.is_empty(), "no row, design or scenario has this name");
    let env = report::env(u32::try_from(terms.seed).unwrap_or_default(), terms.threads);
    show(compare::table(&rows), compare::json(&rows, &env), output, earlier)
}
