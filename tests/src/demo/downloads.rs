//! Downloads by curl that run while pods come and go, compared byte by byte.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddrV4;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::interrupt;
use super::stage::{CLIENTS, CONTENT_BYTES, Stage, VIP, pod_name};
use crate::lab::Pattern;

/// Downloads that an act begins with.
const DOWNLOADS_MIN: usize = 6;
/// Downloads after which a pod without one is no accident any more.
const DOWNLOADS_MAX: usize = 40;
/// The first source port of a download. It is below the ephemeral ports.
const FIRST_PORT: u16 = 20_000;
const HEADERS_TIMEOUT: Duration = Duration::from_secs(3);
const BUFFER_BYTES: usize = 65_536;

/// A running curl.
pub struct Download {
    /// The pod that answers.
    pub pod: String,
    /// The client's end of the connection.
    pub client: SocketAddrV4,
    curl: Child,
    right_bytes: JoinHandle<u64>,
}

/// What came of a download.
pub struct Outcome {
    /// The pod that answered.
    pub pod: String,
    /// The client's end of the connection.
    pub client: SocketAddrV4,
    /// The right bytes, from the start to the end or to the first wrong one.
    pub right_bytes: u64,
    /// curl's exit code; nothing when a signal ended it.
    pub exit_code: Option<i32>,
    /// What curl said.
    pub complaint: String,
}

/// Starts downloads by the clients in turn until each of the pods has one. `first` counts the downloads of the demo,
/// so that none reuses the port of an earlier one.
pub fn start_for_each(stage: &Stage, pods: &[usize], first: usize) -> Result<Vec<Download>> {
    let mut downloads = Vec::new();
    for number in first..first + DOWNLOADS_MAX {
        downloads.push(Download::start(stage, number)?);
        let has_one = |&pod: &usize| downloads.iter().any(|download: &Download| download.pod == pod_name(pod));
        if downloads.len() >= DOWNLOADS_MIN && pods.iter().all(has_one) {
            return Ok(downloads);
        }
    }
    bail!("of {DOWNLOADS_MAX} downloads, none came to one of the pods {pods:?}")
}

/// How many of the downloads each pod has.
pub fn by_pod(downloads: &[Download]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for download in downloads {
        *counts.entry(download.pod.as_str()).or_default() += 1;
    }
    counts
}

/// Waits for all of them.
pub fn finish(downloads: Vec<Download>) -> Result<Vec<Outcome>> {
    downloads.into_iter().map(Download::finish).collect()
}

impl Download {
    /// Starts curl, and waits for the headers, which name the pod.
    pub fn start(stage: &Stage, number: usize) -> Result<Download> {
        interrupt::check()?;
        let client = number % CLIENTS;
        let port = FIRST_PORT + u16::try_from(number).context("too many downloads")?;
        let own = SocketAddrV4::new(stage.lab.client_address(client), port);
        let mut command = stage.lab.client(client).command("curl");
        command
            .args(["--silent", "--show-error", "--include", "--speed-limit", "1000", "--speed-time", "3"])
            .args(["--local-port", &port.to_string(), &format!("http://{VIP}/slow")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut curl = command.spawn().context("starting curl")?;
        let stdout = curl.stdout.take().context("stdout is piped")?;
        let (name, named) = channel();
        let right_bytes = thread::spawn(move || read_response(stdout, &name));
        let pod = pod_of(&named).inspect_err(|_| {
            // curl may have ended by itself; then there is nothing to kill.
            let _ = curl.kill();
        })?;
        Ok(Download { pod, client: own, curl, right_bytes })
    }

    /// Whether it goes on.
    pub fn is_running(&mut self) -> bool {
        matches!(self.curl.try_wait(), Ok(None))
    }

    /// Ends curl in the middle.
    pub fn abandon(mut self) -> Result<()> {
        self.curl.kill()?;
        self.curl.wait()?;
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome> {
        while self.is_running() {
            interrupt::check()?;
            thread::sleep(Duration::from_millis(10));
        }
        let right_bytes = self.right_bytes.join().ok().context("reading a download")?;
        let output = self.curl.wait_with_output()?;
        Ok(Outcome {
            pod: self.pod,
            client: self.client,
            right_bytes,
            exit_code: output.status.code(),
            complaint: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

impl Outcome {
    /// Whether all bytes came, every one right.
    pub fn is_complete(&self) -> bool {
        self.exit_code == Some(0) && self.right_bytes == CONTENT_BYTES
    }

    /// What the client saw, in words.
    pub fn in_words(&self) -> &str {
        match self.exit_code {
            Some(0) if self.is_complete() => "complete, every byte right",
            Some(0) => "curl is content, yet bytes are wrong or missing",
            Some(18) => "the connection was closed before the end",
            Some(28) => "nothing came any more, and curl gave up",
            Some(56) => "the connection was reset",
            _ => &self.complaint,
        }
    }
}

fn pod_of(named: &Receiver<String>) -> Result<String> {
    let name = named.recv_timeout(HEADERS_TIMEOUT).context("a download got no answer")?;
    ensure!(name.starts_with("pod-"), "a download was answered by {name:?}");
    Ok(name)
}

/// The headers come first, as curl's `--include` prints them; an empty line ends them.
fn read_response(stdout: ChildStdout, name: &Sender<String>) -> u64 {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, stdout);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 0) && !line.trim().is_empty() {
        if let Some(pod) = line.strip_prefix("X-Pod:") {
            // The demo may have given up waiting.
            let _ = name.send(pod.trim().to_owned());
        }
        line.clear();
    }
    count_right_bytes(&mut reader)
}

fn count_right_bytes(reader: &mut impl Read) -> u64 {
    let mut pattern = Pattern::default();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = reader.read(&mut buffer).unwrap_or_default();
        if length == 0 {
            return pattern.position();
        }
        if let Err(right_bytes) = pattern.check(&buffer[..length]) {
            return right_bytes;
        }
    }
}
