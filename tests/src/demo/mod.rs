//! The demo: a LoadBalancer address, three pods with nginx and dnsmasq, clients with curl and dig, and the agent.
//!
//! Each chapter shows something, and fails when it does not happen: the demo is a test that a person can watch.
//! What it starts ends with it, also after Ctrl-C; what a killed demo left, the next one sweeps.

mod story;
mod stage;
mod servers;
mod requests;
mod downloads;
mod departures;
mod counters;
mod playground;
mod workplace;
mod interrupt;
mod telling;

use std::process::ExitCode;

use anyhow::Result;

use self::stage::Stage;
use self::telling::say;

/// Lines of the agent's log that a failure shows.
const LOG_LINES_SHOWN_MAX: usize = 20;
/// What shells say of a program that SIGINT ended.
const EXIT_CODE_INTERRUPTED: u8 = 128 + 2;

/// What the demo is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Play, and leave nothing.
    Play,
    /// Play, and leave everything running.
    PlayAndKeep,
    /// End and remove what was left running.
    Clean,
}

/// Does what is asked. The exit code is a failure when an expectation does not hold.
pub fn main(wish: Wish) -> ExitCode {
    let result = match wish {
        Wish::Clean => playground::clean(),
        Wish::Play => play(false),
        Wish::PlayAndKeep => play(true),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if interrupt::is_interrupted() => {
            say("interrupted: everything is removed");
            ExitCode::from(EXIT_CODE_INTERRUPTED)
        }
        Err(error) => {
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(keep: bool) -> Result<()> {
    interrupt::watch()?;
    let mut stage = story::open()?;
    if let Err(error) = story::tell(&mut stage) {
        if !interrupt::is_interrupted() {
            show_log(&stage);
        }
        return Err(error);
    }
    if keep {
        return playground::keep(stage);
    }
    drop(stage);
    say("");
    say("Everything is removed. `cargo xtask demo --keep` leaves it running, to play with.");
    Ok(())
}

fn show_log(stage: &Stage) {
    let log = stage.agent.log();
    let lines: Vec<&str> = log.lines().collect();
    eprintln!("\nthe last of the {} lines of the agent's log:", lines.len());
    for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN_MAX)..] {
        eprintln!("  {line}");
    }
}
