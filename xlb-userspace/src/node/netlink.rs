//! Asking the kernel for a [`Snapshot`] and hearing of changes, by rtnetlink.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;
use rtnetlink::constants::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_LINK, RTMGRP_NEIGH};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use tracing::{debug, warn};

use super::snapshot::Snapshot;
use super::{ethtool, parse};

/// How often a listing that changed under our hands is asked for again; the last answer stands, as a change is then to
/// be heard.
const DUMP_ATTEMPTS_MAX: usize = 4;

/// How many messages one answer of [`Changes::next`] stands for at most.
const DRAINED_MESSAGES_MAX: usize = 4096;

/// Where datagrams to provoke an answer go: the discard service (RFC 863).
const DISCARD_PORT: u16 = 9;

/// A conversation with the kernel about the network namespace it was opened in.
pub struct Netlink {
    handle: Handle,
    /// For ioctls and datagrams: like the handle, it stays in the namespace it was opened in.
    socket: UdpSocket,
}

/// Tells when links, addresses, routes, neighbours or bridge tables have changed.
pub struct Changes {
    socket: TokioSocket,
}

/// An interface on which outside traffic arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub ifindex: u32,
    /// Its MAC; zeros if it has none.
    pub mac: [u8; 6],
    /// Name of its driver.
    pub driver: String,
    /// Largest packet it takes, in bytes.
    pub mtu: u32,
}

impl Netlink {
    /// Opens the conversation in the calling thread's network namespace. Needs a tokio runtime around it.
    ///
    /// Changes are heard from here on, so nothing between this call and the first snapshot is missed.
    pub fn open() -> Result<(Self, Changes)> {
        let changes = Changes::follow().context("subscribing to netlink changes")?;
        let (mut connection, handle, _) = rtnetlink::new_connection().context("opening a netlink connection")?;
        connection.set_forward_done(true);
        tokio::spawn(connection);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("opening a datagram socket")?;
        socket.set_nonblocking(true).context("making the datagram socket non-blocking")?;
        Ok((Self { handle, socket }, changes))
    }

    /// The node now.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let mut answers = self.links().await?;
        answers.extend(self.dump("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?);
        answers.extend(self.dump("routes", RouteNetlinkMessage::GetRoute(ipv4_routes())).await?);
        answers
            .extend(self.dump("neighbours", RouteNetlinkMessage::GetNeighbour(neighbours(AddressFamily::Inet))).await?);
        answers.extend(
            self.dump("bridge tables", RouteNetlinkMessage::GetNeighbour(neighbours(AddressFamily::Bridge))).await?,
        );
        Ok(parse::snapshot(answers))
    }

    /// What must be known of the interface named by the operator.
    pub async fn uplink(&self, name: &str) -> Result<Uplink> {
        let snapshot = parse::snapshot(self.links().await?);
        let link = snapshot.require_link(name)?;
        let driver = ethtool::driver(&self.socket, name).unwrap_or_else(|error| {
            debug!("driver of {name} is not told ({error}), taking its kind {:?}", link.kind);
            link.kind.clone()
        });
        Ok(Uplink { ifindex: link.index, mac: link.mac, driver, mtu: link.mtu })
    }

    /// Sends one datagram to the pod's discard port, so that the kernel asks for its MAC and its bridge sees the
    /// answer.
    ///
    /// What is learned arrives as a change; so does a pod that does not answer, about 3 s later: the caller must pause
    /// between two calls.
    pub async fn provoke(&self, address: Ipv4Addr) -> Result<()> {
        match self.socket.send_to(&[], (address, DISCARD_PORT)) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(error).with_context(|| format!("sending a datagram to {address} port {DISCARD_PORT}"))
            }
            _ => Ok(()),
        }
    }

    async fn links(&self) -> Result<Vec<RouteNetlinkMessage>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.dump("links", RouteNetlinkMessage::GetLink(request)).await
    }

    async fn dump(&self, what: &str, request: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        let mut answers = Vec::new();
        for _ in 0..DUMP_ATTEMPTS_MAX {
            let is_torn;
            (answers, is_torn) = self.dump_once(request.clone()).await.with_context(|| format!("listing {what}"))?;
            if !is_torn {
                break;
            }
            debug!("listing of {what} changed while it was read");
        }
        Ok(answers)
    }

    /// The answers, and whether the kernel says that they do not belong to one moment. Without the kernel's final word
    /// it is an error: half a listing must not look like links that went away.
    async fn dump_once(&self, request: RouteNetlinkMessage) -> Result<(Vec<RouteNetlinkMessage>, bool)> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut stream = self.handle.clone().request(request)?;
        let mut answers = Vec::new();
        let mut is_torn = false;
        while let Some(message) = stream.next().await {
            is_torn |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                NetlinkPayload::Done(done) if done.code >= 0 => return Ok((answers, is_torn)),
                NetlinkPayload::Done(done) => bail!(io::Error::from_raw_os_error(done.code.saturating_neg())),
                NetlinkPayload::Error(error) => bail!(error.to_io()),
                NetlinkPayload::Overrun(_) => bail!("netlink messages were lost"),
                _ => {}
            }
        }
        bail!("the netlink connection ended")
    }
}

impl Changes {
    fn follow() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_NEIGH;
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket })
    }

    /// Waits for a change; a burst that is already queued counts as one. `None`: the socket is broken, no change will
    /// be heard again.
    ///
    /// May be dropped while it waits (in a `select!`) without losing a change.
    pub async fn next(&mut self) -> Option<()> {
        // Without tokio's budget of 128 operations, which would cut a burst into pieces; `drain` has its own limit.
        tokio::task::unconstrained(poll_fn(|context| drain(&self.socket, context))).await
    }
}

/// Takes what is queued. One byte of each message is enough: that it came is all that counts. An overflow means that
/// some came.
fn drain(socket: &TokioSocket, context: &mut Context<'_>) -> Poll<Option<()>> {
    let mut is_heard = false;
    for _ in 0..DRAINED_MESSAGES_MAX {
        let mut byte = [0; 1];
        match socket.poll_recv(context, &mut &mut byte[..]) {
            Poll::Ready(Ok(())) => is_heard = true,
            Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => is_heard = true,
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Poll::Ready(Err(error)) => {
                warn!("listening to netlink changes failed: {error}");
                return Poll::Ready(None);
            }
            Poll::Pending if is_heard => break,
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Some(()))
}

fn ipv4_routes() -> RouteMessage {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    request
}

fn neighbours(family: AddressFamily) -> NeighbourMessage {
    let mut request = NeighbourMessage::default();
    request.header.family = family;
    request
}
