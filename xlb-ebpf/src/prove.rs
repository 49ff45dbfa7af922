//! The pod's own kernel as witness: which state has the socket of a flow?

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::{bpf_sk_release, bpf_skc_lookup_tcp};
use aya_ebpf::programs::TcContext;
use xlb_common::abi::ProofQuestion;
use xlb_common::packet::Packet;
use xlb_common::tables::Proof;
use xlb_common::{Family, V4, V6};

use crate::skb::Skb;

/// The socket of a TCP flow in a namespace. The flow's key lies in memory as its family's `struct bpf_sock_tuple` wants
/// it: source, destination, source port, destination port. The kernel knows the family by the size.
#[inline(always)]
pub fn prove<F: Family, C: EbpfContext>(ctx: &C, netns_id: i32, key: &F::FlowKey) -> Proof {
    let tuple = core::ptr::from_ref(key).cast_mut().cast();
    let size = size_of::<F::FlowKey>() as u32;
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

/// Answers a `ProofQuestion` with the proof's number, or -1 if the question is too short or of no known family. Loaded
/// at once: the verifier refuses several loads here.
#[inline(always)]
pub fn answer(ctx: &TcContext) -> i32 {
    const QUESTION_AT: usize = core::mem::offset_of!(ProofQuestion, flow);
    let Some(q) = Skb::of(ctx).load::<44>(QUESTION_AT) else { return -1 };
    let [client, pod] = [stored(&q, 0), stored(&q, 16)];
    let [client_port, pod_port] = [[q[32], q[33]], [q[34], q[35]]];
    let netns_id = i32::from_ne_bytes([q[36], q[37], q[38], q[39]]);
    let proof = match u32::from_ne_bytes([q[40], q[41], q[42], q[43]]) {
        4 => of_family::<V4>(ctx, netns_id, (client, client_port), (pod, pod_port)),
        6 => of_family::<V6>(ctx, netns_id, (client, client_port), (pod, pod_port)),
        _ => return -1,
    };
    proof as i32
}

#[inline(always)]
fn of_family<F: Family>(
    ctx: &TcContext,
    netns_id: i32,
    client: ([u8; 16], [u8; 2]),
    pod: ([u8; 16], [u8; 2]),
) -> Proof {
    let key = F::flow_key((F::from_stored(client.0), client.1), (F::from_stored(pod.0), pod.1));
    prove::<F, _>(ctx, netns_id, &key)
}

/// The address at a constant place of the question.
#[inline(always)]
fn stored(q: &[u8; 44], at: usize) -> [u8; 16] {
    core::array::from_fn(|index| q[at + index])
}
