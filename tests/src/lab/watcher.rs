//! A command that tells of packets as they come: `xlb watch`, `capture`, `explain --next`.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::agent::xlb_binary;
use super::topology::Lab;

/// A command that listens until it is ended. Dropping it ends it.
pub struct Watch {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: BufReader<ChildStderr>,
    /// What it said before it listened.
    pub said: String,
}

impl Watch {
    /// Starts it on the node, and waits until it listens.
    pub fn start(lab: &Lab, arguments: &[&str]) -> Result<Watch> {
        let mut command = lab.node().command(xlb_binary());
        command.args(arguments).arg("--bpffs-dir").arg(lab.pin_directory());
        let mut watch = Watch::of(command)?;
        watch.until_listening()?;
        Ok(watch)
    }

    /// The same of a command, which may not listen yet.
    pub fn of(mut command: Command) -> Result<Watch> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let out = BufReader::new(child.stdout.take().context("its output")?).lines();
        let err = BufReader::new(child.stderr.take().context("its errors")?);
        Ok(Watch { child, out, err, said: String::new() })
    }

    /// It says so, after all that it cannot see.
    pub fn until_listening(&mut self) -> Result<()> {
        loop {
            let line = self.warning()?;
            if line.is_empty() {
                bail!("it ended: {}", self.said);
            }
            self.said.push_str(&line);
            if line.starts_with("listening at ") {
                return Ok(());
            }
        }
    }

    /// The next event; none: it has ended.
    pub fn event(&mut self) -> Result<Option<Value>> {
        match self.out.next() {
            Some(line) => Ok(Some(serde_json::from_str(&line?)?)),
            None => Ok(None),
        }
    }

    /// Events until a condition holds.
    pub fn until(&mut self, is_enough: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        while !is_enough(&events) {
            events.push(self.event()?.with_context(|| format!("it ended after {events:#?}"))?);
        }
        Ok(events)
    }

    /// As Ctrl-C does.
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(Signal::SIGINT)
    }

    /// It reads nothing until it goes on.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// After a pause.
    pub fn go_on(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    /// Interrupts it; it ends well, and this is what it says then.
    pub fn end(&mut self) -> Result<String> {
        self.interrupt()?;
        let said = self.rest()?;
        ensure!(self.child.wait()?.success(), "{said}");
        Ok(said)
    }

    /// Kills it: it has no say.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lines until there is one of a kind.
    pub fn lines_until(&mut self, is_last: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| is_last(line)) {
            lines.push(self.out.next().with_context(|| format!("it ended after {lines:#?}"))??);
        }
        Ok(lines)
    }

    /// All lines until it ends.
    pub fn lines(&mut self) -> Result<Vec<String>> {
        let lines: std::io::Result<Vec<String>> = self.out.by_ref().collect();
        Ok(lines?)
    }

    /// The next sentence for people.
    pub fn warning(&mut self) -> Result<String> {
        let mut line = String::new();
        self.err.read_line(&mut line)?;
        Ok(line)
    }

    /// What else it says until it ends.
    pub fn rest(&mut self) -> Result<String> {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.err, &mut text)?;
        Ok(text)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
