//! A pod's server: over TCP and UDP it answers with its own number, and with what only it can know of a connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::select;
use tokio::sync::watch;
use tokio::time::timeout;

use super::event_loop;
use super::wire::{Answer, GOODBYE, QUESTION_BYTES, Question};
use super::worker::{self, Worker};
use crate::lab::{Namespace, allow_open_files};

/// Connections that wait for the server. The kernel takes no more than net.core.somaxconn of them.
const BACKLOG: u32 = 4_096;
/// A busy machine lets a process wait: what arrives meanwhile must find room.
pub(super) const SOCKET_BUFFER_BYTES: usize = 16 << 20;
/// How long a pod that closes waits for its client to end: under a flood the client's reset may be lost, and nobody repeats one.
const FAREWELL: Duration = Duration::from_secs(20);
/// What a server is told when its time is over.
const CLOSE: &str = "close";

/// A running server. Dropping it ends it, and all its connections.
pub struct PodServer(Worker);

impl PodServer {
    /// Listens on a port in the pod; when this returns, it serves.
    pub fn start(namespace: &Namespace, number: u64, port: u16) -> Result<PodServer> {
        let arguments = ["pod", "--number", &number.to_string(), "--port", &port.to_string()].map(str::to_owned);
        Ok(PodServer(Worker::start(namespace, &arguments).with_context(|| format!("serving in pod {number}"))?))
    }

    /// How many TCP connections it has.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.0.open()
    }

    /// Closes every connection, as a server does whose time is over: each client is told. Clients close theirs then.
    pub fn close_connections(&mut self) -> Result<()> {
        self.0.say(CLOSE)
    }
}

/// In a worker: serves until its input ends.
pub fn work(number: u64, port: u16) -> Result<()> {
    allow_open_files()?;
    event_loop::run(async {
        let open = Arc::new(AtomicUsize::new(0));
        let pod = Pod { number, commands: worker::commands(), open: Arc::clone(&open) };
        let sockets = Sockets::bind(port)?;
        tokio::spawn(worker::tell_of(open));
        sockets.serve(pod).await
    })
}

/// What the tasks of a server share.
#[derive(Clone)]
struct Pod {
    number: u64,
    commands: watch::Receiver<Option<String>>,
    open: Arc<AtomicUsize>,
}

struct Sockets {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Sockets {
    fn bind(port: u16) -> Result<Sockets> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let tcp = TcpSocket::new_v4()?;
        tcp.bind(address).with_context(|| format!("binding tcp {address}"))?;
        let udp = std::net::UdpSocket::bind(address).with_context(|| format!("binding udp {address}"))?;
        udp.set_nonblocking(true)?;
        setsockopt(&udp, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
        Ok(Sockets { tcp: tcp.listen(BACKLOG)?, udp: UdpSocket::from_std(udp)? })
    }

    async fn serve(self, mut pod: Pod) -> Result<()> {
        tokio::spawn(answer_datagrams(self.udp, pod.number));
        tokio::spawn(accept(self.tcp, pod.clone()));
        pod.commands.wait_for(Option::is_none).await?;
        Ok(())
    }
}

async fn answer_datagrams(socket: UdpSocket, pod: u64) {
    let mut question = [0; QUESTION_BYTES];
    loop {
        // An error is an ICMP message about an earlier answer.
        let Ok((QUESTION_BYTES, client)) = socket.recv_from(&mut question).await else { continue };
        let Question { key, number } = Question::of_bytes(question);
        let _ = socket.send_to(&Answer { pod, key, number }.to_bytes(), client).await;
    }
}

async fn accept(listener: TcpListener, pod: Pod) {
    loop {
        // An error is a connection that ended before it was accepted.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let pod = pod.clone();
        tokio::spawn(async move {
            pod.open.fetch_add(1, Ordering::Relaxed);
            // An error here is the client's way to end the connection.
            let _ = converse(stream, &pod).await;
            pod.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn converse(mut stream: TcpStream, pod: &Pod) -> std::io::Result<()> {
    let mut commands = pod.commands.clone();
    stream.set_nodelay(true)?;
    select! {
        result = answer_messages(&mut stream, pod.number) => return result,
        _ = commands.wait_for(|command| command.as_deref() == Some(CLOSE)) => {}
    }
    stream.write_all(&Answer { pod: pod.number, key: 0, number: GOODBYE }.to_bytes()).await?;
    // A socket that is closed with data unread resets its connection: so the client ends first.
    stream.shutdown().await?;
    let end = async {
        while stream.read(&mut [0; QUESTION_BYTES]).await? > 0 {}
        Ok(())
    };
    timeout(FAREWELL, end).await.unwrap_or(Ok(()))
}

async fn answer_messages(stream: &mut TcpStream, pod: u64) -> std::io::Result<()> {
    let mut secret = None;
    let mut question = [0; QUESTION_BYTES];
    loop {
        stream.read_exact(&mut question).await?;
        let Question { key, number } = Question::of_bytes(question);
        let key = *secret.get_or_insert(key);
        stream.write_all(&Answer { pod, key, number }.to_bytes()).await?;
    }
}
