//! HTTP requests to the agent, as load balancers, the kubelet and Prometheus send them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_tests::lab::{Namespace, wait_for};
use xlb_tests::openmetrics::{Metrics, parse};

/// Where the agent answers about itself, and about its numbers, unless it is told otherwise.
pub const HEALTH_PORT: u16 = 10356;
pub const METRICS_PORT: u16 = 10349;

const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than a round and its repetition take.
const SOON: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// The headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answered {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Asks from inside a namespace.
pub fn ask(from: &Namespace, to: impl Into<IpAddr>, port: u16, method: &str, path: &str) -> Result<Answered> {
    let to = SocketAddr::new(to.into(), port);
    let stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE));
    let mut stream = stream.with_context(|| format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {to}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("reading from {to}"))?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok(Answered { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// A GET over loopback of the node.
pub fn get(node: &Namespace, port: u16, path: &str) -> Result<Answered> {
    ask(node, Ipv4Addr::LOCALHOST, port, "GET", path)
}

/// The status of the agent's own health server, none without an answer.
pub fn status(node: &Namespace, path: &str) -> Option<u16> {
    get(node, HEALTH_PORT, path).ok().map(|answer| answer.status)
}

/// Waits until a condition holds, or says that it never did.
pub fn soon<T>(what: &str, condition: impl FnMut() -> Option<T>) -> Result<T> {
    wait_for(SOON, condition).with_context(|| format!("not within {SOON:?}: {what}"))
}

/// All metrics, which have to be OpenMetrics.
pub fn metrics(node: &Namespace) -> Result<Metrics> {
    let answer = get(node, METRICS_PORT, "/metrics")?;
    anyhow::ensure!(answer.status == 200, "{answer:?}");
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    anyhow::ensure!(answer.head.contains(content_type), "{answer:?}");
    parse(&answer.body).map_err(anyhow::Error::msg)
}
