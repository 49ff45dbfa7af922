//! Clients inside whose sockets nobody sees: VMs, Kata and gVisor pods, raw sockets, and whoever a pod forwards for. Their
//! packets go to the VIP itself, and meet xlb at the host's end of the pod's link. There the destination becomes an endpoint of
//! the cluster, as [`inside`](crate::inside) would have chosen it, and the host's stack does the rest; on their way into the
//! pod the answers become the VIP's. So netfilter sees both directions of the flow, each between the client and the endpoint.
//!
//! | step | packet to a service's VIP | what becomes of it |
//! |---|---|---|
//! | 1 | a datagram of a known flow, whose endpoint still serves | to that endpoint |
//! | 2 | a TCP segment of a known connection | to that endpoint, whatever became of it |
//! | 3 | a TCP segment of no known connection, other than a SYN | left to the stack: it began before xlb was here |
//! | 4 | the service restricts its sources, and the client is not listed | dropped |
//! | 5 | no endpoint is usable in the whole cluster | answered |
//! | 6 | the client gets the local set, and that is empty | dropped |
//! | 7 | a SYN of a known connection, whose endpoint is still usable | to that endpoint: it is repeated |
//! | 8 | affinity, and the client's last connection went to an endpoint that is still usable | to that endpoint |
//! | 9 | else | to any usable endpoint that is not the client itself |
//! | 10 | the client itself is the only one | left to the stack |
//!
//! Nearly all packets of nearly all pods are for no VIP: [`look`] only reads, and says which program goes on. Nothing is looked
//! up on a link's way out before a client behind it was served.

use crate::abi::{InsideAffinity, InsideFlow, LinkFlowKey};
use crate::family::{End, Family, HeaderChange, V4, V6};
use crate::inside::{InsideTables, Peer, service_of};
use crate::packet::Packet;
use crate::parse::{Endpoint, EtherType, Parsed, ether_type, wanted};
use crate::path::{Arrival, Door};
use crate::reason::Reason;
use crate::refusal::refuse;
use crate::rewrite::{Ports, readdress};

use self::choose::choose;

mod choose;
pub mod errors;
pub mod fragments;

/// The link by which a packet came, and a number for its choice.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Index of the host's end.
    pub ifindex: u32,
    /// Any number.
    pub random: u32,
}

/// A program to which [`look`] hands a packet over. Its number is its place in `JUMPS_LINKS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// [`serve`].
    Serve,
    /// [`errors::serve`].
    ServeError,
    /// [`fragments::serve`].
    ServeFragment,
    /// [`restore`].
    Restore,
    /// [`errors::restore`].
    RestoreError,
    /// [`fragments::restore`].
    RestoreFragment,
}

impl Job {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Serve, Self::ServeError, Self::ServeFragment, Self::Restore, Self::RestoreError, Self::RestoreFragment];

    /// Name of its program in the object.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Serve => "link_serve",
            Self::ServeError => "link_serve_error",
            Self::ServeFragment => "link_serve_fragment",
            Self::Restore => "link_restore",
            Self::RestoreError => "link_restore_error",
            Self::RestoreFragment => "link_restore_fragment",
        }
    }
}

/// Program at the ingress of every pod's link: [`look`].
pub const INGRESS: &str = "link_ingress";
/// Program at its egress: [`look_back`].
pub const EGRESS: &str = "link_egress";
/// The map by which they call the others.
pub const JUMPS: &str = "JUMPS_LINKS";

/// The maps of clients at links.
pub trait LinkTables<F: Family>: InsideTables<F> {
    /// A client's peer as the other side sees it.
    fn link_flow(&self, key: &LinkFlowKey) -> Option<InsideFlow>;
    /// Writes that.
    fn remember_link_flow(&self, key: &LinkFlowKey, value: &InsideFlow);
    /// Where a client's last connection to a service went.
    fn link_affinity(&self, service: u32, client: F::Address) -> Option<InsideAffinity>;
    /// Writes that.
    fn record_link_affinity(&self, service: u32, client: F::Address, value: &InsideAffinity);
    /// Whether a client behind this link was served.
    fn has_clients(&self, ifindex: u32) -> bool;
    /// Writes that.
    fn note_clients(&self, ifindex: u32);
}

/// What has to be done with a packet that a pod sent: mostly nothing.
#[inline(always)]
pub fn look<P: Packet, T: LinkTables<V4> + LinkTables<V6>>(packet: &P, tables: &T) -> Option<Job> {
    let found = match ether_type(packet) {
        Ok(EtherType::V4) => is_to_service::<V4, P, T>(packet, tables),
        Ok(EtherType::V6) => is_to_service::<V6, P, T>(packet, tables),
        Ok(EtherType::Other) => Ok(false),
        Err(reason) => Err(reason),
    };
    match found {
        Ok(true) => Some(Job::Serve),
        Err(Reason::Icmp) => Some(Job::ServeError),
        Err(Reason::Fragment) => Some(Job::ServeFragment),
        _ => None,
    }
}

#[inline(always)]
fn is_to_service<F: Family, P: Packet, T: LinkTables<F>>(packet: &P, tables: &T) -> Result<bool, Reason> {
    let parsed = F::parse::<P, { wanted::TCP_AND_UDP }>(packet)?;
    Ok(service_of(tables, parsed.destination.pair(), parsed.transport.number()).is_some())
}

