//! The commands that look at a node that serves, and at its packets.

use anyhow::Result;
use clap::Subcommand;

use super::{doctor, top, watch};

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum LiveCommand {
    /// Look for what on this node keeps xlb from serving, and say how to mend it; works without an agent
    Doctor(doctor::DoctorArgs),
    /// What is going on: packets, bytes and new flows of each service, its backends, drops, and how full the maps are
    Top(top::TopArgs),
    /// Packets as they come, each with what the packet path says of it
    Watch(watch::WatchArgs),
    /// Write packets of a Service, before and after translation, to a file for Wireshark
    Capture(watch::CaptureArgs),
}

/// Does it.
///
/// # Errors
/// As the command says.
pub fn run(command: LiveCommand) -> Result<()> {
    match command {
        LiveCommand::Doctor(args) => doctor::doctor(args),
        LiveCommand::Top(args) => top::top(&args),
        LiveCommand::Watch(args) => watch::watch(args),
        LiveCommand::Capture(args) => watch::capture(args),
    }
}
