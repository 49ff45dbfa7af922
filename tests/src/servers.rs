//! Real servers for pods, nginx and dnsmasq, in both IP versions. When a function here returns, its server serves.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Namespace, Program, wait_for};

/// Where nginx listens in a pod.
pub const HTTP_TARGET_PORT: u16 = 8080;
/// Where dnsmasq listens in a pod.
pub const DNS_TARGET_PORT: u16 = 5353;
/// The file in nginx's directory with a line for each request, as in `198.51.100.10:40000 "GET / HTTP/1.1" 200`.
pub const ACCESS_LOG: &str = "access.log";

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer over UDP; dnsmasq's own limit would spare everybody the fragments.
const DNS_ANSWER_BYTES_MAX: u16 = 4096;
/// A TXT record is of strings that are no longer (RFC 1035 chapter 3.3).
const TXT_STRING_BYTES_MAX: usize = 250;

/// Starts nginx with these locations. Its files are in the directory, and its answers name the pod.
pub fn nginx(pod: &Namespace, name: &str, directory: &Path, locations: &str) -> Result<Program> {
    fs::write(directory.join("nginx.conf"), nginx_configuration(name, locations)).context("writing nginx.conf")?;
    let mut command = pod.command("nginx");
    command.arg("-p").arg(directory).args(["-c", "nginx.conf", "-e", "error.log"]);
    let program = Program::start(command, &directory.join("nginx.log"))?;
    until(&program, &format!("nginx in {name}"), || {
        pod.run(|| TcpStream::connect(("127.0.0.1", HTTP_TARGET_PORT))).is_ok()
    })?;
    Ok(program)
}

/// Starts dnsmasq with these TXT records, a name and a text each. Its log tells the queries.
pub fn dnsmasq(pod: &Namespace, name: &str, directory: &Path, records: &[(&str, &str)]) -> Result<Program> {
    let program = Program::start(dnsmasq_command(pod, records), &directory.join("dnsmasq.log"))?;
    until(&program, &format!("dnsmasq in {name}"), || program.log().contains("started"))?;
    Ok(program)
}

/// Waits until a program is ready.
pub fn until(program: &Program, what: &str, mut is_ready: impl FnMut() -> bool) -> Result<()> {
    wait_for(START_TIMEOUT, || is_ready().then_some(()))
        .with_context(|| format!("{what} is not ready within {START_TIMEOUT:?}: {}", program.log()))
}

fn nginx_configuration(name: &str, locations: &str) -> String {
    format!(
        r#"
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
events {{ worker_connections 256; }}
http {{
    log_format clients '$remote_addr:$remote_port "$request" $status';
    access_log {ACCESS_LOG} clients;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    default_type text/plain;
    server {{
        listen {HTTP_TARGET_PORT};
        listen [::]:{HTTP_TARGET_PORT};
        add_header X-Pod {name};
        location = / {{ return 200 "{name} $remote_addr:$remote_port\n"; }}
{locations}
    }}
}}
"#
    )
}

fn dnsmasq_command(pod: &Namespace, records: &[(&str, &str)]) -> Command {
    let mut command = pod.command("dnsmasq");
    command
        .args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--interface=eth0"])
        .args([format!("--port={DNS_TARGET_PORT}"), format!("--edns-packet-max={DNS_ANSWER_BYTES_MAX}")])
        .args(records.iter().map(|(name, text)| format!("--txt-record={name},{}", in_strings(text))))
        .args(["--log-queries=extra", "--log-facility=-"]);
    command
}

fn in_strings(text: &str) -> String {
    let strings: Vec<&str> = (0..text.len())
        .step_by(TXT_STRING_BYTES_MAX)
        .map(|at| &text[at..text.len().min(at + TXT_STRING_BYTES_MAX)])
        .collect();
    strings.join(",")
}
