//! Peers that speak enough of SCTP (RFC 9260) to open, use and end an association, over raw sockets: the kernel need not
//! have SCTP. Each checks every sum that arrives, computed from scratch.
//!
//! A message is one DATA chunk. The server answers it with `<name> <peer> <message>`.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xlb_common::abi::SCTP;
use xlb_common::sctp::chunk;

use super::namespace::Namespace;
use crate::kernel::sctp::{CHUNK_AT, HEADERS, SUM_AT, is_right, name, sum};

const PACKET_BYTES_MAX: usize = 65_536;
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// When a packet without an answer is sent again; the first may wait for a neighbour's MAC.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What a client's tag is made of, with its port; and a server's.
const CLIENT_TAG: u32 = 0xc11e_0000;
const SERVER_TAG: u32 = 0x5e17_0000;
/// Stands for a state cookie.
const COOKIE: &[u8] = b"the cookie of one server, as good as any";
/// Window, streams out and in, first sequence number: what follows the tag in INIT and INIT ACK.
const INIT_REST: [u8; 12] = [0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];

/// One packet with one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    /// Source and destination port.
    ports: [u16; 2],
    tag: u32,
    chunk: u8,
    value: Vec<u8>,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.ports.map(u16::to_be_bytes).concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0, 0, 0, 0, self.chunk, 0]);
        bytes.extend((4 + self.value.len() as u16).to_be_bytes());
        bytes.extend(&self.value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let sum = sum(&bytes);
        bytes[SUM_AT..SUM_AT + 4].copy_from_slice(&sum);
        bytes
    }

    /// None if the sum is wrong or missing, or the chunk is not whole.
    fn read(bytes: &[u8]) -> Option<Packet> {
        let is_summed = bytes.len() >= HEADERS && is_right(bytes) && bytes[SUM_AT..SUM_AT + 4] != [0; 4];
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let value = bytes.get(HEADERS..CHUNK_AT + usize::from(is_summed.then(|| number(CHUNK_AT + 2))?))?;
        let tag = u32::from(number(4)) << 16 | u32::from(number(6));
        Some(Packet { ports: [number(0), number(2)], tag, chunk: bytes[CHUNK_AT], value: value.to_vec() })
    }

    fn answer(&self, tag: u32, chunk: u8, value: Vec<u8>) -> Packet {
        let [source, destination] = self.ports;
        Packet { ports: [destination, source], tag, chunk, value }
    }
}

/// A pod's server on one port. It ends when dropped.
pub struct SctpServer {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    name: String,
    port: u16,
    is_stopping: AtomicBool,
    wrong: AtomicUsize,
    /// Clients whose cookie came back and whose association has not ended.
    open: Mutex<HashSet<SocketAddr>>,
}

impl SctpServer {
    /// Listens inside the namespace on `port`, for clients of the version of `any`, the unspecified address.
    pub fn start(namespace: &Namespace, any: IpAddr, port: u16, name: &str) -> Result<SctpServer> {
        let socket =
            namespace.run(|| raw_socket(any)).with_context(|| format!("serving sctp in {}", namespace.name()))?;
        socket.set_read_timeout(Some(POLL_INTERVAL))?;
        let state = Arc::new(State { name: name.to_owned(), port, ..State::default() });
        let of_thread = Arc::clone(&state);
        let thread = std::thread::spawn(move || serve(&socket, &of_thread));
        Ok(SctpServer { state, thread: Some(thread) })
    }

    /// Packets that came with a wrong sum, or none.
    pub fn wrong_packets(&self) -> usize {
        self.state.wrong.load(Ordering::SeqCst)
    }

    /// Who has an association, as this pod sees them.
    pub fn open(&self) -> HashSet<SocketAddr> {
        self.state.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for SctpServer {
    fn drop(&mut self) {
        self.state.is_stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, state: &State) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while !state.is_stopping.load(Ordering::SeqCst) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some(packet) = Packet::read(payload(&buffer[..length], from.ip())) else {
            state.wrong.fetch_add(1, Ordering::SeqCst);
            continue;
        };
        let client = SocketAddr::new(from.ip(), packet.ports[0]);
        if packet.ports[1] == state.port
            && let Some(answer) = answer(state, client, &packet)
        {
            let _ = socket.send_to(&answer.bytes(), from);
        }
    }
}

fn answer(state: &State, client: SocketAddr, packet: &Packet) -> Option<Packet> {
    let mut open = state.open.lock().unwrap_or_else(PoisonError::into_inner);
    let (tag, is_open) = (CLIENT_TAG | u32::from(client.port()), open.contains(&client));
    match packet.chunk {
        chunk::INIT => {
            let own = (SERVER_TAG | u32::from(client.port())).to_be_bytes();
            Some(packet.answer(tag, chunk::INIT_ACK, [&own, &INIT_REST[..], COOKIE].concat()))
        }
        chunk::COOKIE_ECHO if packet.value == COOKIE => {
            open.insert(client);
            Some(packet.answer(tag, chunk::COOKIE_ACK, Vec::new()))
        }
        chunk::DATA if is_open => {
            let said = format!("{} {client} ", state.name).into_bytes();
            Some(packet.answer(tag, chunk::DATA, [said, packet.value.clone()].concat()))
        }
        chunk::SHUTDOWN if is_open => Some(packet.answer(tag, chunk::SHUTDOWN_ACK, Vec::new())),
        chunk::SHUTDOWN_COMPLETE | chunk::ABORT => {
            open.remove(&client);
            None
        }
        _ => Some(packet.answer(tag, chunk::ABORT, Vec::new())),
    }
}

/// A client's association.
pub struct Association {
    socket: UdpSocket,
    server: IpAddr,
    ports: [u16; 2],
    /// The server's.
    tag: u32,
}

impl Association {
    /// INIT, INIT ACK, COOKIE ECHO, COOKIE ACK: to `server`, from a port that nobody else uses.
    pub fn open(namespace: &Namespace, port: u16, server: SocketAddr) -> Result<Association> {
        let mut association = Association::begin(namespace, port, server)?;
        let tag = (CLIENT_TAG | u32::from(port)).to_be_bytes();
        let init_ack = association.ask_for(chunk::INIT, &[&tag[..], &INIT_REST].concat())?;
        ensure!(init_ack.chunk == chunk::INIT_ACK, "INIT was answered by {}", name(init_ack.chunk));
        let (own, cookie) = init_ack.value.split_at(tag.len());
        association.tag = own.iter().fold(0, |tag, byte| tag << 8 | u32::from(*byte));
        let cookie_ack = association.ask_for(chunk::COOKIE_ECHO, &cookie[INIT_REST.len()..])?;
        ensure!(cookie_ack.chunk == chunk::COOKIE_ACK, "the cookie was answered by {}", name(cookie_ack.chunk));
        Ok(association)
    }

