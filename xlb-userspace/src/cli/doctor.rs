//! `xlb doctor`: prints what [`crate::doctor`] finds.

use std::fmt::Write;

use anyhow::{Result, bail};
use clap::Args;

use super::PinArgs;
use super::output::OutputArgs;
use crate::doctor::{Finding, Verdict, findings, read};
use crate::maps::pins::PinDirectory;

/// What to look at.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Interfaces on which outside traffic arrives; without it, those that are served
    #[arg(long = "uplink", value_delimiter = ',', value_name = "IF[,IF]")]
    uplinks: Vec<String>,
    /// Leave out what is as it should be
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pins: PinArgs,
}

/// Prints all findings.
///
/// # Errors
/// When one of them is a problem.
pub fn doctor(args: DoctorArgs) -> Result<()> {
    let pins = PinDirectory::new(args.pins.bpffs_dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let facts = runtime.block_on(read::facts(&pins, &args.uplinks))?;
    let mut found = findings(&facts);
    found.retain(|finding| !args.quiet || finding.verdict != Verdict::Ok);
    args.output.print(&found, |found, _| text(found))?;
    match found.iter().filter(|finding| finding.verdict == Verdict::Problem).count() {
        0 => Ok(()),
        1 => bail!("xlb doctor found a problem"),
        count => bail!("xlb doctor found {count} problems"),
    }
}

/// One line for each finding, and one for what to do.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { check, object, verdict, evidence, remedy } in findings {
        let _ = writeln!(text, "{:<11} {check:<14} {object}: {evidence}", verdict.word());
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "{:<11} {:<14} -> {remedy}", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_what_to_do_another() {
        let found = [
            Finding::ok("jit", "node", "net.core.bpf_jit_enable is 1"),
            Finding::problem("uplink", "eth0", "it is down", "ip link set eth0 up"),
        ];
        let expected = "ok          jit            node: net.core.bpf_jit_enable is 1\n\
                        problem     uplink         eth0: it is down\n\
                        \u{20}                          -> ip link set eth0 up\n";
        assert_eq!(text(&found), expected);
    }
}
