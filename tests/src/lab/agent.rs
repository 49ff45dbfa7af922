//! The program under test, `xlb run`, on the node of a lab.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::panicking;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use xlb_common::abi::ABI_VERSION;

use super::namespace::Namespace;
use super::sandbox::Sandbox;
use super::topology::Lab;
use super::wait::wait_for;

const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Long enough for the kernel's verifier to look at all programs while others keep the machine busy.
const CONDITION_TIMEOUT: Duration = Duration::from_secs(120);

/// Labs share the machine's cgroups and their VIPs: agents that served clients inside would meet the sockets of other
/// labs, and those of the lab's own clients, which stand for machines elsewhere. Who wants it names a cgroup, too.
const CLIENTS_INSIDE: &str = "--clients-inside";

/// In labs no kube-proxy served before, unless a test says so: unknown packets are the slots' owners' then.
const HANDOVER: &str = "--handover";

/// A running or stopped agent. Dropping it stops it and removes its pins, if it was the first to pin there.
pub struct Agent {
    node: Namespace,
    binary: PathBuf,
    sandbox: Option<(Sandbox, String)>,
    arguments: Vec<String>,
    pin_directory: PathBuf,
    owns_pins: bool,
    logs: TempDir,
    child: Option<Child>,
}

impl Agent {
    /// Starts `xlb run` on all uplinks of the lab's node. It may take a moment until it serves: see
    /// [`Agent::wait_until`].
    pub fn start(lab: &Lab, manifests: &Path, extra_arguments: &[&str]) -> Result<Agent> {
        let manifests = manifests.display().to_string();
        Agent::start_with(lab, &[&["--manifests", &manifests], extra_arguments].concat())
    }

    /// The same with another source, which is among the arguments.
    pub fn start_with(lab: &Lab, arguments: &[&str]) -> Result<Agent> {
        let mut agent = Agent::stopped(lab, arguments)?;
        agent.start_again()?;
        Ok(agent)
    }

    /// The same of a program in a sandbox.
    pub fn start_in(lab: &Lab, sandbox: Sandbox, program: &str, arguments: &[&str]) -> Result<Agent> {
        let mut agent = Agent::stopped(lab, arguments)?;
        agent.sandbox = Some((sandbox, program.to_owned()));
        agent.start_again()?;
        Ok(agent)
    }

    fn stopped(lab: &Lab, arguments: &[&str]) -> Result<Agent> {
        let uplinks: Vec<&str> = lab.uplinks().iter().map(|uplink| uplink.node_device.as_str()).collect();
        let uplinks = uplinks.join(",");
        let first = ["run", "--uplink", &uplinks, "--node-name", "node"];
        let inside: &[&str] = if arguments.contains(&CLIENTS_INSIDE) { &[] } else { &[CLIENTS_INSIDE, "off"] };
        let handover: &[&str] = if arguments.contains(&HANDOVER) { &[] } else { &[HANDOVER, "0"] };
        let all: Vec<&str> = first.iter().chain(arguments).chain(inside).chain(handover).copied().collect();
        Agent::stopped_as_told(lab, &all)
    }

    /// Starts it with all arguments from the caller, and by way of a program that runs it.
    pub fn start_by(lab: &Lab, runner: &[&str], arguments: &[&str]) -> Result<Agent> {
        let mut agent = Agent::stopped_as_told(lab, arguments)?;
        agent.start_again_by(runner)?;
        Ok(agent)
    }

