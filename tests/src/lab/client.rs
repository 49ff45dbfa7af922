//! Clients: sockets made inside a namespace, usable from any thread, that give up after some seconds.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket};

use super::namespace::Namespace;
use super::pattern::Pattern;

/// How long a client waits for a connection, or for the next bytes.
const PATIENCE: Duration = Duration::from_secs(3);
const BUFFER_BYTES: usize = 65_536;

/// Opens a TCP connection from inside a namespace, with time-outs for reading and writing.
pub fn connect(from: &Namespace, to: impl Into<SocketAddr>) -> Result<TcpStream> {
    let to = to.into();
    let stream = from.run(|| TcpStream::connect_timeout(&to, PATIENCE));
    let stream = stream.with_context(|| format!("connecting from {} to {to}", from.name()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One question over a new connection: connects, asks one line, reads one line, closes.
pub fn ask(from: &Namespace, to: impl Into<SocketAddr>, line: &str) -> Result<String> {
    LineClient::connect(from, to)?.ask(line)
}

/// What a server's identity line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The server's name, `pod-<i>` in a pod.
    pub server: String,
    /// The client as the server sees it.
    pub peer: SocketAddr,
    /// The server's own end of the connection.
    pub local: SocketAddr,
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(line: &str) -> Result<Identity> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [server, peer, local] = words[..] else { bail!("{line:?} is no identity line") };
        Ok(Identity { server: server.to_owned(), peer: peer.parse()?, local: local.parse()? })
    }
}

/// A TCP connection to a [`super::TcpServer`].
pub struct LineClient {
    reader: BufReader<TcpStream>,
}

impl LineClient {
    /// Connects from inside a namespace.
    pub fn connect(from: &Namespace, to: impl Into<SocketAddr>) -> Result<LineClient> {
        Ok(LineClient { reader: BufReader::with_capacity(BUFFER_BYTES, connect(from, to)?) })
    }

    /// Connects over IPv4 from a port of the caller's choice.
    pub fn connect_from_port(from: &Namespace, port: u16, to: SocketAddrV4) -> Result<LineClient> {
        let stream = from.run(|| bound_stream(port, to));
        LineClient::of(stream.with_context(|| format!("connecting from {}, port {port}, to {to}", from.name()))?)
    }

    /// Over a connection that is open.
    pub(super) fn of(stream: TcpStream) -> Result<LineClient> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(LineClient { reader: BufReader::with_capacity(BUFFER_BYTES, stream) })
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// This end's address.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.stream().local_addr()?)
    }

    /// Sends a line.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        self.reader.get_mut().write_all(line.as_bytes()).with_context(|| format!("sending {line:?}"))
    }

    /// Receives a line, without its end.
    pub fn receive(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.reader.read_line(&mut line).context("waiting for a line")?;
        ensure!(length > 0, "the server closed the connection");
        ensure!(line.ends_with('\n'), "the server closed the connection after {line:?}");
        Ok(line.trim_end().to_owned())
    }

    /// Sends a line and receives one.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.send(line)?;
        self.receive()
    }

    /// Receives the identity line of a server that greets on accept.
    pub fn greeting(&mut self) -> Result<Identity> {
        self.receive()?.parse()
    }

    /// Asks for the identity line.
    pub fn identity(&mut self) -> Result<Identity> {
        self.ask("WHOAMI")?.parse()
    }

    /// Downloads so many bytes and compares each.
    pub fn download(&mut self, bytes: u64) -> Result<()> {
        self.send(&format!("DOWNLOAD {bytes}"))?;
        self.receive_pattern(&mut Pattern::default(), bytes)
    }

    /// Receives so many more bytes of a download and compares each, for tests that do something in between.
    pub fn receive_pattern(&mut self, pattern: &mut Pattern, bytes: u64) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let end = pattern.position() + bytes;
        while pattern.position() < end {
            let left = usize::try_from(end - pattern.position()).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            let length = self.reader.read(&mut buffer[..left]).with_context(|| format!("after {pattern:?}"))?;
            ensure!(length > 0, "the server closed the connection after {} bytes", pattern.position());
            if let Err(position) = pattern.check(&buffer[..length]) {
                bail!("the downloaded byte {position} is wrong");
            }
        }
        Ok(())
    }

    /// Uploads so many bytes and requires the server to have got them right.
    pub fn upload(&mut self, bytes: u64) -> Result<()> {
        self.send(&format!("UPLOAD {bytes}"))?;
        let mut pattern = Pattern::default();
        while pattern.position() < bytes {
            let next = pattern.next(bytes - pattern.position());
            self.reader.get_mut().write_all(next).with_context(|| format!("uploading {pattern:?}"))?;
        }
        let verdict = self.receive()?;
        ensure!(verdict.ends_with(&format!("received {bytes}")), "uploaded {bytes} bytes, but: {verdict}");
        Ok(())
    }
}

