//! Processes that take part in a load: one for each pod and for each client, as a process may have too few sockets for all.
//!
//! A worker is `xlb-bench work …` inside a namespace. It hears lines on its standard input, whose end is its own, and speaks
//! in lines: how many connections are open, and in the end what became of them.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _, stdin, stdout};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::watch;

use crate::lab::Namespace;

const PROGRAM: &str = "xlb-bench";
/// Between two words about what is open.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// How a line begins that says how many connections are open.
const OPEN: &str = "open ";
/// How long a worker may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process. Dropping it ends it.
pub(super) struct Worker {
    child: Child,
    commands: Option<ChildStdin>,
    open: Arc<AtomicUsize>,
    listener: Option<JoinHandle<String>>,
}

impl Worker {
    /// Starts one; when this returns, it has spoken.
    pub fn start(namespace: &Namespace, arguments: &[String]) -> Result<Worker> {
        let program = program()?;
        let mut command = namespace.command(&program);
        command.arg("work").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let commands = child.stdin.take();
        let output = child.stdout.take().context("no output")?;
        let (open, (first, is_first)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel());
        let seen = Arc::clone(&open);
        let listener = thread::spawn(move || {
            let mut last = String::new();
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match line.strip_prefix(OPEN) {
                    Some(count) => seen.store(count.parse().unwrap_or_default(), Ordering::Relaxed),
                    None => last = line,
                }
                let _ = first.send(());
            }
            last
        });
        let worker = Worker { child, commands, open, listener: Some(listener) };
        is_first.recv_timeout(PATIENCE).ok().with_context(|| format!("no word from the worker {arguments:?}"))?;
        Ok(worker)
    }

    /// How many connections it had open a moment ago.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Says a line to it.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let commands = self.commands.as_mut().context("a worker that was told to end")?;
        writeln!(commands, "{line}").context("speaking to a worker")
    }

    /// Tells it to end, without waiting for that.
    pub fn ask_to_end(&mut self) {
        self.commands = None;
    }

    /// Its last word.
    pub fn finish(mut self) -> Result<String> {
        self.ask_to_end();
        let last = self.listener.take().and_then(|listener| listener.join().ok()).context("a worker without words")?;
        ensure!(self.child.wait()?.success(), "a worker failed");
        Ok(last)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.commands = None;
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program itself, or the one that cargo built beside the test that runs.
fn program() -> Result<PathBuf> {
    let own = env::current_exe().context("finding this program")?;
    let folders = own.ancestors().skip(1).take(2);
    let mut programs = folders.map(|folder| folder.join(PROGRAM));
    let found = programs.find(|program| program.is_file());
    found.with_context(|| format!("no {PROGRAM} beside {}", own.display()))
}

/// In a worker: the lines that it hears. None is its end.
pub(super) fn commands() -> watch::Receiver<Option<String>> {
    let (heard, commands) = watch::channel(Some(String::new()));
    thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            heard.send_replace(Some(line));
        }
        heard.send_replace(None);
    });
    commands
}

/// In a worker: says now and then how many connections are open.
pub(super) async fn tell_of(open: Arc<AtomicUsize>) {
    let mut told = None;
    loop {
        let now = open.load(Ordering::Relaxed);
        if told != Some(now) {
            say(&format!("{OPEN}{now}"));
            told = Some(now);
        }
        tokio::time::sleep(REPORT_INTERVAL).await;
    }
}

/// In a worker: says a line. Nobody may hear it any more.
pub(super) fn say(line: &str) {
    let _ = writeln!(stdout().lock(), "{line}");
}
