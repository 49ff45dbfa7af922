//! A program that runs beside a test or the demo, in a namespace: owned by a value, and ended with it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_for;

const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A running program and its log. Dropping it ends it; what a killed test leaves, its lab's sweep ends, as it is inside.
pub struct Program {
    child: Option<Child>,
    log: PathBuf,
}

impl Program {
    /// Starts it. What it prints and complains of goes to the log. A process group of its own keeps the terminal's signals
    /// away from a program that outlives its starter.
    pub fn start(mut command: Command, log: &Path) -> Result<Program> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Program { child: Some(child), log: log.to_owned() })
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Leaves it running.
    pub fn keep(mut self) {
        self.child = None;
    }
}

impl Drop for Program {
    /// One that was killed with its pod is only collected: its id is not given away before that.
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        if wait_for(STOP_TIMEOUT, || child.try_wait().ok().flatten()).is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
