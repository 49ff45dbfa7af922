//! Servers that say who they are and whom they see, as threads inside a namespace.
//!
//! The TCP server speaks in lines. `WHOAMI` is answered with the identity line `<name> <peer> <local>`,
//! `DOWNLOAD <bytes>` with so many bytes of the [`Pattern`], `UPLOAD <bytes>` takes so many and says whether they
//! were right, and every other line comes back as `<name> <line>`.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::sys::socket;

use super::namespace::Namespace;
use super::pattern::Pattern;

/// Connections that one server serves at the same time; a further one is closed at once.
const CONNECTIONS_MAX: usize = 4096;
/// Peers that one server remembers.
const PEERS_MAX: usize = 1 << 20;
const CONNECTION_STACK_BYTES: usize = 128 * 1024;
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Who speaks first on a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The server sends its identity line as soon as it accepted.
    OnAccept,
    /// The server waits for the client.
    OnRequest,
}

/// A TCP server with a thread per connection.
pub struct TcpServer {
    state: Arc<TcpState>,
    running: Mutex<Option<(TcpListener, JoinHandle<()>)>>,
}

struct TcpState {
    name: String,
    greeting: Greeting,
    is_stopping: AtomicBool,
    peers: Mutex<Vec<SocketAddr>>,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl TcpServer {
    /// Listens inside the namespace; when this returns, connections are accepted.
    pub fn start(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        name: &str,
        greeting: Greeting,
    ) -> Result<TcpServer> {
        let address = address.into();
        let listener = namespace.run(|| TcpListener::bind(address));
        let listener = listener.with_context(|| format!("listening on tcp {address} in {}", namespace.name()))?;
        let state = Arc::new(TcpState {
            name: name.to_owned(),
            greeting,
            is_stopping: AtomicBool::new(false),
            peers: Mutex::default(),
            open: Mutex::default(),
        });
        let (accepting, shared) = (listener.try_clone()?, Arc::clone(&state));
        let acceptor = thread::spawn(move || accept_all(&accepting, &shared));
        Ok(TcpServer { state, running: Mutex::new(Some((listener, acceptor))) })
    }

    /// The peers of all connections accepted so far, in order.
    pub fn peers(&self) -> Vec<SocketAddr> {
        lock(&self.state.peers).clone()
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        lock(&self.state.open).len()
    }

    /// Closes the listener and every connection, and waits for their threads.
    pub fn stop(&self) {
        let Some((listener, acceptor)) = lock(&self.running).take() else { return };
        self.state.is_stopping.store(true, Ordering::SeqCst);
        // A listener that is shut down lets its accept(2) return.
        let _ = socket::shutdown(listener.as_raw_fd(), socket::Shutdown::Both);
        for stream in lock(&self.state.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = acceptor.join();
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The acceptor's thread: it ends after the threads of its connections.
fn accept_all(listener: &TcpListener, state: &Arc<TcpState>) {
    thread::scope(|scope| {
        for number in 0.. {
            let Ok((stream, peer)) = listener.accept() else {
                if state.is_stopping.load(Ordering::SeqCst) {
                    return;
                }
                continue;
            };
            let peer = unmapped(peer);
            state.remember(peer);
            if !state.admit(number, &stream) {
                continue;
            }
            let connection = thread::Builder::new().stack_size(CONNECTION_STACK_BYTES);
            let started = connection.spawn_scoped(scope, move || {
                // An error here is the peer's way to end the connection.
                let _ = converse(state, stream, peer);
                lock(&state.open).remove(&number);
            });
            if started.is_err() {
                lock(&state.open).remove(&number);
            }
        }
    });
}

impl TcpState {
    fn remember(&self, peer: SocketAddr) {
        let mut peers = lock(&self.peers);
        if peers.len() < PEERS_MAX {
            peers.push(peer);
        }
    }

    /// Tracks a connection, so that a stop can end it.
    fn admit(&self, number: u64, stream: &TcpStream) -> bool {
        let mut open = lock(&self.open);
        let Ok(copy) = stream.try_clone() else { return false };
        if open.len() >= CONNECTIONS_MAX || self.is_stopping.load(Ordering::SeqCst) {
            return false;
        }
        open.insert(number, copy);
        true
    }
}

fn converse(state: &TcpState, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let identity = format!("{} {peer} {}\n", state.name, unmapped(stream.local_addr()?));
    if state.greeting == Greeting::OnAccept {
        stream.write_all(identity.as_bytes())?;
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["WHOAMI"] => stream.write_all(identity.as_bytes())?,
            ["DOWNLOAD", bytes] => send_pattern(&mut stream, number(bytes)?)?,
            ["UPLOAD", bytes] => {
                let verdict = receive_pattern(&mut reader, number(bytes)?)?;
                stream.write_all(format!("{} {verdict}\n", state.name).as_bytes())?;
            }
            _ => stream.write_all(format!("{} {}\n", state.name, line.trim_end()).as_bytes())?,
        }
        line.clear();
    }
    Ok(())
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no number")))
}

fn send_pattern(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let mut pattern = Pattern::default();
    while pattern.position() < bytes {
        stream.write_all(pattern.next(bytes - pattern.position()))?;
    }
    Ok(())
}

fn receive_pattern(reader: &mut impl Read, bytes: u64) -> io::Result<String> {
    let mut pattern = Pattern::default();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut reader = reader.take(bytes);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(format!("received {}", pattern.position())),
            length => {
                if let Err(position) = pattern.check(&buffer[..length]) {
                    return Ok(format!("wrong at {position}"));
                }
            }
        }
    }
}

/// A UDP server: each datagram is answered with `<name> <peer> <payload>`.
pub struct UdpServer {
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    is_stopping: Arc<AtomicBool>,
    running: Mutex<Option<(UdpSocket, JoinHandle<()>)>>,
}

impl UdpServer {
    /// Binds inside the namespace; when this returns, datagrams are answered.
    pub fn start(namespace: &Namespace, address: impl Into<SocketAddr>, name: &str) -> Result<UdpServer> {
        let address = address.into();
        let socket = namespace.run(|| UdpSocket::bind(address));
        let socket = socket.with_context(|| format!("binding udp {address} in {}", namespace.name()))?;
        let peers = Arc::new(Mutex::default());
        let is_stopping = Arc::new(AtomicBool::new(false));
        let (answering, name) = (socket.try_clone()?, name.to_owned());
        let (seen, stop) = (Arc::clone(&peers), Arc::clone(&is_stopping));
        let answerer = thread::spawn(move || answer_all(&answering, &name, &seen, &stop));
        Ok(UdpServer { peers, is_stopping, running: Mutex::new(Some((socket, answerer))) })
    }

