//! Calls of sockets below the root cgroup: connect, send, receive, and the question for the peer.
//!
//! A call that is refused gets ECONNREFUSED where kube-proxy's ICMP message would have made it so, and EPERM where it
//! would have dropped the packets: the kernel lets a program choose the error, and not silence. EPERM is also what a
//! datagram meets that netfilter drops on its way out.

mod place;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{SockAddrContext, SockOpsContext};
use xlb_common::abi::{
    INSIDE_AFFINITY_MAX, INSIDE_FLOWS_MAX, INSIDE_UDP_FLOWS_MAX, Inside, InsideAffinity, InsideAffinityKey, InsideFlow,
    InsideFlowKey, NETNS_ADDRESSES_MAX, NetnsAddressKey, TCP,
};
use xlb_common::inside::{self, Call, InsideTables, Peer, Request, Socket};
use xlb_common::{Family, Reason};

use self::place::{Place, is_mapped, peer, protocol, set_peer};
use crate::apart::Apart;
use crate::maps::{FamilyMaps, Maps, count};

pub use self::place::{Ip4, Ip6, Mapped};

/// Cookie of the node's own network namespace, in which processes are not in a pod. The agent writes it before the verifier
/// reads the programs.
#[unsafe(no_mangle)]
static NODE_NETNS: u64 = 0;

/// The call goes on.
pub const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// Connection refused (errno.h).
const ECONNREFUSED: i32 = 111;

#[map]
static INSIDE_AFFINITY: LruHashMap<InsideAffinityKey, InsideAffinity> =
    LruHashMap::with_max_entries(INSIDE_AFFINITY_MAX, 0);
#[map]
static INSIDE_FLOWS: LruHashMap<InsideFlowKey, InsideFlow> = LruHashMap::with_max_entries(INSIDE_FLOWS_MAX, 0);
#[map]
static INSIDE_UDP_FLOWS: LruHashMap<InsideFlowKey, InsideFlow> = LruHashMap::with_max_entries(INSIDE_UDP_FLOWS_MAX, 0);
#[map]
static NETNS_ADDRESSES: LruHashMap<NetnsAddressKey, [u8; 16]> = LruHashMap::with_max_entries(NETNS_ADDRESSES_MAX, 0);

/// A socket is about to connect.
#[inline(always)]
pub fn connect<P: Place>(ctx: &SockAddrContext) -> i32 {
    redirect::<P>(ctx, Call::Connect, P::bound)
}

/// The same for an IPv6 socket, which may connect to an IPv4 destination.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> i32 {
    if is_mapped(ctx) { connect::<Mapped>(ctx) } else { connect::<Ip6>(ctx) }
}

/// A socket is about to send a datagram that names its destination.
#[inline(always)]
pub fn send<P: Place>(ctx: &SockAddrContext) -> i32 {
    redirect::<P>(ctx, Call::Send, P::sent_from)
}

/// A socket has received a datagram, or asks for its peer: a VIP's endpoint is the VIP. True if it is one.
#[inline(always)]
pub fn restore<P: Place>(ctx: &SockAddrContext) -> bool {
    let vip = inside::vip_of::<P::Family, _>(&Maps::of(ctx), socket(ctx), peer::<P>(ctx));
    vip.map(|vip| set_peer::<P>(ctx, vip)).is_some()
}

/// The same for an IPv6 socket.
#[inline(always)]
pub fn restore6(ctx: &SockAddrContext) -> bool {
    if is_mapped(ctx) { restore::<Mapped>(ctx) } else { restore::<Ip6>(ctx) }
}

/// The same for a datagram, which counts.
#[inline(always)]
pub fn received(is_answer: bool) -> i32 {
    if is_answer {
        count(Reason::InsideAnswered);
    }
    ALLOW
}

