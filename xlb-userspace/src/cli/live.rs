//! The commands that look at a node that serves.

use anyhow::Result;
use clap::Subcommand;

use super::{doctor, top};

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum LiveCommand {
    /// Look for what on this node keeps xlb from serving, and say how to mend it; works without an agent
    Doctor(doctor::DoctorArgs),
    /// What is going on: packets, bytes and new flows of each service, its backends, drops, and how full the maps are
    Top(top::TopArgs),
}

/// Does it.
///
/// # Errors
/// As the command says.
pub fn run(command: LiveCommand) -> Result<()> {
    match command {
        LiveCommand::Doctor(args) => doctor::doctor(args),
        LiveCommand::Top(args) => top::top(&args),
    }
}
