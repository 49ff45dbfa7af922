//! Clients inside: a process of this node, or of a pod on it, sends to a VIP. Its destination is chosen where its socket
//! is, once for a connection, and no packet is rewritten.
//!
//! Every endpoint of the cluster can be reached that way, as the answers come back to this node by themselves: so such a
//! client gets the cluster set under either policy (semantics 6.1, 6.3). An endpoint that is the client itself is as good
//! as any: what it sends to its own address never leaves its network namespace. Only if the operator says so, clients in
//! pods are as clients outside are, and get the local set where the policy is Local (6.2).
//!
//! | step | condition | what becomes of it |
//! |---|---|---|
//! | 1 | no service has the address, port and protocol | untouched |
//! | 2 | a datagram of a socket that has sent to the VIP before, to an endpoint that still serves | the same endpoint |
//! | 3 | the service restricts its sources, and nobody knows the client's address | untouched: who sees its packets judges them |
//! | 4 | the service restricts its sources, and the client is not listed | refused |
//! | 5 | no endpoint is usable in the whole cluster | refused |
//! | 6 | the client gets the local set, and that is empty | refused: outside it would be dropped (semantics 4) |
//! | 7 | affinity, and the client's last connection went to an endpoint that is still usable for it | that endpoint |
//! | 8 | else | any endpoint that is usable for the client |
//!
//! In the kernel a step with keys and values of its own is a function of its own: they do not fit one stack together.

pub(crate) mod parts;

use crate::abi::{Inside, InsideAffinity, InsideAffinityKey, InsideFlow, InsideFlowKey, NetnsAddressKey, inside_flags};
use crate::family::Family;
use crate::reason::Reason;
use crate::stats::count_inside;
use crate::tables::Tables;

use self::parts::{Part, order};

pub(crate) const NS_PER_S: u64 = 1_000_000_000;

/// The first ten bits of an IPv6 link-local address (RFC 4291 chapter 2.5.6).
const LINK_LOCAL: u128 = 0xfe80 >> 6;
const LINK_LOCAL_SHIFT: u32 = 118;

/// An address and a port, network byte order.
pub type Peer<F> = (<F as Family>::Address, [u8; 2]);

/// What a socket is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// To connect.
    Connect,
    /// To send a datagram that names its destination.
    Send,
}

/// A socket. TCP and UDP have maps of their own: a flood of one cannot evict the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its cookie.
    pub cookie: u64,
    /// IP protocol number.
    pub protocol: u8,
}

/// A socket that is about to connect or to send.
#[derive(Clone, Copy, Debug)]
pub struct Request<F: Family> {
    /// Connect, or send.
    pub call: Call,
    /// To which VIP.
    pub vip: Peer<F>,
    /// From which address; unspecified: the socket is bound to none.
    pub source: F::Address,
    /// The socket.
    pub socket: Socket,
    /// The client: the cookie of the socket's network namespace (semantics 9.1 says its address, which is not chosen
    /// yet).
    pub client: u64,
    /// Whether that namespace is not the node's own.
    pub is_in_pod: bool,
    /// Any number.
    pub random: u32,
}

/// The maps that such a choice reads and writes.
pub trait InsideTables<F: Family>: Tables<F> {
    /// The service of a VIP, port and protocol, as clients inside see it.
    fn inside(&self, key: &F::EndpointKey) -> Option<Inside>;
    /// An entry of the endpoints.
    fn endpoint(&self, index: u32) -> Option<Peer<F>>;
    /// The address of a network namespace.
    fn address_of(&self, key: &NetnsAddressKey) -> Option<F::Address>;
    /// Where a client's last connection went.
    fn inside_affinity(&self, key: &InsideAffinityKey) -> Option<InsideAffinity>;
    /// Writes that.
    fn record_inside_affinity(&self, key: &InsideAffinityKey, value: &InsideAffinity);
    /// A socket's peer as the other side sees it.
    fn inside_flow(&self, key: &InsideFlowKey) -> Option<InsideFlow>;
    /// Writes that.
    fn remember_inside_flow(&self, key: &InsideFlowKey, value: &InsideFlow);
}

/// Step 1, apart from the others: nearly every connection of the node ends here, and costs this lookup.
#[inline(always)]
pub fn service_of<F: Family, T: InsideTables<F>>(tables: &T, (address, port): Peer<F>, protocol: u8) -> Option<Inside> {
    tables.inside(&F::endpoint_key(address, port, protocol))
}

/// Where the socket goes instead of the VIP, remembered for its answers; or why it does not.
///
/// # Errors
/// The reason, which is counted in either case.
#[inline(always)]
pub fn serve<F: Family, T: InsideTables<F>>(
    tables: &T,
    service: &Inside,
    request: &Request<F>,
) -> Result<Peer<F>, Reason> {
    let choice = choose(tables, service, request);
    tables.count(match choice {
        Ok((_, reason)) | Err(reason) => reason,
    });
    let (endpoint, reason) = choice?;
    if reason != Reason::InsideRemembered {
        remember(tables, request, endpoint);
        count_inside(tables, service.service);
    }
    Ok(endpoint)
}

/// The VIP for which a socket takes the endpoint that it hears from.
#[inline(always)]
pub fn vip_of<F: Family, T: InsideTables<F>>(tables: &T, socket: Socket, endpoint: Peer<F>) -> Option<Peer<F>> {
    tables.inside_flow(&heard_from::<F>(socket, endpoint)).map(|flow| (F::from_stored(flow.address), flow.port))
}

