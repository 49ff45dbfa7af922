//! What the pod does for clients: it answers, takes and gives bytes, and counts datagrams.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::bench::ways::{POD, POD_PORT, Site};

/// Connections that are served at a time, each by a thread: as many as a client has, and some that are just being closed.
const THREADS: usize = 16;
/// Between two looks at whether to stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A receiver that gets no turn for a while loses nothing.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Bytes that are read or written at once.
pub const CHUNK_BYTES: usize = 128 << 10;
/// Length of a question and of an answer; a question's first byte is a [`Wish`].
pub const MESSAGE_BYTES: usize = 64;

/// What the first byte of a connection asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Wish {
    /// One answer; then the pod closes.
    Answer = b'a',
    /// An answer to each question.
    Answers = b'r',
    /// To take whatever comes.
    Take = b't',
    /// To send as much as it can.
    Give = b'g',
}

/// Running servers. Dropping them ends them.
pub struct Servers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    is_stopping: AtomicBool,
    taken_bytes: AtomicU64,
    datagrams: AtomicU64,
}

impl Servers {
    /// Starts them in the pod, for both IP versions.
    pub fn start(site: &Site) -> Result<Servers> {
        let sockets = site.lab.pod(POD).run(|| {
            if let Some(cgroup) = site.cgroup() {
                cgroup.join()?;
            }
            let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, POD_PORT));
            Ok::<_, anyhow::Error>((TcpListener::bind(address)?, UdpSocket::bind(address)?))
        });
        let (tcp, udp) = sockets.context("binding the pod's sockets")?;
        setsockopt(&tcp, sockopt::ReceiveTimeout, &TimeVal::milliseconds(LOOK_INTERVAL.as_millis() as i64))?;
        udp.set_read_timeout(Some(LOOK_INTERVAL))?;
        setsockopt(&udp, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        let mut servers = Servers { shared: Arc::default(), threads: Vec::new() };
        for _ in 0..THREADS {
            let (listener, shared) = (tcp.try_clone()?, Arc::clone(&servers.shared));
            servers.threads.push(thread::spawn(move || shared.accept(&listener)));
        }
        let shared = Arc::clone(&servers.shared);
        servers.threads.push(thread::spawn(move || shared.count(&udp)));
        Ok(servers)
    }

    /// Bytes that were taken so far.
    pub fn taken_bytes(&self) -> u64 {
        self.shared.taken_bytes.load(Ordering::Relaxed)
    }

    /// Datagrams that were received so far.
    pub fn datagrams(&self) -> u64 {
        self.shared.datagrams.load(Ordering::Relaxed)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A server that failed was noticed by its clients.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.is_stopping.load(Ordering::Relaxed)
    }

    fn accept(&self, listener: &TcpListener) {
        while self.goes_on() {
            if let Ok((connection, _)) = listener.accept() {
                // The client that closes while it is served is done.
                let _ = self.serve(connection);
            }
        }
    }

    fn serve(&self, mut connection: TcpStream) -> std::io::Result<()> {
        connection.set_nodelay(true)?;
        let (mut question, answer) = ([0; MESSAGE_BYTES], [b'.'; MESSAGE_BYTES]);
        self.read(&mut connection, &mut question)?;
        match question[0] {
            wish if wish == Wish::Answer as u8 => connection.write_all(&answer),
            wish if wish == Wish::Answers as u8 => loop {
                connection.write_all(&answer)?;
                self.read(&mut connection, &mut question)?;
            },
            wish if wish == Wish::Give as u8 => {
                let chunk = vec![0; CHUNK_BYTES];
                while self.goes_on() {
                    connection.write_all(&chunk)?;
                }
                Ok(())
            }
            _ => self.take(&mut connection),
        }
    }

    /// A whole message. The time-out of the listener is that of its connections.
    fn read(&self, connection: &mut TcpStream, message: &mut [u8; MESSAGE_BYTES]) -> std::io::Result<()> {
        let mut length = 0;
        while length < message.len() {
            match connection.read(&mut message[length..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(more) => length += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.goes_on() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&self, connection: &mut TcpStream) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while self.goes_on() {
            match connection.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => self.taken_bytes.fetch_add(length as u64, Ordering::Relaxed),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    fn count(&self, socket: &UdpSocket) {
        let mut datagram = [0; MESSAGE_BYTES];
        while self.goes_on() {
            if socket.recv(&mut datagram).is_ok() {
                self.datagrams.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
