//! The commands of `xlb`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub mod run;
pub mod config;
pub mod status;
pub mod services;
pub mod backends;
pub mod flows;
pub mod vips;
pub mod agent;
pub mod inspection;
pub mod explain;
mod next;
mod live;
mod doctor;
mod top;
mod watch;
pub mod metrics;
pub mod detach;
pub mod output;
pub mod table;
pub mod version;
pub mod manual;
pub mod addresses;
mod pod_ips;
mod source;
pub mod span;
pub mod timeouts;

use self::config::Surroundings;
use crate::maps::pins::{DEFAULT_DIRECTORY, PinDirectory};

/// External-IP load balancer for Kubernetes: packets for LoadBalancer addresses go straight to the local pods, with the
/// client's own address.
#[derive(Debug, Parser)]
#[command(name = "xlb", version = version::long(), propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: keep the kernel's maps equal to the manifests, or to what the cluster's API server says
    Run(Box<run::RunArgs>),
    /// Say on one screen whether all is well; works without an agent, as do the other commands that show something
    Status(status::StatusArgs),
    /// Show services, with their VIPs and backends
    Services(services::ServicesArgs),
    /// Show backends: pod ports of this node, and which connections they get
    Backends(backends::BackendsArgs),
    /// Show flows: who speaks to which pod
    Flows(flows::FlowsArgs),
    /// Print all of it as one document, for programs and for reports of trouble
    Inspect(inspection::InspectArgs),
    /// Print counters as OpenMetrics text, for a textfile collector
    Metrics(PinArgs),
    /// Walk one packet through the packet path, over the live maps, and say why it goes where it goes; or the next ones that come
    Explain(explain::ExplainArgs),
    #[command(flatten)]
    Live(live::LiveCommand),
    /// Hand back to kube-proxy, without an agent: at once, or with --keep-flows as its connections end
    Detach(DetachArgs),
    /// Print the settings, and where each comes from
    Config(config::show::ConfigArgs),
    /// Print a script that completes the words of xlb in a shell: `source <(xlb completions bash)`
    Completions(manual::CompletionsArgs),
    /// Write the manual pages, one for each command, into a directory
    Man(manual::ManArgs),
    /// Detach everything and remove all maps; the connections through xlb end
    Cleanup(PinArgs),
}

/// Which dataplane.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// Where maps, programs and links are pinned, on a BPF file system
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIRECTORY)]
    bpffs_dir: PathBuf,
}

#[derive(Debug, Args)]
struct DetachArgs {
    /// Leave new connections to the host's stack, and serve those that there are until they end
    #[arg(long)]
    keep_flows: bool,
    #[command(flatten)]
    pins: PinArgs,
}

/// All commands. What shows settings needs none of them.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command().mut_subcommand("config", config::relaxed)
}

/// Runs the command that the arguments ask for.
///
/// # Errors
/// Whatever the command could not do, with what it was about to do and to what.
pub fn main() -> Result<()> {
    let (command, surroundings) = (command(), Surroundings::here());
    let settled = config::settle(&command, &surroundings, |error| eprintln!("xlb: {error:#}; it does not count here"))?;
    let matches = command.clone().try_get_matches_from(&settled.arguments);
    let matches = matches.unwrap_or_else(|error| settled.end(&error));
    let run = command.find_subcommand("run");
    match (matches.subcommand(), run) {
        (Some(("run", of)), _) => return run::run(&command, surroundings, &settled, of),
        (Some(("config", of)), Some(run)) => {
            return config::show::show(run, &settled, of.subcommand().unwrap_or(("", of)).1);
        }
        _ => {}
    }
    match Cli::from_arg_matches(&matches)?.command {
        Command::Run(_) | Command::Config(_) => Ok(()),
        Command::Status(args) => status::show(args),
        Command::Services(args) => services::show(args),
        Command::Backends(args) => backends::show(args),
        Command::Flows(args) => flows::show(args),
        Command::Inspect(args) => inspection::show(args),
        Command::Metrics(args) => metrics::show(args),
        Command::Explain(args) => explain::run(args),
        Command::Live(command) => live::run(command),
        Command::Completions(args) => manual::completions(command, &args),
        Command::Man(args) => manual::pages(command, &args),
        Command::Detach(args) if args.keep_flows => detach::keep_flows(&PinDirectory::new(args.pins.bpffs_dir)),
        Command::Detach(args) => detach::at_once(&PinDirectory::new(args.pins.bpffs_dir)),
        Command::Cleanup(args) => detach::cleanup(&PinDirectory::new(args.bpffs_dir)),
    }
}
