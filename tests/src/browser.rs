//! A headless Chromium in a namespace, spoken to by the DevTools protocol over a pair of pipes.
//!
//! It goes where the namespace leads, which is the lab alone. What pages ask for and complain of is kept, to be asserted.

mod picture;
pub use picture::small;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::Namespace;

/// Debian's name of the program.
const PROGRAM: &str = "chromium";

/// It takes the pipes as its descriptors 3 and 4. Two readers open, in this order.
const LAUNCH: &str = r#"exec "$0" "$@" 3<"$XLB_TO_BROWSER" 4>"$XLB_FROM_BROWSER""#;

const FLAGS: [&str; 15] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
];

/// A start on a busy machine takes several seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: File,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    heard: VecDeque<Value>,
    directory: TempDir,
}

impl Browser {
    /// Starts one whose page has this size.
    pub fn start(namespace: &Namespace, width: u32, height: u32) -> Result<Browser> {
        let directory = tempfile::Builder::new().prefix("xlb-browser-").tempdir().context("making a directory")?;
        let [to, from] = ["to", "from"].map(|name| directory.path().join(name));
        for pipe in [&to, &from] {
            mkfifo(pipe, Mode::S_IRWXU).with_context(|| format!("making {}", pipe.display()))?;
        }
        let log = File::create(directory.path().join("log")).context("making a log")?;
        let mut command = namespace.command("sh");
        command.args(["-c", LAUNCH, PROGRAM]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", directory.path().join("data").display()));
        command.arg(format!("--window-size={width},{height}"));
        command.env("XLB_TO_BROWSER", &to).env("XLB_FROM_BROWSER", &from).env("HOME", directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("starting the browser: `cargo xtask test browser` installs it")?;
        // Each waits for the other end, which the shell opens before it becomes the browser.
        let to = File::options().write(true).open(&to).context("opening a pipe to the browser")?;
        let from = receive(File::open(&from).context("opening a pipe from the browser")?);
        let heard = VecDeque::new();
        let mut browser = Browser { child, to, from, session: None, calls: 0, heard, directory };
        browser.attach()?;
        Ok(browser)
    }

    fn attach(&mut self) -> Result<()> {
        let target = self.call("Target.createTarget", json!({ "url": "about:blank" }))?["targetId"].clone();
        let attached = self.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }))?;
        self.session = Some(attached["sessionId"].as_str().context("no session")?.to_owned());
        ["Page", "Runtime", "Log", "Network", "Accessibility"]
            .into_iter()
            .try_for_each(|domain| self.call(&format!("{domain}.enable"), json!({})).map(drop))
    }

    /// Opens an address.
    pub fn open(&mut self, address: &str) -> Result<()> {
        let opened = self.call("Page.navigate", json!({ "url": address }))?;
        ensure!(opened["errorText"].is_null(), "opening {address}: {opened}");
        Ok(())
    }

    /// What an expression of JavaScript is, in the page.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let told = self.call("Runtime.evaluate", parameters)?;
        ensure!(told["exceptionDetails"].is_null(), "evaluating {expression}: {told:#}");
        Ok(told["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub fn wait_until(&mut self, expression: &str) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.evaluate(&format!("!!({expression})"))? == true {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
        let text = self.evaluate("document.body.innerText").unwrap_or_default();
        bail!("not within {PATIENCE:?}: {expression}; the page says\n{}", text.as_str().unwrap_or_default())
    }

    /// Presses and releases a key, which has this code in the protocol's tables.
    pub fn press(&mut self, key: &str, code: u32) -> Result<()> {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" && kind == "keyDown" { "\r" } else { "" };
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Prefers dark or light.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).map(drop)
    }

    /// What a screen reader is told: role and name of each thing.
    pub fn read_out(&mut self) -> Result<Vec<(String, String)>> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}))?;
        let nodes = tree["nodes"].as_array().context("no nodes")?.iter().filter(|node| node["ignored"] != true);
        let word = |node: &Value, field: &str| node[field]["value"].as_str().unwrap_or_default().to_owned();
        Ok(nodes.map(|node| (word(node, "role"), word(node, "name"))).collect())
    }

    /// A picture of the whole page, as PNG.
    pub fn picture(&mut self) -> Result<Vec<u8>> {
        let height = self.evaluate("document.documentElement.scrollHeight")?;
        let width = self.evaluate("innerWidth")?;
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let shot = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let data = self.call("Page.captureScreenshot", shot)?["data"].clone();
        STANDARD.decode(data.as_str().context("no picture")?).context("reading a picture")
    }

    /// The addresses that pages asked for.
    pub fn requests(&mut self) -> Result<Vec<String>> {
        self.listen()?;
        let sent = self.heard.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        Ok(sent.filter_map(|event| event["params"]["request"]["url"].as_str()).map(String::from).collect())
    }

    /// What pages, and the browser about them, complained of: errors and warnings of every kind.
    pub fn complaints(&mut self) -> Result<Vec<String>> {
        self.listen()?;
        let is_complaint = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning", "assert"].iter().any(|kind| event["params"]["type"] == *kind)
            }
            Some("Log.entryAdded") => {
                ["error", "warning"].iter().any(|level| event["params"]["entry"]["level"] == *level)
            }
            _ => false,
        };
        Ok(self.heard.iter().filter(is_complaint).map(|event| event["params"].to_string()).collect())
    }

    /// Takes in what was told up to now: an answer comes behind all of it.
    fn listen(&mut self) -> Result<()> {
        self.evaluate("0").map(drop)
    }

    /// Asks for something, and waits for the answer.
    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            call["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{call}\0").as_bytes()).with_context(|| format!("telling the browser {method}"))?;
        loop {
            let message = match self.from.recv_timeout(PATIENCE) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => bail!("no answer to {method} within {PATIENCE:?}{}", self.log()),
                Err(RecvTimeoutError::Disconnected) => bail!("the browser has ended at {method}{}", self.log()),
            };
            match message["id"].as_u64() {
                Some(id) if id == self.calls => {
                    ensure!(message["error"].is_null(), "{method}: {}", message["error"]);
                    return Ok(message["result"].clone());
                }
                _ => self.heard.push_back(message),
            }
        }
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        format!("; it said\n{log}")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let is_asked = self.call("Browser.close", json!({})).is_ok();
        if !is_asked {
            // It may have ended by itself.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Messages end with a zero byte.
fn receive(from: File) -> Receiver<Value> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for message in BufReader::new(from).split(0).map_while(Result::ok) {
            let Ok(message) = serde_json::from_slice(&message) else { continue };
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}
