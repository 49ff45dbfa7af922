//! What the host's own routes say of a packet to a client: the next hop behind an uplink.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_fib_lookup;
use xlb_common::Family;
use xlb_common::abi::{TCP, Way};

/// BPF_FIB_LOOKUP_OUTPUT of include/uapi/linux/bpf.h: the route of a packet that leaves by the interface asked about.
const OUTPUT: u32 = 2;
/// BPF_FIB_LKUP_RET_SUCCESS: there is a route, and its next hop's MAC is known.
const FOUND: i64 = 0;
/// Address family IPv4 (AF_INET), and IPv6 (AF_INET6).
const FAMILIES: [u8; 2] = [2, 10];

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h), as it is used here. The fields behind `vlan` are the answer.
#[repr(C)]
struct Question {
    family: u8,
    protocol: u8,
    ports: [[u8; 2]; 2],
    /// Zero: the MTU is not asked for.
    length: u16,
    ifindex: u32,
    class: u32,
    source: [u8; 16],
    destination: [u8; 16],
    vlan: u32,
    uplink_mac: [u8; 6],
    next_hop_mac: [u8; 6],
}
const _: () = assert!(size_of::<Question>() == 64);

/// How the host sends TCP from a VIP to a client by this uplink; none: it has no route there, knows no MAC of the next hop, or
/// does not forward.
#[inline(never)]
pub fn route<F: Family, C: EbpfContext>(ctx: &C, uplink: u32, vip: F::Address, client: F::Address) -> Option<Way> {
    let mut question = Question {
        family: FAMILIES[usize::from(F::VERSION == 6)],
        protocol: TCP,
        ports: [[0; 2]; 2],
        length: 0,
        ifindex: uplink,
        class: 0,
        source: F::to_stored(vip),
        destination: F::to_stored(client),
        vlan: 0,
        uplink_mac: [0; 6],
        next_hop_mac: [0; 6],
    };
    // SAFETY: the helper reads and writes the question, which has the size said and outlives the call.
    let result =
        unsafe { bpf_fib_lookup(ctx.as_ptr(), (&raw mut question).cast(), size_of::<Question>() as i32, OUTPUT) };
    let is_found = result as i64 == FOUND && question.ifindex == uplink;
    is_found.then_some(Way { ifindex: uplink, next_hop_mac: question.next_hop_mac, uplink_mac: question.uplink_mac })
}