    /// The peers of all datagrams so far, in order.
    pub fn peers(&self) -> Vec<SocketAddr> {
        lock(&self.peers).clone()
    }

    /// Closes the socket and waits for its thread.
    pub fn stop(&self) {
        let Some((socket, answerer)) = lock(&self.running).take() else { return };
        self.is_stopping.store(true, Ordering::SeqCst);
        // ENOTCONN is the answer for an unconnected socket, yet the kernel wakes its readers: inet_shutdown().
        let _ = socket::shutdown(socket.as_raw_fd(), socket::Shutdown::Both);
        let _ = answerer.join();
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn answer_all(socket: &UdpSocket, name: &str, peers: &Mutex<Vec<SocketAddr>>, is_stopping: &AtomicBool) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = socket.recv_from(&mut buffer);
        if is_stopping.load(Ordering::SeqCst) {
            return;
        }
        // An error is an ICMP message about an earlier answer.
        let Ok((length, from)) = received else { continue };
        let peer = unmapped(from);
        let mut seen = lock(peers);
        if seen.len() < PEERS_MAX {
            seen.push(peer);
        }
        drop(seen);
        let mut answer = format!("{name} {peer} ").into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, from);
    }
}

/// An IPv4 address that a socket of both versions saw as an IPv6 one.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A test that failed while it held a lock must not hide behind a second panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
