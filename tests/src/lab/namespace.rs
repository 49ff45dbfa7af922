//! One network namespace: running code, programs and settings inside it.
//!
//! A thread or a child enters with setns(2) only. `ip netns exec` would mount another /sys, where bpffs is missing.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// IPv6 would only add neighbour discovery to what tests capture and count.
const NO_IPV6: [(&str, &str); 2] =
    [("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")];
/// Addresses that can be used as soon as they are there: nobody else has them, and no router announces any.
const IPV6_AT_ONCE: [(&str, &str); 4] = [
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
];

/// A handle on a named network namespace. Clones are handles on the same one; its [`super::Lab`] deletes it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    /// Creates the named namespaces with one process.
    pub(super) fn create_all(names: &[String], dual_stack: bool) -> Result<Vec<Namespace>> {
        let lines = names.iter().fold(String::new(), |mut lines, name| {
            let _ = writeln!(lines, "netns add {name}");
            lines
        });
        run_ip(Command::new("ip"), &lines).context("creating namespaces")?;
        names.iter().map(|name| Namespace::open(name, dual_stack)).collect()
    }

    fn open(name: &str, dual_stack: bool) -> Result<Namespace> {
        let path = path_of(name);
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let namespace = Namespace { name: name.to_owned(), file: Arc::new(file) };
        namespace.sysctl(if dual_stack { &IPV6_AT_ONCE } else { &NO_IPV6 })?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns list` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `body` on a fresh thread inside the namespace and waits for it. Its panic becomes the caller's.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                body()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread that stays inside the namespace.
    pub fn spawn<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let namespace = self.clone();
        thread::spawn(move || {
            namespace.enter();
            body()
        })
    }

    /// A command whose process runs inside the namespace and sees this process's mounts, bpffs included.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let file = Arc::clone(&self.file);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call, setns, on a descriptor that it owns;
        // it neither allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || Ok(setns(&file, CloneFlags::CLONE_NEWNET)?));
        }
        command
    }

    /// Runs lines of `ip` commands, without the word `ip`, in one process. The first failing line ends it.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run_ip(self.command("ip"), lines).with_context(|| format!("configuring {}", self.name))
    }

    /// Waits until these devices carry packets, when both ends of their links are up.
    ///
    /// Until the kernel's link watch has run, a device that has just got its carrier drops what it should send, and
    /// the ARP or SYN that is lost comes again a second later. Asking for one device runs the watch: rtnl_getlink().
    pub(super) fn settle(&self, devices: impl IntoIterator<Item = String>) -> Result<()> {
        self.ip(&devices.into_iter().fold(String::new(), |mut lines, device| {
            let _ = writeln!(lines, "link show dev {device}");
            lines
        }))
    }

    /// Runs a program to its end and returns what it printed; a failure carries what it complained of.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .with_context(|| format!("starting {program} in {}", self.name))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {} in {}: {complaint}", arguments.join(" "), self.name);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes kernel settings, as `("net.ipv4.ip_forward", "1")`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        // /proc/sys/net shows the namespace of the thread that opens a file in it.
        self.run(|| {
            for (key, value) in settings {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                fs::write(&path, value).with_context(|| format!("setting {key}={value} in {}", self.name))?;
            }
            Ok(())
        })
    }

    /// The link address of a device.
    pub fn link_address(&self, device: &str) -> Result<[u8; 6]> {
        let found = self.run(|| {
            let entries = nix::ifaddrs::getifaddrs().ok()?;
            let mut addresses = entries.filter(|entry| entry.interface_name == device);
            addresses.find_map(|entry| entry.address?.as_link_addr()?.addr())
        });
        found.with_context(|| format!("no link address on {device} in {}", self.name))
    }

    /// The index of a device.
    pub fn ifindex(&self, device: &str) -> Result<u32> {
        let found = self.run(|| nix::net::if_::if_nametoindex(device));
        found.with_context(|| format!("finding {device} in {}", self.name))
    }

    fn enter(&self) {
        setns(&self.file, CloneFlags::CLONE_NEWNET).expect("the lab runs as root");
    }
}

/// Where iproute2 keeps its names.
pub(super) const NAMES_DIRECTORY: &str = "/run/netns";

/// The file behind a name.
pub(super) fn path_of(name: &str) -> PathBuf {
    Path::new(NAMES_DIRECTORY).join(name)
}

/// Feeds lines to one `ip` process.
pub(super) fn run_ip(mut ip: Command, lines: &str) -> Result<()> {
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip (package iproute2)")?;
    // A process that stopped at a bad line closes the pipe; its complaint says more than EPIPE.
    let _ = child.stdin.take().expect("stdin is piped").write_all(lines.as_bytes());
    let output = child.wait_with_output().context("waiting for ip")?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{}in:\n{}", String::from_utf8_lossy(&output.stderr), numbered(lines));
}

fn numbered(lines: &str) -> String {
    lines.lines().enumerate().fold(String::new(), |mut text, (index, line)| {
        let _ = writeln!(text, "{:>3} {line}", index + 1);
        text
    })
}
