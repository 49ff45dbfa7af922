//! Events of sockets below the root cgroup: the pod's kernel accepted a connection, or its socket closed.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE,
};
use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::debug;
use xlb_common::abi::{EndpointKeyV4, FlowKeyV4, TCP};
use xlb_common::{Reason, admit};

use crate::maps::{Maps, count};

/// Address family IPv4 (AF_INET).
const AF_INET: u32 = 2;

/// One event of a socket.
#[inline(always)]
pub fn on_event(ctx: &SockOpsContext) {
    if ctx.family() != AF_INET {
        return;
    }
    let reason = match ctx.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => on_accepted(ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => admit::closed(&Maps::of(ctx), &flow_of(ctx)),
        _ => None,
    };
    if let Some(reason) = reason {
        count(reason);
    }
}

/// Remembers the flow, and asks to hear of its end.
#[inline(always)]
fn on_accepted(ctx: &SockOpsContext) -> Option<Reason> {
    let key = flow_of(ctx);
    let pod = EndpointKeyV4 { address: key.pod, port: key.pod_port, protocol: TCP, zero: 0 };
    let reason = admit::accepted(&Maps::of(ctx), &key, &pod)?;
    if reason == Reason::Accepted {
        // Without the flag only the mark at close is missing.
        let _ = ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    } else {
        debug!(ctx, "unknown connection from {:i} accepted by {:i}", key.client, key.pod);
    }
    Some(reason)
}

/// The flow of the socket. `remote_port` is in network byte order in the upper half, `local_port` in the host's order
/// (include/uapi/linux/bpf.h, struct bpf_sock_ops). Read one by one: the context cannot be read in wider words.
#[inline(always)]
fn flow_of(ctx: &SockOpsContext) -> FlowKeyV4 {
    // SAFETY: the context is valid for the whole run.
    let (client, pod, client_port, pod_port) = unsafe {
        (
            (&raw const (*ctx.ops).remote_ip4).read_volatile(),
            (&raw const (*ctx.ops).local_ip4).read_volatile(),
            (&raw const (*ctx.ops).remote_port).read_volatile(),
            (&raw const (*ctx.ops).local_port).read_volatile(),
        )
    };
    FlowKeyV4 {
        client: client.to_ne_bytes(),
        pod: pod.to_ne_bytes(),
        client_port: ((client_port >> 16) as u16).to_ne_bytes(),
        pod_port: (pod_port as u16).to_be_bytes(),
    }
}