    /// The error that an INIT meets. None: an answer came, or nothing.
    pub fn refusal(
        namespace: &Namespace,
        port: u16,
        server: SocketAddr,
        timeout: Duration,
    ) -> Result<Option<io::Error>> {
        let association = Association::begin(namespace, port, server)?;
        let tag = (CLIENT_TAG | u32::from(port)).to_be_bytes();
        association.send(chunk::INIT, &[&tag[..], &INIT_REST].concat())?;
        association.socket.set_read_timeout(Some(timeout))?;
        let met = association.socket.recv(&mut [0; HEADERS]).err();
        Ok(met.filter(|error| !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)))
    }

    fn begin(namespace: &Namespace, port: u16, server: SocketAddr) -> Result<Association> {
        let socket = namespace.run(|| {
            let socket = raw_socket(server.ip())?;
            // Of a raw socket only the address counts; from others it hears nothing then.
            socket.connect(SocketAddr::new(server.ip(), 0)).map(|()| socket)
        });
        let socket = socket.with_context(|| format!("speaking sctp from {} to {server}", namespace.name()))?;
        socket.set_read_timeout(Some(POLL_INTERVAL))?;
        Ok(Association { socket, server: server.ip(), ports: [port, server.port()], tag: 0 })
    }

    /// The client's end.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.socket.local_addr()?.ip(), self.ports[0]))
    }

    /// Sends a message and returns the server's answer.
    pub fn ask(&self, message: &str) -> Result<String> {
        let answer = self.ask_for(chunk::DATA, message.as_bytes())?;
        ensure!(answer.chunk == chunk::DATA, "a message was answered by {}", name(answer.chunk));
        String::from_utf8(answer.value).context("reading an answer")
    }

    /// SHUTDOWN, SHUTDOWN ACK, SHUTDOWN COMPLETE.
    pub fn shut_down(self) -> Result<()> {
        let answer = self.ask_for(chunk::SHUTDOWN, &[0; 4])?;
        ensure!(answer.chunk == chunk::SHUTDOWN_ACK, "SHUTDOWN was answered by {}", name(answer.chunk));
        self.send(chunk::SHUTDOWN_COMPLETE, &[])
    }

    /// ABORT, which nobody answers.
    pub fn abort(self) -> Result<()> {
        self.send(chunk::ABORT, &[])
    }

    fn send(&self, chunk: u8, value: &[u8]) -> Result<()> {
        let packet = Packet { ports: self.ports, tag: self.tag, chunk, value: value.to_vec() };
        self.socket.send(&packet.bytes()).with_context(|| format!("sending {}", name(chunk)))?;
        Ok(())
    }

    /// Sends until an answer comes, which has to be right in every part.
    fn ask_for(&self, chunk: u8, value: &[u8]) -> Result<Packet> {
        let end = Instant::now() + TIMEOUT;
        while Instant::now() < end {
            self.send(chunk, value)?;
            if let Some(answer) = self.hear(Instant::now() + RETRY_INTERVAL)? {
                return Ok(answer);
            }
        }
        bail!("no answer to {} in {TIMEOUT:?}", name(chunk))
    }

    fn hear(&self, until: Instant) -> Result<Option<Packet>> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while Instant::now() < until {
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error).context("waiting for an answer"),
            };
            let packet = Packet::read(payload(&buffer[..length], self.server)).context("an answer's sum is wrong")?;
            let [own, of_server] = self.ports;
            if packet.ports[1] == own {
                ensure!(packet.ports[0] == of_server, "an answer comes from port {}", packet.ports[0]);
                ensure!(packet.tag == CLIENT_TAG | u32::from(own), "an answer has the tag {:08x}", packet.tag);
                return Ok(Some(packet));
            }
        }
        Ok(None)
    }
}

/// What a raw socket received, without the IPv4 header that it shows; of IPv6 it shows none.
fn payload(bytes: &[u8], from: IpAddr) -> &[u8] {
    let header = if from.is_ipv4() { usize::from(bytes.first().copied().unwrap_or(0) & 0xf) * 4 } else { 0 };
    bytes.get(header..).unwrap_or_default()
}

/// A raw socket for SCTP, of the version of `of`. As far as it is used here it behaves as a UDP socket.
fn raw_socket(of: IpAddr) -> io::Result<UdpSocket> {
    let family = if of.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket(2) takes no pointer, and its result is checked before it is used.
    let descriptor = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(SCTP)) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing else owns it: socket(2) has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
}
