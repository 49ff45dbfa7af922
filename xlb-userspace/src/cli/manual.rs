//! What shells and `man` know of xlb, made from the definition of its flags.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use super::output::print;

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Where to.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where xlb.1, xlb-status.1 and the like are written; made if it is not there
    directory: PathBuf,
}

/// Prints a script for a shell.
///
/// # Errors
/// When it cannot be written.
pub fn completions(mut command: Command, args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "xlb", &mut script);
    print(&String::from_utf8_lossy(&script)).map(drop)
}

/// Writes the manual pages.
///
/// # Errors
/// When the directory cannot be made, or a page not written.
pub fn pages(command: Command, args: &ManArgs) -> Result<()> {
    let to = args.directory.display();
    fs::create_dir_all(&args.directory).with_context(|| format!("making {to} for the manual pages"))?;
    clap_mangen::generate_to(command, &args.directory).with_context(|| format!("writing manual pages into {to}"))
}