/// Whether a connection tells the address of the network namespace that it is in. One to itself does not, as it may use
/// any address that the namespace gives itself, and neither does a loopback or link-local one.
#[inline(always)]
pub fn tells_address<F: Family>(local: F::Address, remote: F::Address) -> bool {
    let [local_number, remote_number] = [local, remote].map(|address| order::<F>((address, [0; 2])).0);
    let is_link_local = F::VERSION == 6 && local_number >> LINK_LOCAL_SHIFT == LINK_LOCAL;
    local_number != remote_number && F::is_unicast(local) && !is_link_local
}

/// Key of a namespace's address.
#[inline(always)]
#[must_use]
pub fn netns_address_key<F: Family>(netns: u64) -> NetnsAddressKey {
    NetnsAddressKey { netns, family: F::VERSION, zero: [0; 7] }
}

#[inline(always)]
fn choose<F: Family, T: InsideTables<F>>(
    tables: &T,
    service: &Inside,
    request: &Request<F>,
) -> Result<(Peer<F>, Reason), Reason> {
    if let Some(endpoint) = remembered(tables, service, request) {
        return Ok((endpoint, Reason::InsideRemembered));
    }
    admit(tables, service, request)?;
    if service.endpoints == 0 {
        return Err(Reason::InsideRejected);
    }
    if parts::usable(service, request.is_in_pod).count == 0 {
        return Err(Reason::InsideNotLocal);
    }
    fresh(tables, service, request).ok_or(Reason::StaleReference)
}

/// Step 2. The source ranges and the usable endpoints count for what is new (semantics 5, 8.7).
#[inline(always)]
fn remembered<F: Family, T: InsideTables<F>>(tables: &T, service: &Inside, request: &Request<F>) -> Option<Peer<F>> {
    if request.call != Call::Send {
        return None;
    }
    let flow = tables.inside_flow(&sent_to::<F>(request.socket, request.vip))?;
    let endpoint = (F::from_stored(flow.address), flow.port);
    parts::serves(tables, service, &endpoint).then_some(endpoint)
}

/// Steps 3 and 4. A socket that is bound to no address gets the one of its namespace, unless its route names another.
#[inline(never)]
fn admit<F: Family, T: InsideTables<F>>(tables: &T, service: &Inside, request: &Request<F>) -> Result<(), Reason> {
    if service.flags & inside_flags::SOURCE_RANGES == 0 {
        return Ok(());
    }
    let source = match order::<F>((request.source, [0; 2])) {
        (0, _) => tables.address_of(&netns_address_key::<F>(request.client)).ok_or(Reason::InsideSourceUnknown)?,
        _ => request.source,
    };
    if tables.is_allowed_source(service.service, source) { Ok(()) } else { Err(Reason::InsideNotAllowed) }
}

/// Steps 7 and 8.
#[inline(never)]
fn fresh<F: Family, T: InsideTables<F>>(
    tables: &T,
    service: &Inside,
    request: &Request<F>,
) -> Option<(Peer<F>, Reason)> {
    let part = parts::usable(service, request.is_in_pod);
    if service.affinity_s == 0 {
        return Some((parts::any(tables, part, request.random)?, Reason::InsideServed));
    }
    let key = InsideAffinityKey { client: request.client, service: service.service, zero: 0 };
    let last = tables.inside_affinity(&key).and_then(|last| still_usable(tables, service, part, &last));
    let (endpoint, reason) = match last {
        Some(endpoint) => (endpoint, Reason::InsideAffine),
        None => (parts::any(tables, part, request.random)?, Reason::InsideServed),
    };
    let (address, port) = (F::to_stored(endpoint.0), endpoint.1);
    tables.record_inside_affinity(&key, &InsideAffinity { address, port, zero: [0; 6], last_new_ns: tables.now_ns() });
    Some((endpoint, reason))
}

/// The endpoint of the client's last connection, while the record counts (semantics 9.3).
#[inline(always)]
fn still_usable<F: Family, T: InsideTables<F>>(
    tables: &T,
    service: &Inside,
    part: Part,
    last: &InsideAffinity,
) -> Option<Peer<F>> {
    // A clock that is read on another CPU may be a tick behind the record's.
    let age_ns = tables.now_ns().saturating_sub(last.last_new_ns);
    let endpoint = (F::from_stored(last.address), last.port);
    let counts = age_ns <= u64::from(service.affinity_s) * NS_PER_S && parts::has(tables, part, &endpoint);
    counts.then_some(endpoint)
}

/// Answers are to look as if the VIP had sent them; and later datagrams are to go to the same endpoint, where each names
/// its destination.
#[inline(never)]
fn remember<F: Family, T: InsideTables<F>>(tables: &T, request: &Request<F>, endpoint: Peer<F>) {
    tables.remember_inside_flow(&heard_from::<F>(request.socket, endpoint), &flow::<F>(request.vip));
    if request.call == Call::Send {
        tables.remember_inside_flow(&sent_to::<F>(request.socket, request.vip), &flow::<F>(endpoint));
    }
}

#[inline(always)]
fn sent_to<F: Family>(socket: Socket, (address, port): Peer<F>) -> InsideFlowKey {
    InsideFlowKey {
        socket: socket.cookie,
        address: F::to_stored(address),
        port,
        is_answer: 0,
        family: F::VERSION,
        protocol: socket.protocol,
        zero: [0; 3],
    }
}

#[inline(always)]
fn heard_from<F: Family>(socket: Socket, endpoint: Peer<F>) -> InsideFlowKey {
    InsideFlowKey { is_answer: 1, ..sent_to::<F>(socket, endpoint) }
}

#[inline(always)]
fn flow<F: Family>((address, port): Peer<F>) -> InsideFlow {
    InsideFlow { address: F::to_stored(address), port, zero: [0; 2] }
}

#[cfg(test)]
mod tests;
