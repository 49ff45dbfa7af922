//! A pod's server: over TCP and UDP it answers with its own number, and with what only it can know of a connection.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::select;
use tokio::sync::watch;

use super::event_loop;
use super::wire::{Answer, QUESTION_BYTES, Question};
use crate::lab::Namespace;

/// Connections that wait for the server. The kernel takes no more than net.core.somaxconn of them.
const BACKLOG: u32 = 4_096;
/// A busy machine lets a thread wait: what arrives meanwhile must find room.
pub(super) const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// The pods that close their connections on purpose; clients ask when theirs ends.
#[derive(Clone, Default)]
pub struct Closing(Arc<Mutex<BTreeSet<u64>>>);

impl Closing {
    /// Whether this pod does.
    #[must_use]
    pub fn contains(&self, pod: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&pod)
    }

    fn add(&self, pod: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pod);
    }
}

/// How long a server lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Its grace period is over: each connection is closed, in order.
    Closing,
    Ended,
}

/// A running server. Dropping it ends it, and all its connections.
pub struct PodServer {
    number: u64,
    closing: Closing,
    phase: watch::Sender<Phase>,
    open: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl PodServer {
    /// Listens on a port in the pod; when this returns, it serves.
    pub fn start(namespace: &Namespace, number: u64, port: u16, closing: &Closing) -> Result<PodServer> {
        let (phase, phases) = watch::channel(Phase::Serving);
        let open = Arc::new(AtomicUsize::new(0));
        let (pod, (ready, is_ready)) = (Pod { number, phases, open: Arc::clone(&open) }, mpsc::channel());
        let thread = event_loop::spawn(namespace, move || async move {
            let sockets = Sockets::bind(port)?;
            let _ = ready.send(());
            sockets.serve(pod).await
        });
        let server = PodServer { number, closing: closing.clone(), phase, open, thread: Some(thread) };
        is_ready.recv().ok().with_context(|| format!("pod {number} does not listen on port {port}"))?;
        Ok(server)
    }

    /// How many TCP connections it has.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Closes every connection, as a server does whose time is over. Clients close theirs then.
    pub fn close_connections(&self) {
        self.closing.add(self.number);
        self.phase.send_replace(Phase::Closing);
    }
}

impl Drop for PodServer {
    fn drop(&mut self) {
        self.closing.add(self.number);
        self.phase.send_replace(Phase::Ended);
        if let Some(Err(error)) = self.thread.take().map(event_loop::join) {
            eprintln!("pod {}: {error:#}", self.number);
        }
    }
}

/// What the tasks of a server share.
#[derive(Clone)]
struct Pod {
    number: u64,
    phases: watch::Receiver<Phase>,
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
        let for_connections = pod.clone();
        tokio::spawn(accept(self.tcp, for_connections));
        pod.phases.wait_for(|phase| *phase == Phase::Ended).await?;
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
    let mut phases = pod.phases.clone();
    stream.set_nodelay(true)?;
    select! {
        result = answer_messages(&mut stream, pod.number) => return result,
        _ = phases.wait_for(|phase| *phase != Phase::Serving) => {}
    }
    // A socket that is closed with data unread resets its connection: so the client ends first.
    stream.shutdown().await?;
    while stream.read(&mut [0; QUESTION_BYTES]).await? > 0 {}
    Ok(())
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
