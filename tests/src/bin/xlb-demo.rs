//! What `cargo xtask demo` runs: xlb before a newcomer's eyes.

use std::process::ExitCode;

use clap::Parser;
use xlb_tests::demo::{self, Wish};

/// Three pods with real servers, real clients, and xlb between them.
#[derive(Parser)]
#[command(name = "xlb-demo")]
struct Cli {
    /// Leave everything running at the end, to play with
    #[arg(long, conflicts_with = "clean")]
    keep: bool,
    /// End what `--keep` left running, and remove it
    #[arg(long)]
    clean: bool,
}

fn main() -> ExitCode {
    let wish = match Cli::parse() {
        Cli { clean: true, .. } => Wish::Clean,
        Cli { keep: true, .. } => Wish::PlayAndKeep,
        Cli { .. } => Wish::Play,
    };
    demo::main(wish)
}
