//! `xlb top`: on a terminal a screen that lives, elsewhere one round after the other.

use std::io::{self, IsTerminal};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::PinArgs;
use super::output::{OutputArgs, print};
use crate::maps::pins::PinDirectory;
use crate::top::look::Looker;
use crate::top::rates::{Round, round};
use crate::top::screen;
use crate::top::view::{Sort, lines};

/// How to look.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Print so many rounds and end; without it, on a terminal, a screen that lives
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one round and end
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// Which services come first
    #[arg(long, value_enum, default_value = "packets")]
    sort: Sort,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pins: PinArgs,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("found {text:?}, expected 0.1 to 3600 seconds"))
}

/// Shows what is going on.
///
/// # Errors
/// When there is no dataplane, or the kernel refuses to read.
pub fn top(args: &TopArgs) -> Result<()> {
    let mut looker = Looker::open(PinDirectory::new(args.pins.bpffs_dir.clone()))?;
    let rounds = if args.once { Some(1) } else { args.count };
    if rounds.is_none() && args.output.output.is_for_people() && is_able_terminal() {
        return screen::show(&mut looker, args.interval, args.sort);
    }
    let mut before = looker.look()?;
    let mut left = rounds;
    while left != Some(0) {
        sleep(args.interval);
        let now = looker.look()?;
        if !print_round(&round(&before, &now), args)? {
            return Ok(());
        }
        before = now;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

/// A dumb terminal has no screen to draw on.
fn is_able_terminal() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    io::stdout().is_terminal() && io::stdin().is_terminal() && !term.is_empty() && term != "dumb"
}

/// False: nobody reads any more.
fn print_round(round: &Round, args: &TopArgs) -> Result<bool> {
    let format = args.output.output;
    let text = if format.is_for_people() {
        lines(round, args.sort).into_iter().map(|line| line.text + "\n").chain(["\n".to_owned()]).collect()
    } else {
        format.item(round)? + "\n"
    };
    print(&text)
}