/// What has to be done with a packet that goes into a pod behind a link with clients.
#[inline(always)]
pub fn look_back<P: Packet>(packet: &P) -> Option<Job> {
    let parsed = match ether_type(packet) {
        Ok(EtherType::V4) => V4::parse::<P, { wanted::TCP_AND_UDP }>(packet).map(drop),
        Ok(EtherType::V6) => V6::parse::<P, { wanted::TCP_AND_UDP }>(packet).map(drop),
        Ok(EtherType::Other) => return None,
        Err(reason) => Err(reason),
    };
    match parsed {
        Ok(()) => Some(Job::Restore),
        Err(Reason::Icmp) => Some(Job::RestoreError),
        Err(Reason::Fragment) => Some(Job::RestoreFragment),
        _ => None,
    }
}

/// A packet that a pod sent, perhaps to a VIP. None: it is to no service, and as it was.
#[inline(always)]
pub fn serve<P: Packet, T: LinkTables<V4> + LinkTables<V6>>(packet: &mut P, tables: &T, link: Link) -> Option<Reason> {
    match ether_type(packet).ok()? {
        EtherType::V4 => serve_in::<V4, P, T>(packet, tables, &link),
        EtherType::V6 => serve_in::<V6, P, T>(packet, tables, &link),
        EtherType::Other => None,
    }
}

/// A packet that goes into a pod, perhaps the answer to a client there. None: it is not, and as it was.
#[inline(always)]
pub fn restore<P: Packet, T: LinkTables<V4> + LinkTables<V6>>(packet: &mut P, tables: &T) -> Option<Reason> {
    match ether_type(packet).ok()? {
        EtherType::V4 => restore_in::<V4, P, T>(packet, tables),
        EtherType::V6 => restore_in::<V6, P, T>(packet, tables),
        EtherType::Other => None,
    }
}

#[inline(always)]
fn serve_in<F: Family, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T, link: &Link) -> Option<Reason> {
    let mut to = Endpoint(F::from_stored([0; 16]), [0; 2]);
    let reason = decide(packet, tables, link, &mut to)?;
    if is_directed(reason) {
        return Some(direct(packet, &to, reason));
    }
    if reason != Reason::LinkRejected {
        return Some(reason);
    }
    let arrival = Arrival::at(Door::Tc, link.ifindex);
    Some(refuse::<F, P, T, { wanted::TCP_AND_UDP }>(packet, tables, &arrival, reason))
}

/// What becomes of the packet, and to which endpoint it goes, if it is to a service. A function of its own, as is what comes
/// afterwards: together they need more than the stack of a kernel program.
#[inline(never)]
fn decide<F: Family, P: Packet, T: LinkTables<F>>(
    packet: &P,
    tables: &T,
    link: &Link,
    to: &mut Endpoint<F>,
) -> Option<Reason> {
    let parsed = F::parse::<P, { wanted::FLAGS }>(packet).ok()?;
    let service = service_of(tables, parsed.destination.pair(), parsed.transport.number())?;
    Some(choose(tables, &service, &parsed, link, to))
}

/// Whether [`choose`] has found an endpoint.
#[inline(always)]
const fn is_directed(reason: Reason) -> bool {
    matches!(reason, Reason::LinkServed | Reason::LinkAffine | Reason::LinkFollowed)
}

/// The packet becomes one to the endpoint.
#[inline(never)]
fn direct<F: Family, P: Packet>(packet: &mut P, to: &Endpoint<F>, reason: Reason) -> Reason {
    let Ok(parsed) = F::parse::<P, { wanted::TCP_AND_UDP }>(packet) else { return Reason::Truncated };
    let change = HeaderChange { end: End::Destination, address: to.0, counts_hop: false };
    readdress(packet, &parsed, change, Ports::of_end(to.1)).map_or(Reason::Truncated, |()| reason)
}

#[inline(never)]
fn restore_in<F: Family, P: Packet, T: LinkTables<F>>(packet: &mut P, tables: &T) -> Option<Reason> {
    let parsed = F::parse::<P, { wanted::TCP_AND_UDP }>(packet).ok()?;
    let Endpoint(vip, port) = peer_of(tables, &heard_from(&parsed))?;
    let change = HeaderChange { end: End::Source, address: vip, counts_hop: false };
    Some(readdress(packet, &parsed, change, Ports::of_end(port)).map_or(Reason::Truncated, |()| Reason::LinkReplied))
}

/// The peer that an entry names, if there is one: every peer has a port.
#[inline(always)]
fn peer_of<F: Family, T: LinkTables<F>>(tables: &T, key: &LinkFlowKey) -> Option<Endpoint<F>> {
    // The verifier refuses to copy what one of two cases leaves open.
    let flow = tables.link_flow(key).unwrap_or_default();
    (flow.port != [0; 2]).then(|| Endpoint(F::from_stored(flow.address), flow.port))
}

/// Key of a flow as the client sees it, by a packet of the client.
#[inline(always)]
fn sent_to<F: Family>(parsed: &Parsed<F>) -> LinkFlowKey {
    key::<F>(parsed.transport.number(), parsed.source.pair(), parsed.destination.pair())
}

/// Key of a flow as the endpoint sees it, by a packet of the endpoint.
#[inline(always)]
fn heard_from<F: Family>(parsed: &Parsed<F>) -> LinkFlowKey {
    as_answer(key::<F>(parsed.transport.number(), parsed.destination.pair(), parsed.source.pair()))
}

#[inline(always)]
fn as_answer(key: LinkFlowKey) -> LinkFlowKey {
    LinkFlowKey { is_answer: 1, ..key }
}

#[inline(always)]
fn key<F: Family>(protocol: u8, client: Peer<F>, peer: Peer<F>) -> LinkFlowKey {
    LinkFlowKey {
        client: F::to_stored(client.0),
        peer: F::to_stored(peer.0),
        client_port: client.1,
        peer_port: peer.1,
        is_answer: 0,
        family: F::VERSION,
        protocol,
        zero: 0,
    }
}

#[cfg(test)]
mod tests;
