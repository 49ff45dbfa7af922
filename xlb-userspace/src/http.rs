//! The agent's HTTP servers: sockets, limits, one thread. What to answer is decided elsewhere, by path, as a value.
//!
//! They have a thread of their own, so that an agent that hangs in a round is still asked whether it is healthy.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::debug;

/// Connections of one listener at a time; the oldest makes room for the newest.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// For a whole connection, which is one request and its answer.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);
/// Pause after a connection could not be accepted, as when this process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that the kernel holds until they are accepted.
const BACKLOG_CONNECTIONS: i32 = 128;

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers apart from those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// A request, as far as anybody here cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a str,
    /// What of the server is asked for.
    pub path: &'a str,
    /// What of that: the text behind the question mark.
    pub query: &'a str,
    /// The name by which the server was called.
    pub host: Option<&'a str>,
}

/// What a server answers to a request.
pub type Respond = Arc<dyn Fn(&Asked) -> Answer + Send + Sync>;

/// The thread of all servers. It ends when this is dropped.
pub struct Servers {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A listener that is served until this is dropped, its connections too; or work that is repeated until then.
pub struct Serving(AbortHandle);

impl Servers {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("preparing the HTTP servers")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        let serve = move || drop(runtime.block_on(stopped));
        let thread = thread::Builder::new().name("xlb-http".into()).spawn(serve).context("starting a thread")?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Does something now and then, for as long as what this gives lives. It has to be quick: no answer is given meanwhile.
    pub fn repeat(&self, pause: Duration, work: impl Fn() + Send + 'static) -> Serving {
        let repeated = async move {
            let mut tick = interval(pause);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                work();
            }
        };
        Serving(self.runtime.spawn(repeated).abort_handle())
    }

    /// Answers every request that reaches a listener.
    pub fn serve(&self, listener: TcpListener, respond: Respond) -> Serving {
        Serving(self.runtime.spawn(accept(listener, respond)).abort_handle())
    }
}

impl Asked<'_> {
    /// Whether it changes nothing, whatever it is about.
    #[must_use]
    pub fn only_reads(&self) -> bool {
        ["GET", "HEAD"].contains(&self.method)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported by itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens at an address. An IPv6 address is for IPv6 only: IPv4 has a listener of its own, or none.
///
/// # Errors
/// When the address is in use, is not this machine's, or the family is switched off.
pub fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let descriptor = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    match address {
        SocketAddr::V4(address) => bind(descriptor.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => {
            setsockopt(&descriptor, sockopt::Ipv6V6Only, &true)?;
            bind(descriptor.as_raw_fd(), &SockaddrIn6::from(address))?;
        }
    }
    listen(&descriptor, Backlog::new(BACKLOG_CONNECTIONS)?)?;
    Ok(TcpListener::from(descriptor))
}

/// Whether a failure to listen means that this machine has no IPv6.
#[must_use]
pub fn is_family_absent(error: &io::Error, address: SocketAddr) -> bool {
    let absent = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];
    address.ip() == Ipv6Addr::UNSPECIFIED && error.raw_os_error().is_some_and(|code| absent.contains(&code))
}

async fn accept(listener: TcpListener, respond: Respond) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return debug!("a listener cannot be served: {error}"),
    };
    let (mut connections, mut in_order) = (JoinSet::new(), VecDeque::<AbortHandle>::new());
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                in_order.retain(|connection| !connection.is_finished());
                if in_order.len() >= CONNECTIONS_MAX
                    && let Some(oldest) = in_order.pop_front()
                {
                    oldest.abort();
                }
                in_order.push_back(connections.spawn(timeout(CONNECTION_LIMIT, answer(stream, respond.clone()))));
            }
            Err(error) => {
                debug!("accepting a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, respond: Respond) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = response(respond(&asked(&request)));
        async { Ok::<_, Infallible>(answer) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).keep_alive(false);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!("answering a request: {error}");
    }
}

fn asked(request: &Request<Incoming>) -> Asked<'_> {
    let uri = request.uri();
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?"));
    Asked { method: request.method().as_str(), path: uri.path(), query: uri.query().unwrap_or_default(), host }
}

fn response(answer: Answer) -> Response<String> {
    let mut response = Response::builder().status(answer.status).header("X-Content-Type-Options", "nosniff");
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    response.body(answer.body).unwrap_or_else(|error| {
        debug!("an answer is no HTTP: {error}");
        let mut failed = Response::new(String::new());
        *failed.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        failed
    })
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
