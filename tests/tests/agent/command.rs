//! Running `xlb` to its end: its exit code, and what it said.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use xlb_tests::lab::{Lab, Manifests, wait_for, xlb_binary};

use crate::stage::with_sizes;

/// A command that should end and does not within this time has failed the test.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed on either output.
    pub text: String,
}

impl Ended {
    /// It failed as a command of xlb should, and each of these texts is in what it said.
    #[track_caller]
    pub fn is_refused_with(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(1), "{}", self.text);
        self.says(parts);
        assert!(!self.text.contains("panicked"), "{}", self.text);
    }

    /// Each of these texts is in what it said.
    #[track_caller]
    pub fn says(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.text.contains(part), "{part:?} is missing in: {}", self.text);
        }
    }
}

/// `xlb run` on the lab's first uplink, with the usual pin directory.
pub fn agent(lab: &Lab, manifests: &Manifests, extra_arguments: &[&str]) -> Vec<String> {
    let manifests = manifests.path().display().to_string();
    let arguments = ["run", "--uplink", "eth0", "--node-name", "node", "--manifests", &manifests];
    with_pins(lab, &with_sizes(&[&arguments, extra_arguments].concat()))
}

/// Starts an agent that should not come up.
pub fn refused_agent(lab: &Lab, manifests: &Manifests, extra_arguments: &[&str]) -> Result<Ended> {
    run(lab, xlb_binary(), &agent(lab, manifests, extra_arguments))
}

/// Runs another command of xlb on the node and the usual pin directory.
pub fn xlb(lab: &Lab, arguments: &[&str]) -> Result<Ended> {
    run(lab, xlb_binary(), &with_pins(lab, arguments))
}

/// Runs a program on the node to its end.
pub fn run(lab: &Lab, program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>]) -> Result<Ended> {
    let mut command = lab.node().command(program);
    command.args(arguments);
    finish(command)
}

/// Unless the arguments name a pin directory themselves.
fn with_pins(lab: &Lab, arguments: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    if !arguments.iter().any(|argument| argument == "--bpffs-dir") {
        arguments.extend(["--bpffs-dir".to_owned(), lab.pin_directory().display().to_string()]);
    }
    arguments
}

/// Runs a command to its end. What these commands print fits into a pipe.
pub fn finish(mut command: Command) -> Result<Ended> {
    let described = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {described}"))?;
    let has_ended = wait_for(END_TIMEOUT, || child.try_wait().ok().flatten()).is_some();
    if !has_ended {
        child.kill()?;
    }
    let output = child.wait_with_output()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    anyhow::ensure!(has_ended, "{described} goes on after {END_TIMEOUT:?}; it said: {text}");
    Ok(Ended { code: output.status.code(), text })
}
