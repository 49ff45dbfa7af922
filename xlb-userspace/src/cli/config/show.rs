//! `xlb config show`: every setting, its value, and where that comes from.

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use serde::Serialize;

use super::Settled;
use crate::agent::settings::{Origin, Setting};
use crate::cli::agent;
use crate::cli::output::OutputArgs;
use crate::cli::run::RunArgs;
use crate::cli::table::Table;
use crate::maps::pins::PinDirectory;

/// What to do with the configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its value and where that comes from: of the agent that runs, or, with flags of `xlb run` or
    /// while none runs, of a start with these flags, this environment and the file
    Show(Box<ShowArgs>),
}

/// The flags of `xlb run`, and how to print.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Settings, and whose.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// `agent`: of the one that runs; `start`: those that `xlb run` would have.
    pub of: &'static str,
    /// The file that was read, or would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// All of them, in the order of `xlb run --help`.
    pub settings: Vec<Setting>,
}

/// Prints the settings.
///
/// # Errors
/// When they cannot be written.
pub fn show(run: &Command, settled: &Settled, matches: &ArgMatches) -> Result<()> {
    let output = OutputArgs::from_arg_matches(matches)?;
    let settings = settled.settings(run, matches);
    let asks_about_start = settings.iter().any(|it| it.origin == Origin::Flag && it.name != super::SHARED)
        || matches.value_source(super::FILE_FLAG).is_some();
    let directory = settings.iter().find(|setting| setting.name == super::SHARED).map(|it| it.value.clone());
    let running = directory.filter(|_| !asks_about_start).and_then(|directory| of_agent(&PinDirectory::new(directory)));
    let file = settled.file.as_ref().map(|path| path.display().to_string());
    output.print(&running.unwrap_or(Shown { of: "start", file, settings }), |shown, _| text(shown))
}

fn of_agent(pins: &PinDirectory) -> Option<Shown> {
    let (has_agent, (), report) = agent::look(pins, || Ok(())).ok()?;
    let report = report.filter(|report| has_agent && !report.is_over)?;
    (!report.settings.is_empty()).then_some(Shown { of: "agent", file: report.config_file, settings: report.settings })
}

fn text(shown: &Shown) -> String {
    let whose = if shown.of == "agent" { "the agent that runs" } else { "`xlb run`, if it were started like this" };
    let file = shown.file.as_ref().map_or_else(|| "no file".into(), |file| format!("the file {file}"));
    let mut table = Table::new(&["SETTING", "VALUE", "ORIGIN", "PLACE"]);
    for Setting { name, value, origin, place } in &shown.settings {
        table.add([name.clone(), value.clone(), origin.to_string(), place.clone().unwrap_or_default()]);
    }
    format!("settings of {whose}, with {file}\n\n{}", table.text())
}
