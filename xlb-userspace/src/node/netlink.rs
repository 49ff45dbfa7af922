//! Asking the kernel for a [`Snapshot`] and hearing of changes, by rtnetlink.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage, LinkXdp};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;
use rtnetlink::constants::{
    RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK, RTMGRP_NEIGH,
};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use tracing::{debug, warn};

use super::addresses::FamilyAddresses;
use super::snapshot::Snapshot;
use super::{ethtool, parse};

/// How often a listing that changed under our hands is asked for again; the last answer stands, as a change is then to
/// be heard.
const DUMP_ATTEMPTS_MAX: usize = 4;

/// How many messages one answer of [`Changes::next`] stands for at most.
const DRAINED_MESSAGES_MAX: usize = 4096;

/// What says which MAC an address has, and behind which port of a bridge a MAC is.
const NEIGHBOUR_TABLES: [(&str, AddressFamily); 3] = [
    ("IPv4 neighbours", AddressFamily::Inet),
    ("IPv6 neighbours", AddressFamily::Inet6),
    ("bridge tables", AddressFamily::Bridge),
];

/// Where datagrams to provoke an answer go: the discard service (RFC 863).
const DISCARD_PORT: u16 = 9;

/// A conversation with the kernel about the network namespace it was opened in.
pub struct Netlink {
    handle: Handle,
    /// For ioctls and datagrams: like the handle, it stays in the namespace it was opened in.
    socket: UdpSocket,
    /// The same for IPv6 datagrams; none where the kernel was started without IPv6.
    socket_v6: Option<UdpSocket>,
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
    /// The IPv4 address it speaks with, if it has a global one.
    pub address_v4: Option<Ipv4Addr>,
    /// The IPv6 address it speaks with, if it has a global one.
    pub address_v6: Option<Ipv6Addr>,
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
        let socket = datagram_socket(Ipv4Addr::UNSPECIFIED.into()).context("opening an IPv4 datagram socket")?;
        let socket_v6 = datagram_socket(Ipv6Addr::UNSPECIFIED.into());
        let socket_v6 = socket_v6.inspect_err(|error| debug!("opening an IPv6 datagram socket: {error}")).ok();
        Ok((Self { handle, socket, socket_v6 }, changes))
    }

    /// The node now.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let mut answers = self.links_and_addresses().await?;
        for (what, family) in [("IPv4 routes", AddressFamily::Inet), ("IPv6 routes", AddressFamily::Inet6)] {
            answers.extend(self.dump(what, RouteNetlinkMessage::GetRoute(routes(family))).await?);
        }
        for (what, family) in NEIGHBOUR_TABLES {
            answers.extend(self.dump(what, RouteNetlinkMessage::GetNeighbour(neighbours(family))).await?);
        }
        Ok(parse::snapshot(answers))
    }

    /// What must be known of the interface named by the operator.
    pub async fn uplink(&self, name: &str) -> Result<Uplink> {
        self.uplink_in(&parse::snapshot(self.links_and_addresses().await?), name)
    }

    /// The same out of a snapshot that was taken for other reasons.
    pub fn uplink_in(&self, snapshot: &Snapshot, name: &str) -> Result<Uplink> {
        let link = snapshot.require_link(name)?;
        let driver = ethtool::driver(&self.socket, name).unwrap_or_else(|error| {
            debug!("driver of {name} is not told ({error}), taking its kind {:?}", link.kind);
            link.kind.clone()
        });
        let FamilyAddresses { v4: address_v4, v6: address_v6 } = snapshot.addresses_of(link.index);
        Ok(Uplink { ifindex: link.index, mac: link.mac, driver, mtu: link.mtu, address_v4, address_v6 })
    }

    /// Ids of the XDP programs that are attached, by index of their link.
    pub async fn xdp_programs(&self) -> Result<BTreeMap<u32, u32>> {
        let answers = self.dump("links", RouteNetlinkMessage::GetLink(LinkMessage::default())).await?;
        let of_link = |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some((link.header.index, xdp_program(&link)?)),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(of_link).collect())
    }

    /// Whether a link takes VLAN tags out of what it receives by itself; none: its driver does not tell.
    #[must_use]
    pub fn strips_vlan_tags(&self, interface: &str) -> Option<bool> {
        ethtool::strips_vlan_tags(&self.socket, interface).ok()
    }

    /// Sends one datagram to the pod's discard port, so that the kernel asks for its MAC and its bridge sees the
    /// answer.
    ///
    /// What is learned arrives as a change; so does a pod that does not answer, about 3 s later: the caller must pause
    /// between two calls.
    pub async fn provoke(&self, address: IpAddr) -> Result<()> {
        let socket = match address {
            IpAddr::V4(_) => Some(&self.socket),
            IpAddr::V6(_) => self.socket_v6.as_ref(),
        };
        let socket = socket.with_context(|| format!("reaching {address}: this kernel runs without IPv6"))?;
        match socket.send_to(&[], (address, DISCARD_PORT)) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(error).with_context(|| format!("sending a datagram to {address} port {DISCARD_PORT}"))
            }
            _ => Ok(()),
        }
    }

    async fn links_and_addresses(&self) -> Result<Vec<RouteNetlinkMessage>> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut answers = self.dump("links", RouteNetlinkMessage::GetLink(request)).await?;
        answers.extend(self.dump("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?);
        Ok(answers)
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
        let groups = RTMGRP_LINK
            | RTMGRP_IPV4_IFADDR
            | RTMGRP_IPV4_ROUTE
            | RTMGRP_IPV6_IFADDR
            | RTMGRP_IPV6_ROUTE
            | RTMGRP_NEIGH;
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

    /// Whether changes are queued, which are then taken: the kernel queues a change before whoever made it goes on.
    pub fn take_queued(&mut self) -> bool {
        let mut is_heard = false;
        for _ in 0..DRAINED_MESSAGES_MAX {
            match self.socket.socket_ref().recv(&mut &mut [0_u8; 1][..], libc::MSG_DONTWAIT) {
                Ok(_) => is_heard = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => is_heard = true,
                Err(_) => break,
            }
        }
        is_heard
    }
}

fn xdp_program(link: &LinkMessage) -> Option<u32> {
    let xdp = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => Some(xdp),
        _ => None,
    });
    xdp?.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) => Some(*id).filter(|id| *id != 0),
        _ => None,
    })
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

fn datagram_socket(any: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn routes(family: AddressFamily) -> RouteMessage {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request
}

fn neighbours(family: AddressFamily) -> NeighbourMessage {
    let mut request = NeighbourMessage::default();
    request.header.family = family;
    request
}