/// The standard library cannot choose the port. The time-out for sending holds for connect(2) as well (socket(7)).
fn bound_stream(port: u16, to: SocketAddrV4) -> Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // One port may have several connections, to several servers.
    setsockopt(&socket, ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, port))?;
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(PATIENCE))?;
    nix::sys::socket::connect(stream.as_raw_fd(), &SockaddrIn::from(to))?;
    Ok(stream)
}

/// A connected UDP socket: an answer from any other address than the one asked does not reach it.
pub struct UdpClient {
    socket: UdpSocket,
}

impl UdpClient {
    /// Makes the socket inside a namespace.
    pub fn connect(from: &Namespace, to: impl Into<SocketAddr>) -> Result<UdpClient> {
        let to = to.into();
        let socket = from.run(|| {
            let socket = UdpSocket::bind(any_port(to))?;
            socket.connect(to).map(|()| socket)
        });
        let socket = socket.with_context(|| format!("connecting udp from {} to {to}", from.name()))?;
        Ok(UdpClient { socket })
    }

    /// This end's address.
    pub fn local_address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Sends a datagram without waiting for an answer.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        self.socket.send(payload).context("sending a datagram")?;
        Ok(())
    }

    /// Receives one datagram.
    pub fn receive(&self, timeout: Duration) -> Result<Vec<u8>> {
        let mut buffer = vec![0; BUFFER_BYTES];
        self.socket.set_read_timeout(Some(timeout))?;
        let length = self.socket.recv(&mut buffer).context("waiting for a datagram")?;
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Sends text and receives the answer.
    pub fn ask(&self, payload: &str, timeout: Duration) -> Result<String> {
        self.send(payload.as_bytes())?;
        Ok(String::from_utf8_lossy(&self.receive(timeout)?).into_owned())
    }
}

/// One question over a new connected UDP socket.
pub fn udp_ask(from: &Namespace, to: impl Into<SocketAddr>, payload: &str, timeout: Duration) -> Result<String> {
    UdpClient::connect(from, to)?.ask(payload, timeout)
}

/// One question over an unconnected UDP socket: also says from which address the answer came.
pub fn udp_ask_unconnected(
    from: &Namespace,
    to: impl Into<SocketAddr>,
    payload: &str,
    timeout: Duration,
) -> Result<(String, SocketAddr)> {
    let to = to.into();
    let socket = from.run(|| UdpSocket::bind(any_port(to))).context("binding udp")?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send_to(payload.as_bytes(), to).with_context(|| format!("sending to {to}"))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (length, source) = socket.recv_from(&mut buffer).with_context(|| format!("waiting for {to}"))?;
    Ok((String::from_utf8_lossy(&buffer[..length]).into_owned(), source))
}

/// Where a socket is bound that speaks the IP version of its peer.
fn any_port(peer: SocketAddr) -> SocketAddr {
    let address: IpAddr = if peer.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    (address, 0).into()
}
