//! The pod's own kernel as witness: which state has the socket of a flow?

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::TcContext;
use xlb_common::abi::{FlowKeyV4, ProofQuestion};
use xlb_common::packet::Packet;
use xlb_common::tables::Proof;

use crate::skb::Skb;

/// The socket of a TCP flow in a namespace. The flow's key lies in memory as `struct bpf_sock_tuple` wants it: source,
/// destination, source port, destination port.
#[inline(always)]
pub fn prove<C: EbpfContext>(ctx: &C, netns_id: i32, key: &FlowKeyV4) -> Proof {
    let tuple = core::ptr::from_ref(key).cast_mut().cast();
    let size = size_of::<FlowKeyV4>() as u32;
    // SAFETY: the tuple has the size said, and the socket found is released below on the only way out.
    unsafe {
        let socket = bpf_skc_lookup_tcp(ctx.as_ptr(), tuple, size, netns_id as i64 as u64, 0);
        if socket.is_null() {
            return Proof::Absent;
        }
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        Proof::from_state(state)
    }
}

/// Answers a `ProofQuestion` with the proof's number, or -1 if the question is too short.
#[inline(always)]
pub fn answer(ctx: &TcContext) -> i32 {
    const QUESTION_AT: usize = core::mem::offset_of!(ProofQuestion, flow);
    let Some(q) = Skb::of(ctx).load::<40>(QUESTION_AT) else { return -1 };
    let key = FlowKeyV4 {
        client: [q[0], q[1], q[2], q[3]],
        pod: [q[16], q[17], q[18], q[19]],
        client_port: [q[32], q[33]],
        pod_port: [q[34], q[35]],
    };
    prove(ctx, i32::from_ne_bytes([q[36], q[37], q[38], q[39]]), &key) as i32
}
