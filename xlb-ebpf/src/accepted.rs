//! Events of sockets below the root cgroup: the pod's kernel accepted a connection, or its socket closed.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE,
};
use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::debug;
use xlb_common::abi::TCP;
use xlb_common::{Reason, V4, V6, admit, ageing};

use crate::inside::learn;
use crate::maps::{FamilyMaps, Maps, count};
use crate::words::{MAPPED, bytes, word, words};

/// Address family IPv4 (AF_INET).
const AF_INET: u32 = 2;
/// Address family IPv6 (AF_INET6).
const AF_INET6: u32 = 10;

/// One event of a socket. A socket that listens to both families is of IPv6, and so are those it accepts from IPv4
/// clients: their packets, and their flows, are of IPv4 (net/ipv6/tcp_ipv6.c, tcp_v6_syn_recv_sock).
#[inline(always)]
pub fn on_event(ctx: &SockOpsContext) {
    let reason = match ctx.family() {
        AF_INET => of_family::<V4>(ctx, ends_v4),
        AF_INET6 if is_mapped(ctx) => of_family::<V4>(ctx, ends_v4),
        AF_INET6 => of_family::<V6>(ctx, ends_v6),
        _ => None,
    };
    if let Some(reason) = reason {
        count(reason);
    }
}

/// What follows is a function for each event: their keys and entries do not fit one stack together.
#[inline(always)]
fn of_family<F: FamilyMaps>(
    ctx: &SockOpsContext,
    ends: impl Fn(&SockOpsContext) -> [F::Address; 2] + Copy,
) -> Option<Reason> {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => {
            learn::<F>(ctx, ends);
            None
        }
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => {
            learn::<F>(ctx, ends);
            on_accepted::<F>(ctx, ends)
        }
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE && ctx.arg(0) != BPF_TCP_CLOSE => {
            on_closed::<F>(ctx, ends)
        }
        _ => None,
    }
}

/// Remembers the flow, and asks to hear of its end.
#[inline(never)]
fn on_accepted<F: FamilyMaps>(
    ctx: &SockOpsContext,
    ends: impl Fn(&SockOpsContext) -> [F::Address; 2],
) -> Option<Reason> {
    let [client, pod] = ends(ctx);
    let (client_port, pod_port) = ports(ctx);
    let key = F::flow_key((client, client_port), (pod, pod_port));
    let reason = admit::accepted::<F, _>(&Maps::of(ctx), &key, &F::endpoint_key(pod, pod_port, TCP))?;
    if reason == Reason::Accepted {
        // Without the flag nobody hears of the end, and the agent has to ask for it.
        let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    } else {
        debug!(ctx, "unknown connection from {:i} accepted by {:i}", F::to_stored(client), F::to_stored(pod));
    }
    Some(reason)
}

/// The flow is over.
#[inline(never)]
fn on_closed<F: FamilyMaps>(ctx: &SockOpsContext, ends: impl Fn(&SockOpsContext) -> [F::Address; 2]) -> Option<Reason> {
    let [client, pod] = ends(ctx);
    let (client_port, pod_port) = ports(ctx);
    let key = F::flow_key((client, client_port), (pod, pod_port));
    ageing::closed::<F, _>(&Maps::of(ctx), &key, &F::endpoint_key(pod, pod_port, TCP))
}

/// Whether an IPv6 socket speaks IPv4.
#[inline(always)]
fn is_mapped(ctx: &SockOpsContext) -> bool {
    // SAFETY: the context is valid for the whole run.
    let [a, b, c, _] = unsafe { words(&raw const (*ctx.ops).remote_ip6) };
    [a, b, c] == MAPPED
}

/// Client and pod. The kernel keeps them beside the IPv6 ones, in mapped sockets too (include/net/sock.h, sk_daddr_set).
#[inline(always)]
fn ends_v4(ctx: &SockOpsContext) -> [[u8; 4]; 2] {
    // SAFETY: the context is valid for the whole run.
    let ends = unsafe { [word(&raw const (*ctx.ops).remote_ip4), word(&raw const (*ctx.ops).local_ip4)] };
    ends.map(u32::to_ne_bytes)
}

/// Client and pod.
#[inline(always)]
fn ends_v6(ctx: &SockOpsContext) -> [[u8; 16]; 2] {
    // SAFETY: the context is valid for the whole run.
    let ends = unsafe { [words(&raw const (*ctx.ops).remote_ip6), words(&raw const (*ctx.ops).local_ip6)] };
    ends.map(bytes)
}

/// Client's and pod's. `remote_port` is in network byte order in the upper half, `local_port` in the host's order
/// (include/uapi/linux/bpf.h, struct bpf_sock_ops).
#[inline(always)]
fn ports(ctx: &SockOpsContext) -> ([u8; 2], [u8; 2]) {
    // SAFETY: the context is valid for the whole run.
    let (client, pod) = unsafe { (word(&raw const (*ctx.ops).remote_port), word(&raw const (*ctx.ops).local_port)) };
    (((client >> 16) as u16).to_ne_bytes(), (pod as u16).to_be_bytes())
}