    fn stopped_as_told(lab: &Lab, arguments: &[&str]) -> Result<Agent> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let pin_directory = lab.pin_directory();
        Ok(Agent {
            node: lab.node().clone(),
            binary: xlb_binary(),
            sandbox: None,
            arguments,
            owns_pins: !pin_directory.exists(),
            pin_directory,
            logs: tempfile::Builder::new().prefix("xlb-agent-").tempdir().context("making a directory")?,
            child: None,
        })
    }

    /// Starts `xlb` with these arguments alone, and with more in its environment: all else is told by what they name.
    pub fn start_bare(lab: &Lab, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Agent> {
        let variables: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let runner: Vec<&str> = ["env"].into_iter().chain(variables.iter().map(String::as_str)).collect();
        Agent::start_by(lab, &runner, arguments)
    }

    /// From the next start on the agent is another binary, as after an upgrade.
    pub fn become_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// From the next start on an argument has another value.
    pub fn set_argument(&mut self, name: &str, value: &str) {
        match self.arguments.iter().position(|argument| argument == name) {
            Some(at) => value.clone_into(&mut self.arguments[at + 1]),
            None => self.arguments.extend([name.to_owned(), value.to_owned()]),
        }
    }

    /// Makes the pins of an agent that does not run those of another version of the map ABI.
    pub fn become_version(&self, version: u32) -> Result<()> {
        ensure!(self.child.is_none(), "the agent runs");
        let own = self.pin_directory.join(format!("v{ABI_VERSION}"));
        fs::rename(own, self.pin_directory.join(format!("v{version}"))).context("renaming the pins")
    }

    /// Starts a stopped or killed agent with the arguments it had. The log goes on.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_again_by(&[])
    }

    /// The same by way of a program that runs it, such as `env` or `strace`.
    pub fn start_again_by(&mut self, runner: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "the agent runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).context("opening the log")?;
        let mut command = match runner {
            [] => match &self.sandbox {
                None => self.xlb(&self.arguments),
                Some((sandbox, program)) => {
                    let mut command = sandbox.command(&self.node, program)?;
                    self.add_arguments(&mut command, &self.arguments);
                    command
                }
            },
            [program, arguments @ ..] => {
                let mut command = self.node.command(program);
                command.args(arguments).arg(&self.binary);
                self.add_arguments(&mut command, &self.arguments);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("starting {}", command.get_program().display()))?);
        Ok(())
    }

    /// Whether the agent was started, and has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Asks the agent to stop with SIGTERM, and kills it if it does not within 5 s, which is an error. One that has
    /// ended by itself says how.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("stopping an agent that does not run")?;
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        kill(pid_of(&child), Signal::SIGTERM).context("sending SIGTERM")?;
        if let Some(status) = wait_for(STOP_TIMEOUT, || child.try_wait().ok().flatten()) {
            return Ok(status);
        }
        child.kill()?;
        child.wait()?;
        anyhow::bail!("the agent did not stop within {STOP_TIMEOUT:?} of SIGTERM");
    }

    /// Kills the agent with SIGKILL. Its pins stay.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("killing an agent that does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits for the agent to end by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let child = self.child.as_mut().context("waiting for an agent that does not run")?;
        let status = wait_for(CONDITION_TIMEOUT, || child.try_wait().ok().flatten());
        let status = status.with_context(|| format!("the agent goes on after {CONDITION_TIMEOUT:?}"))?;
        self.child = None;
        Ok(status)
    }

    /// The process id of a running agent.
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What the agent has written so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The live maps, read by `xlb inspect`, which needs no running agent.
    pub fn inspect(&self) -> Result<Value> {
        let json = self.run_xlb(&["inspect"])?;
        serde_json::from_str(&json).with_context(|| format!("reading {json}"))
    }

    /// Runs another subcommand of xlb on the node and the agent's pins, and returns what it printed.
    pub fn run_xlb(&self, arguments: &[&str]) -> Result<String> {
        let output = self.xlb(arguments).output().with_context(|| format!("starting {}", xlb_binary().display()))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "xlb {}: {complaint}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until the live maps fulfil a condition, and returns them. After [`CONDITION_TIMEOUT`], or when the agent has ended,
    /// panics with the maps; the log follows when the agent is dropped.
    pub fn wait_until(&mut self, condition: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let found = wait_for(CONDITION_TIMEOUT, || {
            // Before the agent has pinned its maps there is nothing to inspect.
            let seen = last.insert(self.inspect());
            let fulfilled = seen.as_ref().is_ok_and(&condition);
            (fulfilled || self.has_ended()).then_some(fulfilled)
        });
        match (found, last) {
            (Some(true), Some(Ok(maps))) => maps,
            (found, last) => {
                let why = if found.is_some() { "the agent has ended" } else { "the time is over" };
                let maps = last.map(|seen| seen.map(|maps| format!("{maps:#}")).unwrap_or_else(|e| format!("{e:#}")));
                panic!("{why}; last inspect:\n{}", maps.unwrap_or_default())
            }
        }
    }

    /// The same, until the maps' report is this agent's own, and not that of one before it.
    pub fn wait_until_it_reports(&mut self) -> Value {
        let pid = self.process();
        self.wait_until(|maps| maps["agent"]["pid"].as_u64() == pid.map(u64::from))
    }

    fn xlb(&self, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Command {
        let mut command = self.node.command(&self.binary);
        self.add_arguments(&mut command, arguments);
        command
    }

    fn add_arguments(&self, command: &mut Command, arguments: &[impl AsRef<std::ffi::OsStr>]) {
        command.args(arguments).arg("--bpffs-dir").arg(&self.pin_directory);
    }

    /// A directory that goes with this value, where the log is.
    pub fn directory(&self) -> &Path {
        self.logs.path()
    }

    fn log_file(&self) -> PathBuf {
        self.logs.path().join("log")
    }

    fn titled_log(&self) -> String {
        format!("--- log of the agent on {} ---\n{}--- end of log ---", self.node.name(), self.log())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.stop()
        {
            eprintln!("lab: {error:#}");
        }
        if panicking() {
            eprintln!("{}", self.titled_log());
        }
        if self.owns_pins && self.pin_directory.exists() {
            // What cleanup leaves, the removal of the directory takes: a pin that is gone holds nothing alive.
            let _ = self.run_xlb(&["cleanup"]);
            let _ = fs::remove_dir_all(&self.pin_directory);
        }
    }
}

/// The binary under test: `XLB_BINARY`, or what `cargo build` made in this workspace.
pub fn xlb_binary() -> PathBuf {
    env::var_os("XLB_BINARY")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug/xlb"), PathBuf::from)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("process ids fit in i32"))
}

/// What `xlb inspect` shows and no traffic changes: all but the numbers of services.
pub fn without_traffic(mut maps: Value) -> Value {
    maps["services"].as_array_mut().into_iter().flatten().for_each(|service| service["traffic"] = Value::Null);
    maps
}
