//! The kernel as witness of its SYN cookies (Linux 6.0, `bpf_tcp_raw_check_syncookie_ipv4`). All its network namespaces have
//! one secret; a cookie is of the addresses and ports that it was given for.

use aya_ebpf::helpers::{bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6};
use xlb_common::abi::{FlowKeyV4, FlowKeyV6};
use xlb_common::parse::TcpView;

/// What the helper reads of a packet's headers: the addresses, at the end of the IP header, and the ports and numbers with
/// which TCP's begins (RFC 9293 chapter 3.1). Addresses and ports lie as in a flow's key.
#[repr(C)]
struct Headers<K, const WORDS: usize> {
    before: [u32; WORDS],
    key: K,
    /// Sequence and acknowledgement number, network byte order.
    numbers: [u32; 2],
    after: [u32; 2],
}

impl<K: Copy, const WORDS: usize> Headers<K, WORDS> {
    #[inline(always)]
    fn new(key: &K, tcp: &TcpView) -> Self {
        let numbers = [tcp.sequence.to_be(), tcp.acknowledged.to_be()];
        Self { before: [0; WORDS], key: *key, numbers, after: [0; 2] }
    }
}

/// Bytes of an IPv4 header without options, and of an IPv6 header.
const V4_LENGTH: usize = 20;
const V6_LENGTH: usize = 40;

/// Whether the segment acknowledges a cookie that was given in the name of the key's pod.
#[inline(always)]
pub fn gave_v4(key: &FlowKeyV4, tcp: &TcpView) -> bool {
    let mut headers = Headers::<_, 3>::new(key, tcp);
    let ip = (&raw mut headers).cast::<u8>();
    // SAFETY: both are as long as the headers that the helper reads, and outlive the call.
    unsafe { bpf_tcp_raw_check_syncookie_ipv4(ip.cast(), ip.add(V4_LENGTH).cast()) == 0 }
}

/// The same over IPv6.
#[inline(always)]
pub fn gave_v6(key: &FlowKeyV6, tcp: &TcpView) -> bool {
    let mut headers = Headers::<_, 2>::new(key, tcp);
    let ip = (&raw mut headers).cast::<u8>();
    // SAFETY: as above.
    unsafe { bpf_tcp_raw_check_syncookie_ipv6(ip.cast(), ip.add(V6_LENGTH).cast()) == 0 }
}
