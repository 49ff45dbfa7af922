//! What runs in a pod: nginx and dnsmasq, each with its own files, and what their logs say about clients.

use std::fs::{self, File};
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::interrupt::wait_until;
use crate::lab::{Namespace, wait_for};

/// Where nginx listens in a pod.
pub const HTTP_TARGET_PORT: u16 = 8080;
/// Where dnsmasq listens in a pod.
pub const DNS_TARGET_PORT: u16 = 5353;
/// The name that clients ask for; its TXT record is the pod's name.
pub const DNS_NAME: &str = "whoami.xlb.test";

const START_TIMEOUT: Duration = Duration::from_secs(5);
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The servers of one pod. Dropping them ends them.
pub struct Servers {
    directory: PathBuf,
    children: Vec<Child>,
}

impl Servers {
    /// Starts both and waits until they serve. `content` is the file that nginx has for downloads.
    pub fn start(pod: &Namespace, name: &str, directory: PathBuf, content: &Path) -> Result<Servers> {
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        fs::write(directory.join("nginx.conf"), nginx_configuration(name, content))?;
        let mut servers = Servers { directory, children: Vec::new() };
        servers.spawn(nginx(pod, &servers.directory), "nginx")?;
        servers.spawn(dnsmasq(pod, name), "dnsmasq")?;
        wait_until(START_TIMEOUT, &format!("nginx in {name}"), || {
            pod.run(|| TcpStream::connect(("127.0.0.1", HTTP_TARGET_PORT))).ok()
        })?;
        wait_until(START_TIMEOUT, &format!("dnsmasq in {name}"), || {
            servers.read("dnsmasq.log").contains("started").then_some(())
        })?;
        Ok(servers)
    }

    /// A process group of its own keeps the terminal's signals away from a server that outlives the demo.
    fn spawn(&mut self, mut command: Command, name: &str) -> Result<()> {
        let log = File::create(self.directory.join(format!("{name}.log"))).context("creating a log")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.children.push(command.spawn().with_context(|| format!("starting {name}"))?);
        Ok(())
    }

    /// The clients whose requests nginx has logged.
    pub fn http_clients(&self) -> Vec<SocketAddrV4> {
        self.read("access.log").lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
    }

    /// The clients whose queries dnsmasq has logged, as in
    /// `dnsmasq: 7 198.51.100.10/30001 query[TXT] whoami.xlb.test from 198.51.100.10`.
    pub fn dns_clients(&self) -> Vec<SocketAddrV4> {
        let log = self.read("dnsmasq.log");
        let queries = log.lines().filter_map(|line| line.split_once(" query[")?.0.rsplit(' ').next());
        queries.filter_map(|client| client.replace('/', ":").parse().ok()).collect()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory.join(file)).unwrap_or_default()
    }

    /// Leaves them running.
    pub fn keep(mut self) {
        self.children.clear();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            end(child);
        }
    }
}

/// One that was killed with its pod is only collected: its id is not given away before that.
fn end(child: &mut Child) {
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
    if wait_for(STOP_TIMEOUT, || child.try_wait().ok().flatten()).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn nginx(pod: &Namespace, directory: &Path) -> Command {
    let mut command = pod.command("nginx");
    command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "error.log"]);
    command
}

fn nginx_configuration(name: &str, content: &Path) -> String {
    let content = content.display();
    format!(
        r#"
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
events {{ worker_connections 256; }}
http {{
    log_format clients '$remote_addr:$remote_port "$request" $status';
    access_log access.log clients;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type text/plain;
    server {{
        listen {HTTP_TARGET_PORT};
        add_header X-Pod {name};
        location = / {{ return 200 "{name} $remote_addr:$remote_port\n"; }}
        location = /big {{ alias {content}; }}
        location = /slow {{ alias {content}; limit_rate 2m; }}
    }}
}}
"#
    )
}

fn dnsmasq(pod: &Namespace, name: &str) -> Command {
    let mut command = pod.command("dnsmasq");
    command
        .args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--interface=eth0"])
        .args([format!("--port={DNS_TARGET_PORT}"), format!("--txt-record={DNS_NAME},{name}")])
        .args(["--log-queries=extra", "--log-facility=-"]);
    command
}