/// A connection may tell the address of the network namespace that it is in. The first one decides, as a pod has one
/// address of a family; the agent has written the node's before any program ran.
#[inline(never)]
pub fn learn<F: Family>(ctx: &SockOpsContext, ends: impl Fn(&SockOpsContext) -> [F::Address; 2]) {
    let [remote, local] = ends(ctx);
    // SAFETY: the context is valid for the whole run.
    let key = inside::netns_address_key::<F>(unsafe { bpf_get_netns_cookie(ctx.as_ptr()) });
    // SAFETY: only the presence of the entry counts.
    let is_known = unsafe { NETNS_ADDRESSES.get(key) }.is_some();
    if !is_known && inside::tells_address::<F>(local, remote) {
        // A full LRU evicts; another CPU may have been first, which is as good.
        let _ = NETNS_ADDRESSES.insert(key, F::to_stored(local), u64::from(BPF_NOEXIST));
    }
}

/// A function of its own for each place: the two of an IPv6 socket do not fit one stack together.
#[inline(never)]
fn redirect<P: Place>(
    ctx: &SockAddrContext,
    call: Call,
    source: impl FnOnce(&SockAddrContext) -> <P::Family as Family>::Address,
) -> i32 {
    let (maps, vip) = (Maps::of(ctx), peer::<P>(ctx));
    let Some(service) = inside::service_of::<P::Family, _>(&maps, vip, protocol(ctx)) else { return ALLOW };
    // SAFETY: the context is valid for the whole run, and the other helper takes nothing.
    let (client, random) = unsafe { (bpf_get_netns_cookie(ctx.as_ptr()), bpf_get_prandom_u32()) };
    let is_in_pod = client != node_netns();
    let request = Request { call, vip, source: source(ctx), socket: socket(ctx), client, is_in_pod, random };
    match inside::serve::<P::Family, _>(&maps, &service, &request) {
        Ok(endpoint) => {
            set_peer::<P>(ctx, endpoint);
            ALLOW
        }
        Err(Reason::InsideSourceUnknown) => ALLOW,
        Err(Reason::InsideRejected) => {
            // SAFETY: the helper takes a number; programs of connect and sendmsg may call it.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            REFUSE
        }
        Err(_) => REFUSE,
    }
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> Socket {
    // SAFETY: the context is valid for the whole run.
    Socket { cookie: unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }, protocol: protocol(ctx) }
}

#[inline(always)]
fn node_netns() -> u64 {
    // SAFETY: the static is valid, aligned and initialized; a volatile read sees what the agent wrote over it.
    unsafe { (&raw const NODE_NETNS).read_volatile() }
}

#[inline(always)]
fn flows(key: &InsideFlowKey) -> &'static LruHashMap<InsideFlowKey, InsideFlow> {
    if key.protocol == TCP { &INSIDE_FLOWS } else { &INSIDE_UDP_FLOWS }
}

impl<F: FamilyMaps, C: Apart<F>> InsideTables<F> for Maps<'_, C> {
    #[inline(always)]
    fn inside(&self, key: &F::EndpointKey) -> Option<Inside> {
        // SAFETY: the value is replaced as a whole by the agent, never changed in place; it is read at once.
        unsafe { F::inside().get(key) }.copied()
    }

    #[inline(always)]
    fn endpoint(&self, index: u32) -> Option<Peer<F>> {
        F::endpoints().get(index).copied().map(F::peer)
    }

    #[inline(always)]
    fn address_of(&self, key: &NetnsAddressKey) -> Option<F::Address> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); it is written once.
        unsafe { NETNS_ADDRESSES.get(key) }.copied().map(F::from_stored)
    }

    #[inline(always)]
    fn inside_affinity(&self, key: &InsideAffinityKey) -> Option<InsideAffinity> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); of a torn read
        // only an endpoint that the service has is followed.
        unsafe { INSIDE_AFFINITY.get(key) }.copied()
    }

    #[inline(always)]
    fn record_inside_affinity(&self, key: &InsideAffinityKey, value: &InsideAffinity) {
        // A full LRU evicts; without a record the client's next connection goes to any endpoint.
        let _ = INSIDE_AFFINITY.insert(key, value, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn inside_flow(&self, key: &InsideFlowKey) -> Option<InsideFlow> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); a torn read is of
        // one socket's peers.
        unsafe { flows(key).get(key) }.copied()
    }

    #[inline(always)]
    fn remember_inside_flow(&self, key: &InsideFlowKey, value: &InsideFlow) {
        // A full LRU evicts; without the entry an answer shows the endpoint that sent it.
        let _ = flows(key).insert(key, value, u64::from(BPF_ANY));
    }
}
